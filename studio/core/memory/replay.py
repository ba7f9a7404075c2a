"""A step's stretches, unrolled to all layers and put through the allocator of a card, or through a processor's heap.

In: a Step. Out: what the process reserves at its worst, or what its heap grows to. The first step is gone through
before the optimizer has its state, the second with it. Small tensors are left out: they come to a few MiB. Knows
nothing of what the bytes are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from studio.core.memory.allocator import CachingAllocator, OutOfMemory
from studio.core.memory.heap import Heap
from studio.core.memory.step import Step, Stretch

_SMALL = 2**20
_REMEMBERED = 16  # answers: the page asks again when it wants to know more, and an advice's config is often the next
# Of no size: the graph of the forward pass stands; what a layer of the backward pass has computed again is gone.
STANDS, AGAIN = -1, -2

# A tensor by number and how many bytes; 0 releases it, less than 0 allocates and releases so many at once.
Event = tuple[int, int]
Block = tuple[int, int]
# Events of a stretch as (home, index, bytes): what is allocated or released belongs to the stretch of this number, in
# which it is the index-th.
_Rule = tuple[int, int, int]


class _Unrolling:
    """The stretches' events for all their repetitions, each tensor of each repetition under a number of its own.

    Layers of a row are numbered 0 (its first), 1 to n (those in between), n + 1 (its last). What a layer refers to
    belongs to itself or to the layer before or after it, so the copies' tensors follow from the one that was gone
    through: the tensor at the same index of the neighbour's stretch.
    """

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self.stretches = stretches
        self.counts: list[int] = []  # tensors that one repetition makes
        self.bases: list[int] = []  # the number of the first of them all
        self.sister: dict[tuple[int, int, bool], int] = {}  # (row, place, backward) -> stretch
        self.rules: list[list[_Rule]] = []
        self.tensors = 0
        home: dict[int, tuple[int, int]] = {}
        for number, stretch in enumerate(stretches):
            mine = [key for key, size, _ in stretch.events if size > 0]
            home.update((key, (number, index)) for index, key in enumerate(mine))
            self.counts.append(len(mine))
            self.bases.append(self.tensors)
            self.tensors += len(mine) * stretch.times
            large = [(key, size) for key, size, _ in stretch.events if abs(size) > _SMALL]
            self.rules.append([(*home[key], size) for key, size in _shortened(large)])
            if stretch.row >= 0:
                self.sister[stretch.row, stretch.place, stretch.moment == "backward"] = number

    def events(self) -> list[Event]:
        """In order, with STANDS and AGAIN between them."""
        told: list[Event] = []
        for number, stretch in enumerate(self.stretches):
            mark = () if stretch.moment == "forward" else ((AGAIN if stretch.moment == "backward" else STANDS, 0),)
            for turn in range(stretch.times):
                copy = stretch.times - 1 - turn if stretch.moment == "backward" else turn
                own = self.bases[number] + copy * self.counts[number]
                for home, index, size in self.rules[number]:
                    if home == number:
                        told.append((own + index, size))
                    else:
                        told += [(name, 0) for name in self.elsewhere(stretch, copy, home, index)]
                told += mark
        return told

    def elsewhere(self, stretch: Stretch, copy: int, home: int, index: int) -> Iterator[int]:
        """The tensors that the index-th of another stretch stands for in this copy."""
        there = self.stretches[home]
        if there.row < 0:
            yield self.bases[home] + index
        elif stretch.row != there.row:
            yield from (self.bases[home] + each * self.counts[home] + index for each in range(there.times))
        else:
            layer = (0, 1 + copy, self.between(there.row) + 1)[stretch.place] - (stretch.place - there.place)
            yield self.at(home, layer, index)

    def between(self, row: int) -> int:
        middle = self.sister.get((row, 1, False))
        return self.stretches[middle].times if middle is not None and (row, 2, False) in self.sister else 0

    def at(self, home: int, layer: int, index: int) -> int:
        """The tensor at this index of what layer `layer` of the row made."""
        there = self.stretches[home]
        count = self.between(there.row)
        if not count:
            return self.bases[home] + index
        place = 0 if layer <= 0 else 2 if layer > count else 1
        other = self.sister[there.row, place, there.moment == "backward"]
        copy = layer - 1 if place == 1 else 0
        if index >= self.counts[other]:  # the neighbour made fewer: the tensor itself
            other = home
        return self.bases[other] + copy * self.counts[other] + index


def _shortened(events: list[Event]) -> Iterator[Event]:
    """What is released as soon as it was allocated becomes one event; the others' sizes are 0 for a release."""
    waiting: Event | None = None
    for key, size in events:
        if waiting is not None:
            if waiting == (key, -size):
                yield key, size
                waiting = None
                continue
            yield waiting
        waiting = (key, size) if size > 0 else None
        if size < 0:
            yield key, 0
    if waiting is not None:
        yield waiting


def reserved(step: Step, expandable: bool, capacity: int | None = None) -> int | None:
    """The most the allocator holds over two steps, in bytes; None where `capacity` isn't enough for them."""
    return _reserved(_Replayed.of(step), expandable, capacity)


def heap(step: Step) -> int:
    """What a processor's heap grows to over two steps, in bytes, weights and all.

    Weights in 4 bits are made when all of them lie there in full: transformers hands them to bitsandbytes together.
    """
    item = 0 if step.run.quant == "int8" else step.run.item
    return _heap(_Replayed.of(step), item, step.run.checkpointing)


@dataclass(frozen=True)
class _Replayed:
    """All that a replay depends on, by value: the same question is answered once. Sizes in bytes."""

    stretches: tuple[Stretch, ...]
    weights: tuple[Block, ...]
    optimizer: tuple[int, ...]
    scratch: tuple[int, ...]
    generated: tuple[int, ...]

    @classmethod
    def of(cls, step: Step) -> _Replayed:
        return cls(
            tuple(step.stretches),
            tuple(step.weight_blocks),
            tuple(step.optimizer_blocks),
            tuple(step.scratch_blocks),
            tuple(step.generated.values()),
        )


@lru_cache(_REMEMBERED)
def _reserved(asked: _Replayed, expandable: bool, capacity: int | None) -> int | None:
    allocator = CachingAllocator(expandable, capacity)
    unrolling = _Unrolling(asked.stretches)
    events = unrolling.events()
    try:
        for size, before in asked.weights:  # in their order; each quantized one after it lay there in 16 bits
            raw = allocator.allocate(before) if before else None
            allocator.allocate(size)
            if raw is not None:
                allocator.release(raw)
        for first in (True, False):
            _generate(allocator, asked)
            gradients = _once(allocator, events, unrolling.tensors)
            if first:
                for size in asked.optimizer:
                    allocator.allocate(size)
            gradients += [allocator.allocate(size) for size in asked.scratch]
            for address in gradients:
                allocator.release(address)
    except OutOfMemory:
        return None
    return allocator.highest


@lru_cache(_REMEMBERED)
def _heap(asked: _Replayed, item: int, settles: bool) -> int:
    """`item`: bytes of the numbers that weights in 4 bits are made from, 0 where each goes as it is made."""
    found = Heap()
    whole = [found.allocate(before * item // 2) for _, before in asked.weights if before and item]
    for size, _ in asked.weights:
        found.allocate(size)
    for address in whole:
        found.release(address)
    unrolling = _Unrolling(asked.stretches)
    events = unrolling.events()
    for first in (True, False):
        _generate(found, asked)
        gradients = _once(found, events, unrolling.tensors, settles)
        found.settle()
        if first:
            for size in asked.optimizer:
                found.allocate(size)
        for address in [found.allocate(size) for size in asked.scratch] + gradients:
            found.release(address)
    return found.highest


def _generate(allocator: CachingAllocator | Heap, asked: _Replayed) -> None:
    for address in [allocator.allocate(size) for size in asked.generated]:
        allocator.release(address)


def _once(allocator: CachingAllocator | Heap, events: list[Event], tensors: int, settles: bool = False) -> list[int]:
    """Forward and backward; addresses of what is left, which are gradients. `settles`: a layer's graph goes with it."""
    where = [-1] * tensors
    allocate, release, touch = allocator.allocate, allocator.release, allocator.touch
    graph = 0
    for name, size in events:
        if size > 0:
            where[name] = allocate(size)
        elif size < 0:
            touch(-size)
        elif name >= 0:
            address = where[name]
            if address >= 0:
                where[name] = -1
                release(address)
        elif settles and isinstance(allocator, Heap):
            graph = allocator.objects if name == STANDS else graph
            allocator.settle(graph)
    return [address for address in where if address >= 0]
