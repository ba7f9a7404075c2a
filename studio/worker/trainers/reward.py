"""Reward models: TRL's RewardTrainer on pairs that come encoded.

In: what every builder gets, and a model with a head of one number. Out: a trainer. The number is read at an answer's
last token, so whole answers come in; see worker/data.
"""

from __future__ import annotations

import warnings
from typing import Any

from trl import RewardConfig, RewardTrainer

from studio.worker.adapters.laying import fresh_config
from studio.worker.trainers.arguments import training_arguments
from studio.worker.trainers.parts import Parts
from studio.worker.trainers.preference import preference_arguments


class EncodedRewardTrainer(RewardTrainer):  # type: ignore[misc]
    """RewardTrainer on encoded rows: each answer behind its prompt."""

    @property
    def tokens_seen(self) -> int:
        """Tokens trained on so far: of both answers, each with its prompt."""
        return int(self._total_train_tokens)

    def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
        return dataset


class Whole:
    """Prompt and answer put together, for TRL's own collator."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        names = ("chosen_ids", "rejected_ids")
        return self.collate([{name: row["prompt_ids"] + row[name] for name in names} for row in rows])


def reward(parts: Parts) -> Any:
    """A reward model."""
    config = parts.config
    method: Any = config.method
    arguments = RewardConfig(
        **training_arguments(config, parts.setup, parts.data, parts.output),
        **preference_arguments(config),
        center_rewards_coefficient=method.center_rewards_coefficient,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as for all trainers of TRL
        trainer = EncodedRewardTrainer(
            model=parts.model,
            args=arguments,
            train_dataset=parts.data.train,
            eval_dataset=parts.data.validation,
            processing_class=parts.tokenizer,
            peft_config=fresh_config(config, parts.model),
        )
    trainer.data_collator = Whole(trainer.data_collator)
    return trainer
