"""How much memory a run takes, on what device, and what would make it take less.

    estimate(config, shape)         bytes at the worst moment, by part: allocated, reserved, device
    largest_batch, largest_length   the most that fits, by bisection
    advice                          changes that save memory, each with what it saves and what it costs

In: a RunConfig, a ModelShape, the dataset's row lengths where they are known. Out: an Estimate. Sizes are worked out in
`studio.core.memory` from what the libraries allocate; nothing is fitted. No torch; a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from studio.core.config import RunConfig
from studio.core.memory import methods
from studio.core.memory.adapters import virtual_tokens
from studio.core.memory.advice import Advice, advise
from studio.core.memory.practice import Practice, Versions, settle
from studio.core.memory.replay import heap as _heap
from studio.core.memory.replay import reserved as _reserved
from studio.core.memory.run import Run, circumstances
from studio.core.memory.stated import stated
from studio.core.memory.step import Peak, Step, go_through, peaks
from studio.core.shapes import ModelShape

__all__ = ["Device", "Estimate", "Practice", "Versions", "advice", "estimate", "largest_batch", "largest_length"]


@dataclass(frozen=True)
class Device:
    """What computes. `generation`: turing, ampere, ada, hopper or blackwell; `memory` and `free` in bytes, if known.

    `overhead`: what the driver and the libraries' code take beside torch's allocator; None takes the table's.
    """

    kind: str = "cuda"
    generation: str = "ampere"
    memory: int | None = None
    free: int | None = None
    overhead: int | None = None

    @property
    def context(self) -> int:
        """Bytes outside torch's allocator: CUDA's context and the kernels that are loaded."""
        return self.overhead if self.overhead is not None else _CONTEXT.get(self.generation, 600_000_000)


# The context and the code of cuBLAS and torch's kernels, which are loaded lazily since CUDA 11.7: 0.5 to 0.8 GB by
# the driver and what is used; larger where a card's kernels are. Machines that have been measured know better.
_CONTEXT = {
    "turing": 450_000_000,
    "ampere": 600_000_000,
    "ada": 600_000_000,
    "hopper": 750_000_000,
    "blackwell": 850_000_000,
}
# Resident before there is a model: a worker that has imported torch, transformers, peft and trl, read rows and run
# torch's kernels once; and what a fast tokenizer takes for each of its words (its merges and strings, twice).
_CPU_PROCESS = 590_000_000
_CPU_WORD = 1_000


@dataclass(frozen=True)
class Estimate:
    """Bytes. `moments`: the peak of each; `allocated` is the highest of them, and `parts` sum to it."""

    moments: dict[str, Peak]
    device_used: Device
    rows: int
    length: int
    step: Step = field(repr=False, compare=False)
    expandable: bool = True

    @cached_property
    def worst(self) -> Peak:
        """The moment that takes the most."""
        return max(self.moments.values(), key=lambda peak: peak.bytes)

    @property
    def allocated(self) -> int:
        """What torch.cuda.max_memory_allocated would say."""
        return self.worst.bytes

    @property
    def peak_moment(self) -> str:
        """loaded, forward, loss, backward or optimizer."""
        return self.worst.moment

    @property
    def parts(self) -> dict[str, int]:
        """The peak's parts, largest first."""
        return dict(sorted(self.worst.parts.items(), key=lambda part: -part[1]))

    @cached_property
    def reserved(self) -> int:
        """What torch.cuda.max_memory_reserved would say: every allocation replayed, some 30 ms at its first use."""
        if self.device_used.kind != "cuda" or self.step.run.config.training.activation_offloading:
            return self.allocated
        capacity = self.device_used.memory and self.device_used.memory - self.device_used.context
        found = _reserved(self.step, self.expandable, capacity)
        whole = found if found is not None else _reserved(self.step, self.expandable)
        return max(self.allocated, whole or 0)

    @property
    def device(self) -> int:
        """What NVML shows for the process; on a processor, the most that is ever resident of it."""
        if self.device_used.kind != "cuda":
            return self._process + max(self._heap, self._loading)
        return self.reserved + self.device_used.context

    @property
    def _process(self) -> int:
        """Resident on a processor beside the model and its training."""
        own = self.device_used.overhead
        return (own if own is not None else _CPU_PROCESS) + _CPU_WORD * self.step.run.shape.vocabulary

    @cached_property
    def _heap(self) -> int:
        return _heap(self.step)

    @property
    def _loading(self) -> int:
        """While weights are read: they, and the pages of the files that they are read from."""
        loaded = self.moments["loaded"].bytes
        whole = sum(before * self.step.run.item // 2 for _, before in self.step.weight_blocks)
        return loaded + self.step.run.shape.bytes + (whole if self.step.run.quant in ("nf4", "fp4") else 0)

    @property
    def fits(self) -> bool | None:
        """Whether it fits in what is free; None where that isn't known. What the allocator caches can be given back."""
        room = self.device_used.free if self.device_used.free is not None else self.device_used.memory
        return None if room is None else self.needed <= room

    @property
    def needed(self) -> int:
        """The least a device must have free: what a card's allocator hoards can be given back, a heap's holes can't."""
        return self.allocated + self.device_used.context if self.device_used.kind == "cuda" else self.device

    def to_dict(self) -> dict[str, Any]:
        """As `studio estimate --json` prints it."""
        return {
            "allocated": self.allocated,
            "reserved": self.reserved,
            "device": self.device,
            "parts": self.parts,
            "peak_moment": self.peak_moment,
            "moments": {name: peak.bytes for name, peak in self.moments.items()},
            "fits": self.fits,
            "free": self.device_used.free,
            "rows": self.rows,
            "length": self.length,
        }


def estimate(
    config: RunConfig,
    shape: ModelShape,
    *,
    lengths: Sequence[int] | None = None,
    versions: Versions | None = None,
    practice: Practice | None = None,
    device: Device | None = None,
) -> Estimate:
    """What a run takes at its worst step.

    `lengths`: tokens of each row of the dataset; without them every row is as long as `training.max_length`, and a
    packed one is full. `versions`: libraries other than the installed ones.
    """
    run, card, expandable = prepared(config, shape, lengths, versions, practice, device)
    step = go_through(run, card.generation)
    return Estimate(peaks(step), card, run.rows, run.length, step, expandable)


def prepared(
    config: RunConfig,
    shape: ModelShape,
    lengths: Sequence[int] | None,
    versions: Versions | None,
    practice: Practice | None,
    device: Device | None,
) -> tuple[Run, Device, bool]:
    """The run's circumstances, with everything that was left open decided; and whether segments are expandable."""
    device = device or Device(kind="cpu" if config.hardware.device == "cpu" else "cuda")
    settled, habits = settle(stated(config, practice, versions), versions)
    rows, length, masked = worst_batch(config, lengths)
    if masked:
        settled = replace(settled, masked=True)
    wide = device.generation != "turing"
    rows, length = methods.sequences(config, rows), methods.length(config, length) + virtual_tokens(config.adapter)
    run = circumstances(config, shape, settled, habits, rows, length, device.kind == "cuda", wide=wide)
    return run, device, settled.expandable


def worst_batch(config: RunConfig, lengths: Sequence[int] | None) -> tuple[int, int, bool]:
    """Rows, tokens of each, and whether attention gets a mask, of the largest micro-batch the sampler can make.

    Rows are padded to the longest of their batch; packed ones are joined into a single row, whose parts are told
    apart by a mask unless attention is flash-attention's.
    """
    rows, longest = config.training.per_device_train_batch_size, config.training.max_length
    if config.training.packing:
        joined = not config.model.attn_implementation.startswith("flash")
        return (1, rows * longest, joined) if joined else (rows, longest, False)
    if not lengths:
        return rows, longest, False
    rows = min(rows, len(lengths))
    top = sorted((min(n, longest) for n in lengths), reverse=True)[:rows]
    return rows, top[0], rows > 1 and top[0] != top[-1]


def _with(config: RunConfig, **training: Any) -> RunConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def largest_batch(config: RunConfig, shape: ModelShape, room: int, **options: Any) -> int:
    """The largest `per_device_train_batch_size` that needs at most `room` bytes; 0 where not even one row fits."""
    start = config.training.per_device_train_batch_size
    return largest(
        1, 4096, start, room, lambda n: _needed(_with(config, per_device_train_batch_size=n), shape, options)
    )


def largest_length(config: RunConfig, shape: ModelShape, room: int, **options: Any) -> int:
    """The largest `max_length` that needs at most `room` bytes; 0 where not even 8 tokens fit.

    Never more than the model can read, where its config says so.
    """
    most = shape.number("max_position_embeddings", "n_positions", default=1_048_576)
    start = min(config.training.max_length, most)
    return largest(8, most, start, room, lambda n: _needed(_with(config, max_length=n), shape, options))


def _needed(config: RunConfig, shape: ModelShape, options: dict[str, Any]) -> int:
    return estimate(config, shape, **options).needed


def largest(least: int, most: int, start: int, room: int, needed: Callable[[int], int]) -> int:
    """The largest n in [least, most] with needed(n) <= room, 0 if there is none; n + 1 needs more.

    What is needed grows nearly as a line, or as two that meet: the line through two known points is followed, and
    where it misleads, the interval is halved.
    """
    good, bad = least - 1, most + 1  # fits; doesn't, or isn't allowed
    known: dict[int, int] = {}
    n = min(max(start, least), most)
    while bad - good > 1:
        known[n] = needed(n)
        if known[n] <= room:
            good = n
        else:
            bad = n
        n = _next(good, bad, least, most, room, known)
    return good if good >= least else 0


def _next(good: int, bad: int, least: int, most: int, room: int, known: dict[int, int]) -> int:
    """Where to look: at the line's end, or beside it, so that both sides of the answer are soon known."""
    middle = (good + bad) // 2
    near = sorted(known, key=lambda n: abs(known[n] - room))[:2]
    if len(near) < 2 or known[near[0]] == known[near[1]]:
        return min(max(2 * good if known and good >= least else least, good + 1), bad - 1)
    slope = (known[near[0]] - known[near[1]]) / (near[0] - near[1])
    if slope <= 0 or len(known) > _PATIENCE:
        return middle if good < middle < bad else good + 1
    aim = near[0] + (room - known[near[0]]) / slope
    if bad <= most and bad - aim < 1 and bad - 1 > good:  # just below what is known not to fit
        return bad - 1
    return min(max(int(aim) if aim > good + 1 else good + 1, good + 1), bad - 1)


_PATIENCE = 6  # looks along the line, before halving takes over


def advice(config: RunConfig, shape: ModelShape, **options: Any) -> list[Advice]:
    """Changes that save memory, in the order of what they cost, each on top of the config as it is."""
    lengths = options.get("lengths")
    return advise(config, lambda changed: _needed(changed, shape, options), lengths)
