"""Choices that can't work together, whichever of them is made first.

In: a whole RunConfig. Out: why it can't run, in a sentence that opens with the knob to change. What depends on a
machine, its packages or a model's shape is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from studio.core.sections.adapter import (
    RESIDUAL,
    FreezeAdapter,
    LoHaAdapter,
    LoKrAdapter,
    LoraAdapter,
    PrefixTuningAdapter,
    Prompting,
)
from studio.core.sections.preference import method_refusals

if TYPE_CHECKING:
    from studio.core.config import RunConfig

# What each schedule takes, by transformers' names (transformers/optimization.py, torch's ReduceLROnPlateau).
_PLATEAU = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")
SCHEDULES: dict[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "constant": (),
    "constant_with_warmup": (),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "inverse_sqrt": ("timescale",),
    "reduce_lr_on_plateau": _PLATEAU,
    "cosine_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate"),
    "cosine_warmup_with_min_lr": ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    "warmup_stable_decay": (
        "num_decay_steps",
        "num_stable_steps",
        "warmup_type",
        "decay_type",
        "min_lr_ratio",
        "num_cycles",
    ),
}
# Methods whose trainers can move activations off the card.
OFFLOADING = ("sft", "pretrain", "dpo", "kto", "reward")
_FOUR_BITS = ("nf4", "fp4")
PROJECTING = ("galore_adamw", "apollo_adamw")
_OWN_GROUPS = (*PROJECTING, "lomo", "muon")


def refusals(config: RunConfig) -> Iterator[str]:
    """Every reason why this can't run; none for a config that may."""
    yield from _of_quantization(config)
    yield from _of_prompts(config)
    yield from _of_validation(config)
    yield from _of_schedule(config)
    yield from _of_the_rest(config)
    yield from method_refusals(config)


def _of_quantization(config: RunConfig) -> Iterator[str]:
    quantization, adapter = config.model.quantization, config.adapter
    if quantization == "none":
        if isinstance(adapter, LoraAdapter) and adapter.init_lora_weights == "loftq":
            yield "adapter.init_lora_weights: loftq makes good what 4 bits lose; set model.quantization to nf4"
        return
    if config.saves_model:
        yield "model.quantization: a model held in 4 or 8 bits can only be trained through an adapter"
    if isinstance(adapter, LoraAdapter):
        start = adapter.init_lora_weights
        if start in (*RESIDUAL, "orthogonal"):
            yield (
                f"adapter.init_lora_weights: {start} needs the base's own weights, which {quantization} doesn't keep; "
                f"take eva or default, or set model.quantization to none"
            )
        if start == "loftq" and quantization not in _FOUR_BITS:
            yield "adapter.init_lora_weights: loftq makes good what 4 bits lose; set model.quantization to nf4"
    if isinstance(adapter, (LoHaAdapter, LoKrAdapter)) and quantization in _FOUR_BITS:
        yield (
            f"adapter.type: {adapter.type} can't be laid over a model in 4 bits; take lora, or set model.quantization "
            f"to int8 or none"
        )


def _of_prompts(config: RunConfig) -> Iterator[str]:
    adapter, knobs = config.adapter, config.training
    if isinstance(adapter, Prompting):
        if knobs.packing or knobs.padding_free:
            name = "packing" if knobs.packing else "padding_free"
            yield f"training.{name}: {adapter.type} stands in front of each row, and rows laid together have one front"
        if knobs.use_liger_kernel:
            yield f"training.use_liger_kernel: its loss knows nothing of {adapter.type}; switch it off"
    if isinstance(adapter, PrefixTuningAdapter) and knobs.gradient_checkpointing is True:
        yield "training.gradient_checkpointing: prefix tuning can't recompute; set it to auto or false"


def _of_validation(config: RunConfig) -> Iterator[str]:
    knobs = config.training
    if config.dataset.validation_path or config.dataset.validation_split > 0:
        return
    wishes = {
        "load_best_model_at_end": knobs.load_best_model_at_end,
        "early_stopping_patience": knobs.early_stopping_patience is not None,
        "lr_scheduler_type": knobs.lr_scheduler_type == "reduce_lr_on_plateau",
    }
    for name, wish in wishes.items():
        if wish:
            yield f"training.{name}: it goes by held-out rows, and there are none; set dataset.validation_split"


def _of_schedule(config: RunConfig) -> Iterator[str]:
    kind, given = config.training.lr_scheduler_type, config.training.lr_scheduler_kwargs
    known = SCHEDULES[kind]
    for name in given:
        if name not in known:
            there = f"it takes {', '.join(known)}" if known else "it takes nothing"
            yield f"training.lr_scheduler_kwargs: {kind} knows no {name}; {there}"
    if kind.endswith("with_min_lr") and ("min_lr" in given) == ("min_lr_rate" in given):
        yield f"training.lr_scheduler_kwargs: {kind} needs one of min_lr (a rate), min_lr_rate (a share of it)"


def _of_the_rest(config: RunConfig) -> Iterator[str]:
    knobs = config.training
    if knobs.padding_free and not config.model.attn_implementation.startswith("flash_attention"):
        yield "training.padding_free: it needs flash attention; set model.attn_implementation to flash_attention_2"
    if knobs.padding_free and knobs.packing:
        yield "training.padding_free: packed rows have no padding already; switch one of the two off"
    if knobs.optim in PROJECTING and config.adapter is not None and not isinstance(config.adapter, FreezeAdapter):
        yield (
            f"training.optim: {knobs.optim} is for whole weights, not for small adapters; set adapter to null, or take "
            f"adamw_torch"
        )
    if knobs.optim_target_modules and knobs.optim not in PROJECTING:
        yield f"training.optim_target_modules: {knobs.optim} knows no such choice; empty it"
    if knobs.activation_offloading and config.method.name not in OFFLOADING:
        yield f"training.activation_offloading: {config.method.name} can't do it; switch it off"
    if isinstance(config.adapter, LoraAdapter) and config.adapter.loraplus_lr_ratio and knobs.optim in _OWN_GROUPS:
        yield f"adapter.loraplus_lr_ratio: {knobs.optim} groups weights its own way; take another, such as adamw_torch"
    if knobs.label_smoothing_factor and config.method.name not in ("sft", "pretrain"):
        yield f"training.label_smoothing_factor: {config.method.name} has no tokens to smooth; set it to 0"
