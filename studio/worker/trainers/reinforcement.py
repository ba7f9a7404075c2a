"""GRPO and RLOO: TRL's trainers on prompts that come encoded, judged by rewards from a list.

In: what every builder gets. Out: trainers. The model writes its answers itself, by transformers' own generation, on
the device it trains on.
"""

from __future__ import annotations

from typing import Any

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from studio.worker.adapters.laying import fresh_config
from studio.worker.trainers.answering import Answering, answering_arguments, rewards_of
from studio.worker.trainers.parts import Parts


class EncodedGRPOTrainer(Answering, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer on encoded prompts."""


class EncodedRLOOTrainer(Answering, RLOOTrainer):  # type: ignore[misc]
    """RLOOTrainer on encoded prompts."""


def grpo(parts: Parts) -> Any:
    """GRPO."""
    method: Any = parts.config.method
    arguments = GRPOConfig(
        **answering_arguments(parts),
        beta=method.beta,
        loss_type=method.loss_type,
        scale_rewards=method.scale_rewards,
        num_iterations=method.num_iterations,
        epsilon=method.epsilon,
        epsilon_high=method.epsilon_high,
        mask_truncated_completions=method.mask_truncated_completions,
    )
    return _trainer(EncodedGRPOTrainer, arguments, parts)


def rloo(parts: Parts) -> Any:
    """RLOO."""
    method: Any = parts.config.method
    arguments = RLOOConfig(
        **answering_arguments(parts),
        beta=method.beta,
        num_iterations=method.num_iterations,
        epsilon=method.epsilon,
        normalize_advantages=method.normalize_advantages,
    )
    return _trainer(EncodedRLOOTrainer, arguments, parts)


def _trainer(kind: Any, arguments: Any, parts: Parts) -> Any:
    return kind(
        model=parts.model,
        reward_funcs=rewards_of(parts),
        args=arguments,
        train_dataset=parts.data.train,
        eval_dataset=parts.data.validation,
        processing_class=parts.tokenizer,
        peft_config=fresh_config(parts.config, parts.model),
    )
