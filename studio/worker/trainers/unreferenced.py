"""ORPO and CPO (with SimPO by its loss): preferences without a reference, by TRL's experimental trainers.

In: what every builder gets. Out: trainers. TRL's tokenizing is left out: rows come encoded, and a collator of ours lays
them out as these trainers want them.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch

from studio.worker.adapters.laying import fresh_config
from studio.worker.trainers.arguments import training_arguments
from studio.worker.trainers.parts import Parts
from studio.worker.trainers.preference import preference_arguments

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # the form says that these methods are experimental

from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer


class Pairs:
    """Chosen and rejected answers behind their prompt, each kind padded to its longest, under these trainers' names."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = {}
        for kind in ("chosen", "rejected"):
            whole = [row["prompt_ids"] + row[f"{kind}_ids"] for row in rows]
            answers = [[-100] * len(row["prompt_ids"]) + row[f"{kind}_ids"] for row in rows]
            batch[f"{kind}_input_ids"] = _padded(whole, self.pad)
            batch[f"{kind}_attention_mask"] = _padded([[1] * len(ids) for ids in whole], 0)
            batch[f"{kind}_labels"] = _padded(answers, -100)
        return batch


def _padded(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


class Unreferenced:
    """What both trainers share: rows that need no tokenizing, and a count of the tokens trained on."""

    tokens_seen = 0

    def __init__(self, *args: Any, train_dataset: Any, eval_dataset: Any = None, **kwargs: Any) -> None:
        first = train_dataset.select(range(1))  # so that TRL's rewriting of all rows has nothing to do
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as for all trainers of TRL
            options = {**kwargs, "train_dataset": first, "eval_dataset": None if eval_dataset is None else first}
            super().__init__(*args, **options)
        self.train_dataset, self.eval_dataset = train_dataset, eval_dataset

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        return {}

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        if model.training:
            self.tokens_seen += sum(int(inputs[f"{kind}_attention_mask"].sum()) for kind in ("chosen", "rejected"))
        return super().compute_loss(model, inputs, *rest, **options)  # type: ignore[misc]


class EncodedORPOTrainer(Unreferenced, ORPOTrainer):  # type: ignore[misc]
    """ORPO on encoded rows."""


class EncodedCPOTrainer(Unreferenced, CPOTrainer):  # type: ignore[misc]
    """CPO on encoded rows."""


def orpo(parts: Parts) -> Any:
    """ORPO."""
    method: Any = parts.config.method
    arguments = ORPOConfig(
        **training_arguments(parts.config, parts.setup, parts.data, parts.output),
        **preference_arguments(parts.config),
        beta=method.beta,
    )
    return _built(EncodedORPOTrainer, arguments, parts)


def cpo(parts: Parts) -> Any:
    """CPO, and SimPO by its loss."""
    method: Any = parts.config.method
    arguments = CPOConfig(
        **training_arguments(parts.config, parts.setup, parts.data, parts.output),
        **preference_arguments(parts.config),
        beta=method.beta,
        loss_type=method.loss_type,
        label_smoothing=method.label_smoothing,
        cpo_alpha=method.cpo_alpha,
        simpo_gamma=method.simpo_gamma,
    )
    return _built(EncodedCPOTrainer, arguments, parts)


def _built(kind: Any, arguments: Any, parts: Parts) -> Any:
    tokenizer = parts.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return kind(
        model=parts.model,
        args=arguments,
        data_collator=Pairs(tokenizer.pad_token_id),
        train_dataset=parts.data.train,
        eval_dataset=parts.data.validation,
        processing_class=tokenizer,
        peft_config=fresh_config(parts.config, parts.model),
    )
