"""Make it fit: changes to a run that save memory, and what each costs.

In: a RunConfig, a function that says what a config needs. Out: `Advice`s, those that cost nothing first. Knows no
device and no shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from studio.core.config import RunConfig
from studio.core.memory import methods
from studio.core.sections.adapter import LoraAdapter
from studio.core.sections.together import OFFLOADING

Change = tuple[dict[str, Any], str]  # dotted knobs and their new values; what it costs


@dataclass(frozen=True)
class Advice:
    """One change: dotted knobs and their new values, bytes it saves, what it costs in plain words."""

    change: dict[str, Any]
    saves: int
    cost: str

    def to_dict(self) -> dict[str, Any]:
        return {"change": self.change, "saves": self.saves, "cost": self.cost}

    def apply(self, config: RunConfig) -> RunConfig:
        """The config with the change made, validated again. Raises ValidationError where it can't be."""
        data = config.model_dump()
        for path, value in self.change.items():
            section, _, name = path.rpartition(".")
            (data[section] if section else data)[name] = value
        return RunConfig.model_validate(data)


def advise(config: RunConfig, needed: Callable[[RunConfig], int], lengths: Sequence[int] | None = None) -> list[Advice]:
    """Every change that saves something, alone, in the order of what it costs the result."""
    now = needed(config)
    found = []
    for change, cost in _changes(config, lengths):
        try:
            changed = Advice(change, 0, cost).apply(config)
        except ValidationError:
            continue  # what other knobs say forbids it
        saved = now - needed(changed)
        if saved > 0:
            found.append(Advice(change, saved, cost))
    return found


def fit(
    config: RunConfig, needed: Callable[[RunConfig], int], room: int, lengths: Sequence[int] | None = None
) -> tuple[RunConfig, list[Advice]]:
    """Changes made one after the other until `room` bytes are enough, or none is left; and which they were."""
    made: list[Advice] = []
    for _ in range(64):
        if needed(config) <= room:
            break
        options = advise(config, needed, lengths)
        if not options:
            break
        made.append(options[0])
        config = options[0].apply(config)
    return config, made


def _changes(config: RunConfig, lengths: Sequence[int] | None) -> Iterator[Change]:
    """Those that leave the result as it is, then those that make it coarser, then those that learn less."""
    for source in (_same_result, _coarser):
        yield from source(config)
    yield from _less(config, lengths)


def _same_result(config: RunConfig) -> Iterator[Change]:
    training = config.training
    if training.gradient_checkpointing is not True:
        yield {"training.gradient_checkpointing": True}, "about 30 % slower, same result"
    rows = training.per_device_train_batch_size
    if rows > 1:
        yield (
            {
                "training.per_device_train_batch_size": -(-rows // 2),
                "training.gradient_accumulation_steps": training.gradient_accumulation_steps * 2,
            },
            "a little slower, same result" if rows % 2 == 0 else "a little slower, steps learn from one row more",
        )
    if training.loss_implementation == "full":
        yield {"training.loss_implementation": "auto"}, "the logits are never all there: same result, hardly slower"
    method: Any = config.method
    if methods.refers(config) and hasattr(method, "precompute_ref_log_probs"):
        yield (
            {"method.precompute_ref_log_probs": True},
            "the reference is computed once before training, one pass over the rows: same result",
        )
    if training.optim == "adamw_torch":
        yield {"training.optim": "adamw_torch_fused"}, "same result"
    if config.model.attn_implementation == "eager":
        yield {"model.attn_implementation": "sdpa"}, "attention without all its scores: same result, faster"


def _coarser(config: RunConfig) -> Iterator[Change]:
    training = config.training
    if training.optim.startswith("adamw_torch"):
        yield {"training.optim": "adamw_8bit"}, "optimizer state in 8 bits: the result is hardly different"
    if training.optim in _PAGED:
        yield {"training.optim": _PAGED[training.optim]}, "optimizer state in the computer's own memory: slower steps"
    if config.model.dtype == "float32":
        yield {"model.dtype": "bfloat16"}, "weights in 16 bits: slightly coarser"
    if config.model.quantization in ("nf4", "fp4") and not config.model.double_quant:
        yield {"model.double_quant": True}, "the scales of 4-bit weights in 8 bits: hardly coarser"
    offloads = config.method.name in OFFLOADING and not training.activation_offloading
    if offloads and training.gradient_checkpointing is not False:
        yield (
            {"training.activation_offloading": True},
            "what the backward pass needs waits in the computer's own memory: slower, same result",
        )
    if config.adapter is None:
        yield {"adapter": LoraAdapter().model_dump()}, "an adapter is trained instead of the whole model"
    elif config.model.quantization in ("none", "int8"):
        yield {"model.quantization": "nf4"}, "the base in 4 bits: a third slower or less, slightly coarser"


_PAGED = {"adamw_8bit": "paged_adamw_8bit", "lion_8bit": "paged_lion_8bit"}


def _less(config: RunConfig, lengths: Sequence[int] | None) -> Iterator[Change]:
    training, adapter, method = config.training, config.adapter, config.method
    name = next((name for name in ("r", "init_r") if hasattr(adapter, name)), "")
    rank = getattr(adapter, name, 0)
    if rank > 8 and rank // 2 >= getattr(adapter, "target_r", 1):
        yield {f"adapter.{name}": rank // 2}, "the adapter can learn less"
    yield from _fewer_answers(method)
    if training.max_length > 256:
        shorter = training.max_length // 2
        cut = sum(length > shorter for length in lengths) if lengths else None
        words = "longer rows are cut" if cut is None else "no row is cut" if not cut else f"{cut:,} rows are cut"
        yield {"training.max_length": shorter}, words


def _fewer_answers(method: Any) -> Iterator[Change]:
    """Of methods that learn from answers the model writes."""
    tokens = getattr(method, "max_completion_length", 0)
    if tokens > 64:
        yield {"method.max_completion_length": tokens // 2}, "longer answers are cut while training"
    answers = getattr(method, "num_generations", 0)
    if method.name == "ppo" and answers > 1:
        yield {"method.num_generations": answers // 2}, "fewer answers are compared: noisier steps"
