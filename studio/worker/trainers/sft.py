"""Supervised fine-tuning and continued pre-training: TRL's SFTTrainer on rows that come encoded.

In: what every builder gets. Out: a trainer. Which tokens carry loss was settled by worker/encode; how rows are packed
is TRL's, done here so that the number of packed rows, and with it of steps, is known before the arguments are made.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

from trl import SFTConfig, pack_dataset

from studio.core.fitting import WHOLE, longest_row
from studio.worker.adapters.laying import fresh_config
from studio.worker.trainers.arguments import training_arguments
from studio.worker.trainers.compact import CompactSFTTrainer
from studio.worker.trainers.parts import Parts


def sft(parts: Parts) -> Any:
    """Supervised fine-tuning, or continued pre-training: the rows tell them apart."""
    trainer = sft_trainer(parts, CompactSFTTrainer)
    trainer.full_loss = parts.config.training.loss_implementation == "full"
    return trainer


def sft_trainer(parts: Parts, kind: type[CompactSFTTrainer], **more: Any) -> Any:
    """A trainer of this kind on rows of the shape `tokens`; `more` is what only it takes."""
    config, data = parts.config, parts.data
    knobs = config.training
    if knobs.packing:
        data = replace(data, train=_packed(parts, data.train), validation=_validated(parts))
    arguments = SFTConfig(
        **training_arguments(config, parts.setup, data, parts.output),
        max_length=None if knobs.padding_free else knobs.max_length,  # the rows are cut already
        loss_type=getattr(config.method, "loss_type", "nll"),
        packing=knobs.packing,
        packing_strategy=knobs.packing_strategy,
        eval_packing=False,
        padding_free=knobs.padding_free,
        # The rows come tokenized, cut, labelled and packed.
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    with warnings.catch_warnings():
        # TRL speaks of what the person can't change here (a model loaded in float32, a padding token set).
        warnings.simplefilter("ignore")
        return kind(
            model=parts.model,
            args=arguments,
            train_dataset=data.train,
            eval_dataset=data.validation,
            processing_class=parts.tokenizer,
            peft_config=fresh_config(config, parts.model),
            **more,
        )


def _packed(parts: Parts, rows: Any) -> Any:
    knobs = parts.config.training
    return pack_dataset(rows.select_columns(["input_ids", "labels"]), knobs.max_length, knobs.packing_strategy)


def _validated(parts: Parts) -> Any:
    """Validation rows stay as they are, unless they may be longer than a row can be."""
    rows = parts.data.validation
    return _packed(parts, rows) if rows is not None and longest_row(parts.config) == WHOLE else rows
