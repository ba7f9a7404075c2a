"""The quick replay against allocators that are written block by block: the same answer for whatever is asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.estimate import Device, estimate
from studio.core.memory import replay
from studio.core.memory.allocator import CachingAllocator
from studio.core.memory.heap import Heap
from tests.core.plain_allocators import PlainCachingAllocator, PlainHeap
from tests.core.test_estimate_properties import adapters, config_of, methods, of, trainings

KINDS: dict[str, Any] = {
    "heap": (Heap, PlainHeap),
    "segments": (CachingAllocator, PlainCachingAllocator),
    "expandable": (lambda: CachingAllocator(True), lambda: PlainCachingAllocator(True)),
}


@pytest.mark.parametrize("kind", KINDS)
@given(sizes=st.lists(st.integers(1, 10**8), min_size=1, max_size=8), chance=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_whatever_is_asked_for_the_quick_allocator_grows_as_the_plain_one(
    kind: str, sizes: list[int], chance: Any
) -> None:
    quick, plain = (make() for make in KINDS[kind])
    live: list[tuple[int, int]] = []
    for _ in range(150):
        size = chance.choice(sizes)
        act = chance.random()
        if act < 0.5 or not live:
            live.append((quick.allocate(size), plain.allocate(size)))
        elif act < 0.6:
            quick.touch(size)
            plain.touch(size)
        else:
            mine, other = live.pop(chance.randrange(len(live)))
            quick.release(mine)
            plain.release(other)
        if kind == "heap" and chance.random() < 0.02:
            down_to = chance.randint(0, plain.objects)
            quick.settle(down_to)
            plain.settle(down_to)
        assert quick.highest == plain.highest


@given(
    method=methods, adapter=adapters, training=trainings, cuda=st.booleans(), expandable=st.booleans(),
    quantization=st.sampled_from(["none", "nf4", "int8"]),
)  # fmt: skip
@settings(max_examples=25)
def test_a_runs_replay_is_the_plain_allocators(
    method: Any, adapter: Any, training: dict[str, Any], cuda: bool, expandable: bool, quantization: str
) -> None:
    config = config_of(method, adapter, training, quantization=quantization)
    step = estimate(config, of(), device=Device("cuda" if cuda else "cpu")).step

    def answer() -> int | None:
        replay._reserved.cache_clear()
        replay._heap.cache_clear()
        return replay.reserved(step, expandable) if cuda else replay.heap(step)

    quick = answer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replay, "CachingAllocator", PlainCachingAllocator)
        patch.setattr(replay, "Heap", PlainHeap)
        assert answer() == quick
    replay._reserved.cache_clear()
    replay._heap.cache_clear()
