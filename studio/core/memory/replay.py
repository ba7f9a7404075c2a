"""A step's stretches, unrolled to all layers and put through the allocator.

In: a Step. Out: what the process reserves at its worst. The first step is gone through before the optimizer has its
state, the second with it. Tensors of the small pool are left out: they come to a few MiB. Knows nothing of what the
bytes are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from studio.core.memory.allocator import CachingAllocator, OutOfMemory
from studio.core.memory.step import Step, Stretch

_SMALL = 2**20

Name = tuple[int, int]  # a tensor of the tape, and which repetition of its stretch


class _Home(NamedTuple):
    stretch: int
    order: int


class _Unrolling:
    """Which tensor an event speaks of when its stretch is repeated.

    Layers of a row are numbered 0 (its first), 1 to n (those in between), n + 1 (its last). What a layer refers to
    belongs to itself or to the layer before or after it, so the copies' tensors follow from the one that was gone
    through: the tensor at the same index of the neighbour's stretch.
    """

    def __init__(self, stretches: list[Stretch]) -> None:
        self.stretches = stretches
        self.home: dict[int, _Home] = {}
        self.keys: list[list[int]] = []
        self.sister: dict[tuple[int, int, bool], int] = {}  # (row, place, backward) -> stretch
        for number, stretch in enumerate(stretches):
            mine = [key for key, size, _ in stretch.events if size > 0]
            self.home.update((key, _Home(number, index)) for index, key in enumerate(mine))
            self.keys.append(mine)
            if stretch.row >= 0:
                self.sister[stretch.row, stretch.place, stretch.moment == "backward"] = number

    def events(self) -> Iterator[tuple[Name, int]]:
        """(name, bytes), negative for a release, in order."""
        for number, stretch in enumerate(self.stretches):
            events = [(key, size) for key, size, _ in stretch.events if abs(size) > _SMALL]
            for turn in range(stretch.times):
                copy = stretch.times - 1 - turn if stretch.moment == "backward" else turn
                for key, size in events:
                    home = self.home[key]
                    if home.stretch == number:
                        yield (key, copy), size
                    else:
                        for name in self.elsewhere(stretch, copy, key, home):
                            yield name, size

    def elsewhere(self, stretch: Stretch, copy: int, key: int, home: _Home) -> Iterator[Name]:
        """The tensors that `key`, which another stretch made, stands for in this copy."""
        there = self.stretches[home.stretch]
        if there.row < 0:
            yield key, 0
        elif stretch.row != there.row:
            yield from ((key, each) for each in range(there.times))
        else:
            layer = (0, 1 + copy, self.between(there.row) + 1)[stretch.place] - (stretch.place - there.place)
            yield self.at(there, layer, home.order, key)

    def between(self, row: int) -> int:
        middle = self.sister.get((row, 1, False))
        return self.stretches[middle].times if middle is not None and (row, 2, False) in self.sister else 0

    def at(self, there: Stretch, layer: int, index: int, key: int) -> Name:
        """The tensor at this index of what layer `layer` of the row made."""
        count = self.between(there.row)
        if not count:
            return key, 0
        place = 0 if layer <= 0 else 2 if layer > count else 1
        keys = self.keys[self.sister[there.row, place, there.moment == "backward"]]
        return (keys[index] if index < len(keys) else key), (layer - 1 if place == 1 else 0)


def reserved(step: Step, expandable: bool, capacity: int | None = None) -> int | None:
    """The most the allocator holds over two steps, in bytes; None where `capacity` isn't enough for them."""
    allocator = CachingAllocator(expandable, capacity)
    unrolling = list(_Unrolling(step.stretches).events())
    try:
        _load(allocator, step)
        for first in (True, False):
            gradients = _once(allocator, unrolling)
            if first:
                for size in step.optimizer_blocks:
                    allocator.allocate(size)
            gradients += [allocator.allocate(size) for size in step.scratch_blocks]
            for address in gradients:
                allocator.release(address)
    except OutOfMemory:
        return None
    return allocator.highest


def _load(allocator: CachingAllocator, step: Step) -> None:
    """Weights in their order; each quantized one after it lay there in 16 bits."""
    for size, before in step.weight_blocks:
        raw = allocator.allocate(before) if before else None
        allocator.allocate(size)
        if raw is not None:
            allocator.release(raw)


def _once(allocator: CachingAllocator, unrolling: list[tuple[Name, int]]) -> list[int]:
    """Forward and backward; addresses of what is left, which are gradients."""
    where: dict[Name, int] = {}
    for name, size in unrolling:
        if size > 0:
            where[name] = allocator.allocate(size)
        elif (address := where.pop(name, None)) is not None:
            allocator.release(address)
    return list(where.values())
