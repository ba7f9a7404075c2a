"""What every method's arguments share, under transformers' names.

In: a config, the resolved setup, the prepared data. Out: a dict for any of TRL's config classes. What only one method
has is added by its builder.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from studio.core.config import RunConfig
from studio.core.schedule import optimizer_steps
from studio.core.sections.together import OFFLOADING, PROJECTING
from studio.worker.data.prepare import Prepared
from studio.worker.device import Setup


def training_arguments(config: RunConfig, setup: Setup, data: Prepared, output: Path) -> dict[str, Any]:
    """What every method's arguments share.

    Every value that matters is set, none left to a default.
    """
    knobs = config.training
    autocast = _autocast(knobs.autocast, setup)
    steps = optimizer_steps(config, len(data.train))  # packed rows, where they are packed
    has_validation = data.validation is not None
    eval_steps = knobs.eval_steps or max(1, math.ceil(steps / 10))
    best = knobs.load_best_model_at_end and has_validation
    offloading = {"activation_offloading": knobs.activation_offloading} if config.method.name in OFFLOADING else {}
    return {
        **offloading,
        "output_dir": str(output),
        "num_train_epochs": knobs.num_train_epochs,
        "max_steps": knobs.max_steps or -1,
        "learning_rate": knobs.learning_rate,
        "per_device_train_batch_size": knobs.per_device_train_batch_size,
        "per_device_eval_batch_size": knobs.per_device_train_batch_size,
        "gradient_accumulation_steps": knobs.gradient_accumulation_steps,
        "lr_scheduler_type": knobs.lr_scheduler_type,
        "lr_scheduler_kwargs": _schedule(config, steps),
        "warmup_steps": warmup_steps(config, steps),
        "weight_decay": knobs.weight_decay,
        "adam_beta1": knobs.adam_beta1,
        "adam_beta2": knobs.adam_beta2,
        "adam_epsilon": knobs.adam_epsilon,
        "max_grad_norm": knobs.max_grad_norm,
        # Muon isn't among transformers' own; worker/trainers/muon puts it in its place
        "optim": "adamw_torch" if knobs.optim == "muon" else knobs.optim,
        "optim_target_modules": (knobs.optim_target_modules or "all-linear") if knobs.optim in PROJECTING else None,
        "neftune_noise_alpha": knobs.neftune_noise_alpha,
        "label_smoothing_factor": knobs.label_smoothing_factor,
        # gradient checkpointing by the name that transformers 5.23 gives it
        "activation_checkpointing": setup.gradient_checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": knobs.use_reentrant is True}
        if setup.gradient_checkpointing
        else None,
        "train_sampling_strategy": setup.sampling,
        "length_column_name": "length",
        "seed": knobs.seed,
        "data_seed": knobs.seed,
        "bf16": autocast is torch.bfloat16,
        "fp16": autocast is torch.float16,
        "use_cpu": setup.on_cpu,
        "torch_compile": knobs.torch_compile,
        "use_liger_kernel": knobs.use_liger_kernel,
        "dataloader_num_workers": knobs.dataloader_num_workers,
        "full_determinism": knobs.full_determinism,
        "logging_steps": knobs.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # a NaN must show as one
        "eval_strategy": "steps" if has_validation else "no",
        "eval_steps": eval_steps,
        "prediction_loss_only": True,
        "save_strategy": "steps",
        # The best of all measurements can only be gone back to if each has a checkpoint.
        "save_steps": eval_steps if best else knobs.save_steps or max(1, math.ceil(steps / 4)),
        "save_total_limit": None,  # rotated by worker/checkpoints, which looks at what is complete
        "load_best_model_at_end": best,
        "metric_for_best_model": knobs.metric_for_best_model if has_validation else None,
        "greater_is_better": is_better_high(knobs.metric_for_best_model),
        "report_to": list(knobs.report_to) or "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": not setup.on_cpu,
        "label_names": ["labels"],
        "push_to_hub": False,
    }


def warmup_steps(config: RunConfig, steps: int) -> int:
    """Steps over which the rate rises: as many as are said, else the share of the run."""
    knobs = config.training
    return math.ceil(knobs.warmup_ratio * steps) if knobs.warmup_steps is None else knobs.warmup_steps


def is_better_high(metric: str) -> bool:
    """Whether more of a figure is better, as transformers decides it."""
    return not metric.endswith("loss")


def _schedule(config: RunConfig, steps: int) -> dict[str, Any]:
    """What the schedule is told beside the steps, with what it can't do without."""
    knobs = config.training
    given = dict(knobs.lr_scheduler_kwargs)
    if knobs.lr_scheduler_type == "warmup_stable_decay":
        # The last tenth falls (Hu et al. 2024, arXiv:2404.06395, section 4.2).
        return {"num_decay_steps": math.ceil(0.1 * steps), **given}
    if knobs.lr_scheduler_type == "reduce_lr_on_plateau":
        return {"mode": "max" if is_better_high(knobs.metric_for_best_model) else "min", **given}
    return given


def _autocast(wish: str | bool, setup: Setup) -> Any:
    """The format of matrix products, None for the weights' own."""
    if wish == "auto":
        return setup.autocast
    return (setup.autocast or torch.bfloat16) if wish else None
