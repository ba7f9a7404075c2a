"""Choices that need a package which isn't part of the studio: which, and whether it is here.

In: a config. Out: what is missing, with the name to install it by. Packages are looked for, never imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

from studio.core.config import RunConfig

# Optimizer -> (module, name in the package index); the rest comes with torch and transformers.
OPTIMIZERS = {
    "adamw_8bit": ("bitsandbytes", "bitsandbytes"),
    "paged_adamw_8bit": ("bitsandbytes", "bitsandbytes"),
    "paged_adamw_32bit": ("bitsandbytes", "bitsandbytes"),
    "lion_32bit": ("bitsandbytes", "bitsandbytes"),
    "lion_8bit": ("bitsandbytes", "bitsandbytes"),
    "paged_lion_8bit": ("bitsandbytes", "bitsandbytes"),
    "ademamix": ("bitsandbytes", "bitsandbytes"),
    "ademamix_8bit": ("bitsandbytes", "bitsandbytes"),
    "schedule_free_adamw": ("schedulefree", "schedulefree"),
    "schedule_free_sgd": ("schedulefree", "schedulefree"),
    "galore_adamw": ("galore_torch", "galore-torch"),
    "apollo_adamw": ("apollo_torch", "apollo-torch"),
    "grokadamw": ("grokadamw", "grokadamw"),
    "lomo": ("lomo_optim", "lomo-optim"),
    "stable_adamw": ("optimi", "torch-optimi"),
}
TRACKERS = {name: (name, name) for name in ("tensorboard", "trackio", "wandb", "mlflow")}
_ATTENTION = {"flash_attention_2": ("flash_attn", "flash-attn"), "flash_attention_3": ("flash_attn_3", "flash-attn-3")}


class Missing(NamedTuple):
    """A choice at `path` that needs the package `name`."""

    path: str
    choice: str
    name: str


def is_here(module: str) -> bool:
    """Whether a package is installed."""
    return find_spec(module) is not None


def available_optimizers() -> dict[str, str]:
    """Optimizers that need a package: "" where it is here, else the name to install it by."""
    return {choice: "" if is_here(module) else name for choice, (module, name) in OPTIMIZERS.items()}


def available_trackers() -> dict[str, str]:
    """The same for `training.report_to`."""
    return {choice: "" if is_here(module) else name for choice, (module, name) in TRACKERS.items()}


def missing(config: RunConfig) -> Iterator[Missing]:
    """What a config asks for and this installation doesn't have."""
    knobs = config.training
    wanted: list[tuple[str, str, tuple[str, str] | None]] = [
        ("training.optim", knobs.optim, OPTIMIZERS.get(knobs.optim))
    ]
    wanted += [("training.report_to", name, TRACKERS[name]) for name in knobs.report_to]
    wanted.append(
        (
            "model.attn_implementation",
            config.model.attn_implementation,
            _ATTENTION.get(config.model.attn_implementation),
        )
    )
    if config.model.quantization != "none":
        wanted.append(("model.quantization", config.model.quantization, ("bitsandbytes", "bitsandbytes")))
    if knobs.use_liger_kernel:
        wanted.append(("training.use_liger_kernel", "it", ("liger_kernel", "liger-kernel")))
    for path, choice, package in wanted:
        if package is not None and not is_here(package[0]):
            yield Missing(path, choice, package[1])
