"""Method -> the trainer that does it. A new method is a builder and its row in `BUILDERS`.

In: a config, a model, prepared data. Out: a TRL trainer, ready to train. Everything it is told stands here; what it
says while it trains is the callback's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import EarlyStoppingCallback
from trl import SFTConfig, SFTTrainer

from studio.core.config import RunConfig
from studio.core.schedule import optimizer_steps
from studio.worker.adapters import peft_config
from studio.worker.data.prepare import Prepared
from studio.worker.device import Setup

# Rows of hidden states whose logits are held at once: 2048 x 49152 float32 are 400 MB.
_HEAD_ROWS = 2048
# Config entries by which a model changes its logits between head and loss, or adds to the loss.
_LOSS_CHANGES = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "output_multiplier",
    "lm_head_multiplier",
    "output_router_logits",
)


class CompactSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer, counting tokens, with the loss computed only where there is one.

    On a GPU TRL's fused head does that by itself. On a processor it projects every position through the head and
    gathers statistics nobody asked for; here only positions that carry loss are projected: the same loss, less
    arithmetic.
    """

    tokens_seen = 0
    _plain: bool | None = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:
            mask = inputs.get("attention_mask")
            self.tokens_seen += int(mask.sum() if mask is not None else inputs["input_ids"].numel())
        causal = self.accelerator.unwrap_model(model)
        causal = causal.get_base_model() if hasattr(causal, "get_base_model") else causal
        if return_outputs or inputs["input_ids"].device.type != "cpu" or not self._has_plain_head(causal, inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        rest = {key: value for key, value in inputs.items() if key not in ("labels", "use_cache")}
        hidden = causal.base_model(**rest, use_cache=False).last_hidden_state[:, :-1]
        learnt = labels != -100
        total = _cross_entropy_sum(hidden[learnt], causal.get_output_embeddings(), labels[learnt])
        count = learnt.sum() if num_items_in_batch is None else num_items_in_batch
        return total / torch.as_tensor(count).clamp(min=1)

    def _has_plain_head(self, causal: Any, inputs: dict[str, Any]) -> bool:
        if self._plain is None:
            self._plain = _plain_head(causal, inputs["input_ids"][:1, :4])
        return self._plain


def _plain_head(causal: Any, ids: torch.Tensor) -> bool:
    """Whether a model's logits are its head's of its last hidden states and nothing more; other models keep TRL's loss.

    Its config may say that they are scaled or capped; what else a model does behind its hidden states is seen by
    trying it on a few tokens.
    """
    config = causal.config.get_text_config()
    if any(getattr(config, name, None) not in (None, False, 1, 1.0) for name in _LOSS_CHANGES):
        return False
    was_training = causal.training
    causal.eval()
    try:
        with torch.no_grad():
            logits = causal(input_ids=ids, use_cache=False).logits
            hidden = causal.base_model(input_ids=ids, use_cache=False).last_hidden_state
            return bool(torch.allclose(causal.get_output_embeddings()(hidden).float(), logits.float(), 1e-5, 1e-6))
    finally:
        causal.train(was_training)


def _cross_entropy_sum(hidden: torch.Tensor, head: Any, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross entropy of (n, d) hidden states under the head; long inputs are recomputed piece by piece."""

    def piece(states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(head(states).float(), targets, reduction="sum")

    if hidden.shape[0] <= _HEAD_ROWS:
        return piece(hidden, labels)
    parts = zip(hidden.split(_HEAD_ROWS), labels.split(_HEAD_ROWS), strict=True)
    pieces = [checkpoint(piece, states, targets, use_reentrant=False) for states, targets in parts]
    return torch.stack(pieces).sum()


def training_arguments(config: RunConfig, setup: Setup, data: Prepared, output: Path) -> dict[str, Any]:
    """What every method's arguments share, under transformers' names.

    Every value that matters is set, none left to a default.
    """
    knobs = config.training
    autocast = _autocast(knobs.autocast, setup)
    steps = optimizer_steps(config, data.report.train)
    has_validation = data.validation is not None
    return {
        "output_dir": str(output),
        "num_train_epochs": knobs.num_train_epochs,
        "max_steps": knobs.max_steps or -1,
        "learning_rate": knobs.learning_rate,
        "per_device_train_batch_size": knobs.per_device_train_batch_size,
        "per_device_eval_batch_size": knobs.per_device_train_batch_size,
        "gradient_accumulation_steps": knobs.gradient_accumulation_steps,
        "lr_scheduler_type": knobs.lr_scheduler_type,
        "warmup_steps": math.ceil(knobs.warmup_ratio * steps),
        "weight_decay": knobs.weight_decay,
        "max_grad_norm": knobs.max_grad_norm,
        "optim": knobs.optim,
        # gradient checkpointing by the name that transformers 5.23 gives it
        "activation_checkpointing": setup.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": knobs.use_reentrant}
        if setup.gradient_checkpointing
        else None,
        "train_sampling_strategy": setup.sampling,
        "length_column_name": "length",
        "seed": knobs.seed,
        "data_seed": knobs.seed,
        "bf16": autocast is torch.bfloat16,
        "fp16": autocast is torch.float16,
        "use_cpu": setup.on_cpu,
        "logging_steps": knobs.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a NaN must show as one
        "eval_strategy": "steps" if has_validation else "no",
        "eval_steps": knobs.eval_steps or max(1, math.ceil(steps / 10)),
        "prediction_loss_only": True,
        "save_strategy": "steps",
        "save_steps": knobs.save_steps or max(1, math.ceil(steps / 4)),
        "save_total_limit": None,  # rotated by worker/checkpoints, which looks at what is complete
        "load_best_model_at_end": False,
        "metric_for_best_model": "eval_loss" if has_validation else None,
        "greater_is_better": False,
        "report_to": list(knobs.report_to) or "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not setup.on_cpu,
        "label_names": ["labels"],
        "push_to_hub": False,
    }


def _autocast(wish: str | bool, setup: Setup) -> Any:
    """The format of matrix products, None for the weights' own."""
    if wish == "auto":
        return setup.autocast
    return (setup.autocast or torch.bfloat16) if wish else None


def _sft(config: RunConfig, setup: Setup, model: Any, tokenizer: Any, data: Prepared, output: Path) -> Any:
    arguments = SFTConfig(
        **training_arguments(config, setup, data, output),
        max_length=config.training.max_length,
        packing=config.training.packing,
        packing_strategy="bfd",
        eval_packing=False,
        # The rows come tokenized, cut and labelled by worker/encode; only packing is left to TRL.
        dataset_kwargs=None if config.training.packing else {"skip_prepare_dataset": True},
    )
    with warnings.catch_warnings():
        # TRL speaks of what the person can't change here (a model loaded in float32, a padding token set).
        warnings.simplefilter("ignore")
        return CompactSFTTrainer(
            model=model,
            args=arguments,
            train_dataset=data.train,
            eval_dataset=data.validation,
            processing_class=tokenizer,
            peft_config=peft_config(config.adapter) if config.adapter else None,
        )


BUILDERS: dict[str, Callable[[RunConfig, Setup, Any, Any, Prepared, Path], Any]] = {"sft": _sft}


def _keep_differentiable(model: Any) -> None:
    """On processors with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first evaluation, for good, and its
    product with packed weights passes no gradient on: training would go on with wrong ones in silence."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def build_trainer(config: RunConfig, setup: Setup, model: Any, tokenizer: Any, data: Prepared, output: Path) -> Any:
    """The trainer for `method.name`, with early stopping where it is asked for."""
    _keep_differentiable(model)
    trainer = BUILDERS[config.method.name](config, setup, model, tokenizer, data, output)
    if config.training.early_stopping_patience and data.validation is not None:
        trainer.add_callback(EarlyStoppingCallback(config.training.early_stopping_patience))
    return trainer
