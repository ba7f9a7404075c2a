"""A stand-in for `workspace.estimating.Estimating`: no hub, no workers, no card; the forecasts are core's own.

In: a model's shape, a device, row lengths. Out: the same answers at once; what takes long is as long as a test wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from studio.core.config import RunConfig
from studio.core.correction import Correction
from studio.core.errors import ModelError
from studio.core.estimate import Device
from studio.core.forecast import Forecast, Surroundings, forecast
from studio.core.rowlengths import RowLengths
from studio.core.shapes import ModelShape, from_config
from studio.workspace.estimating import LengthsState, ShapeState
from studio.workspace.tasks import Task

GIB = 2**30
# The shape of an 8B Llama: what its published config.json says.
EIGHT_B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
    "torch_dtype": "bfloat16", "max_position_embeddings": 131072,
}  # fmt: skip


def card(free: float, total: float | None = None) -> Device:
    """A card with so many GB free."""
    return Device("cuda", "ada", int((total or free) * GIB), int(free * GIB))


@dataclass
class FakeEstimating:
    """Set a field, and the next answer is by it. `asked` counts forecasts."""

    shape: ModelShape = field(default_factory=lambda: from_config(EIGHT_B))
    here: Device = field(default_factory=lambda: card(24))
    lengths: LengthsState = field(default_factory=lambda: LengthsState(None))
    state: ShapeState | None = None
    correct: Correction = field(default_factory=Correction)
    surroundings: Surroundings = field(default_factory=Surroundings)
    task: Task = field(default_factory=lambda: Task(1, "trace", "trace", {}))
    asked: int = 0

    def shape_soon(self, model: str, revision: str | None = None) -> ShapeState:
        return self.state or ShapeState(self.shape)

    def lengths_soon(self, config: RunConfig) -> LengthsState:
        return self.lengths

    def device(self, config: RunConfig, memory: int | None = None) -> Device:
        return self.here if memory is None else replace(card(1), memory=memory, free=memory)

    def correction(self, config: RunConfig, memory: int | None = None) -> Correction:
        return self.correct

    def forecast(self, config: RunConfig, memory: int | None = None, **_more: Any) -> Forecast:
        self.asked += 1
        if self.state is not None:
            raise ModelError("There is no such model.", "Pick another.")
        known = self.lengths.lengths
        return forecast(
            config, self.shape, lengths=known, rows=self.lengths.rows, device=self.device(config, memory),
            correction=self.correct, surroundings=self.surroundings,
        )  # fmt: skip

    def exact_soon(self, config: RunConfig, memory: int | None = None) -> Task:
        return self.task


def rows(*lengths: int) -> LengthsState:
    """Rows that have been counted."""
    return LengthsState(RowLengths.of(lengths), rows=len(lengths))
