"""Method -> the trainer that does it. A new method is a builder and its row in `BUILDERS`.

In: a config, a model, prepared data. Out: a TRL trainer, ready to train. What it says while it trains is the
callback's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback

from studio.core.config import RunConfig
from studio.core.inputs import Inputs
from studio.worker.adapters.following import follow
from studio.worker.adapters.laying import lay_over, refusing
from studio.worker.data.prepare import Prepared
from studio.worker.data.source import Progress, quiet
from studio.worker.device import Setup
from studio.worker.holding import hold_adapter, prepare
from studio.worker.trainers.distill import distill
from studio.worker.trainers.muon import muon
from studio.worker.trainers.online import online_dpo
from studio.worker.trainers.order import SameOrder
from studio.worker.trainers.parts import Builder, Parts
from studio.worker.trainers.ppo import ppo
from studio.worker.trainers.preference import dpo, kto
from studio.worker.trainers.reinforcement import grpo, rloo
from studio.worker.trainers.reward import reward
from studio.worker.trainers.sft import sft
from studio.worker.trainers.unreferenced import cpo, orpo

BUILDERS: dict[str, Builder] = {
    "sft": sft,
    "pretrain": sft,
    "dpo": dpo,
    "kto": kto,
    "orpo": orpo,
    "cpo": cpo,
    "reward": reward,
    "grpo": grpo,
    "rloo": rloo,
    "ppo": ppo,
    "online_dpo": online_dpo,
    "distill": distill,
}


def _keep_differentiable(model: Any) -> None:
    """On processors with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first evaluation, for good, and its
    product with packed weights passes no gradient on: training would go on with wrong ones in silence."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def build_trainer(
    config: RunConfig,
    setup: Setup,
    model: Any,
    tokenizer: Any,
    data: Prepared,
    output: Path,
    inputs: Inputs | None = None,
    progress: Progress = quiet,
) -> Any:
    """The trainer for `method.name`, with early stopping where it is asked for."""
    _keep_differentiable(model)
    model = prepare(model, config)
    with refusing(config):
        model = lay_over(config, model, rows=data.train, base=Path(model.config.name_or_path), kept=output)
        trainer = BUILDERS[config.method.name](Parts(config, setup, model, tokenizer, data, output, inputs, progress))
    hold_adapter(trainer.model, config, setup)
    follow(trainer, config, setup)
    trainer.add_callback(SameOrder())
    if config.training.optim == "muon":
        args = trainer.args
        betas = (args.adam_beta1, args.adam_beta2)
        trainer.optimizer = muon(trainer.model, args.learning_rate, args.weight_decay, betas, args.adam_epsilon)
    if config.training.early_stopping_patience and data.validation is not None:
        trainer.add_callback(EarlyStoppingCallback(config.training.early_stopping_patience))
    return trainer
