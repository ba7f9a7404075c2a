"""What a config says of a run's practice: the knobs that stand for a field of `Practice`.

In: a RunConfig, what the caller knows already, versions. Out: a Practice; what the caller said stands. Knows no sizes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studio.core.config import RunConfig
from studio.core.memory.practice import Loss, Practice, Versions, habits

_LOSSES: dict[str, Loss] = {"liger": "liger", "chunked": "chunked", "in_place": "fast"}
# With a TRL before it had a loss of its own, the loss is transformers'.
_WITHOUT = "0.1.0"


def stated(config: RunConfig, practice: Practice | None, versions: Versions | None) -> Practice:
    """The knobs' word, where the caller has none."""
    own, training = practice or Practice(), config.training
    reentrant = None if training.use_reentrant == "auto" else training.use_reentrant
    return replace(
        own,
        autocast=own.autocast if own.autocast is not None else _autocast(training.autocast, versions),
        adapter_item=own.adapter_item or _adapter_item(config),
        loss=own.loss or _loss(training.loss_implementation, versions),
        upcast=own.upcast or _upcast(config, versions),
        reentrant=own.reentrant if own.reentrant is not None else reentrant,
        masked=own.masked or (training.padded_rows and config.dataset.path is None),
        hold_logits=own.hold_logits or training.keep_logits,
        compiled=own.compiled or training.torch_compile,
        expandable=own.expandable and config.hardware.expandable_segments,
    )


def _autocast(wish: bool | str, versions: Versions | None) -> bool | None:
    """Only what is told outright: with `true` the studio still takes care of 16-bit weights' small updates.

    LitGPT takes no such care, and without a word it computes in the weights' own format.
    """
    if wish is False:
        return False
    return True if wish is True and versions is not None and versions.litgpt else None


def _adapter_item(config: RunConfig) -> int | None:
    wish: Any = getattr(config.adapter, "autocast_adapter_dtype", "auto")
    if wish == "auto":
        return None
    return 4 if wish or config.model.dtype == "float32" else 2


def _loss(wish: str, versions: Versions | None) -> Loss | None:
    if wish == "full":
        return habits(replace(versions or Versions(), trl=_WITHOUT)).loss
    return _LOSSES.get(wish)


def _upcast(config: RunConfig, versions: Versions | None) -> Any:
    """Whether what isn't quantized is float32; a TRL that does so by itself makes of it what it does."""
    wish = config.model.prepare_for_kbit
    if wish == "auto" or (wish and habits(versions or Versions()).prepares):
        return None
    return "all" if wish else "none"
