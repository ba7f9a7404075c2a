"""The order of rows, the same for a run in one go and for one that goes on in a later epoch.

In: the trainer's dataloader, the epoch that begins. Out: its sampler, drawing from a generator of the epoch's own.
Knows no rows.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler


class SameOrder(TrainerCallback):  # type: ignore[misc]
    """transformers' sampler by length draws from the process's random numbers, whose state in the middle of a run
    isn't what it was where that epoch began; plain random order has an epoch's own by itself."""

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        sampler = getattr(getattr(train_dataloader, "batch_sampler", None), "sampler", None)
        epoch = int(state.epoch or 0)
        if isinstance(sampler, LengthGroupedSampler) and epoch:
            sampler.generator = torch.Generator().manual_seed(args.seed + epoch)
