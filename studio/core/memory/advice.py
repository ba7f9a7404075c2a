"""Make it fit: changes to a run that save memory, and what each costs.

In: a RunConfig, a function that says what a config needs. Out: `Advice`s, those that cost nothing first. Knows no
device and no shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from studio.core.config import LoraAdapter, RunConfig


@dataclass(frozen=True)
class Advice:
    """One change: dotted knobs and their new values, bytes it saves, what it costs in plain words."""

    change: dict[str, Any]
    saves: int
    cost: str

    def to_dict(self) -> dict[str, Any]:
        return {"change": self.change, "saves": self.saves, "cost": self.cost}

    def apply(self, config: RunConfig) -> RunConfig:
        """The config with the change made, validated again."""
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
        advice = Advice(change, 0, cost)
        saved = now - needed(advice.apply(config))
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


def _changes(config: RunConfig, lengths: Sequence[int] | None) -> Iterator[tuple[dict[str, Any], str]]:
    training = config.training
    if training.gradient_checkpointing is False:
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
    if training.optim == "adamw_torch":
        yield {"training.optim": "adamw_torch_fused"}, "same result"
    if training.optim.startswith("adamw_torch"):
        yield {"training.optim": "adamw_8bit"}, "optimizer state in 8 bits: the result is hardly different"
    if training.optim == "adamw_8bit":
        yield {"training.optim": "paged_adamw_8bit"}, "optimizer state in the computer's own memory: slower steps"
    if config.model.dtype == "float32":
        yield {"model.dtype": "bfloat16"}, "weights in 16 bits: slightly coarser"
    if config.adapter is None:
        yield {"adapter": LoraAdapter().model_dump()}, "an adapter is trained instead of the whole model"
    elif config.model.quantization in ("none", "int8"):
        yield {"model.quantization": "nf4"}, "the base in 4 bits: a bit slower, slightly coarser"
    if config.adapter is not None and config.adapter.r > 8:
        yield {"adapter.r": config.adapter.r // 2}, "the adapter can learn less"
    if training.max_length > 256:
        shorter = training.max_length // 2
        cut = sum(length > shorter for length in lengths) if lengths else None
        words = "longer rows are cut" if cut is None else "no row is cut" if not cut else f"{cut:,} rows are cut"
        yield {"training.max_length": shorter}, words
