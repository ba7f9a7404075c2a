"""Both allocators of core.memory written block by block, to hold the quick ones against: slower, easier to follow."""

from __future__ import annotations

import bisect

from studio.core.memory.allocator import OutOfMemory

MIB = 2**20
_ROUND = 512
_SMALL, _SMALL_SEGMENT = MIB, 2 * MIB
_MIN_LARGE, _LARGE_SEGMENT, _ROUND_LARGE = 10 * MIB, 20 * MIB, 2 * MIB


class _Block:
    __slots__ = ("address", "after", "before", "pool", "size", "used")

    def __init__(self, address: int, size: int, pool: int) -> None:
        self.address, self.size, self.pool = address, size, pool
        self.used = False
        self.before: _Block | None = None
        self.after: _Block | None = None


class PlainCachingAllocator:
    """`reserved` and `highest` in bytes; `capacity` bounds what it may take from the device."""

    def __init__(self, expandable: bool = False, capacity: int | None = None) -> None:
        self.expandable, self.capacity = expandable, capacity
        self.reserved = self.highest = self.allocated = self.highest_allocated = 0
        self.retries = 0
        self._free: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])  # a pool's (size, address), sorted
        self._blocks: dict[int, _Block] = {}
        self._next = 0
        self._tail: list[_Block | None] = [None, None]

    def allocate(self, size: int) -> int:
        """A block's address. Raises OutOfMemory where `capacity` is reached."""
        size = max(_ROUND, -(-size // _ROUND) * _ROUND)
        pool = 0 if size <= _SMALL else 1
        free = self._free[pool]
        place = bisect.bisect_left(free, (size, -1))
        if place < len(free):
            block = self._blocks[free.pop(place)[1]]
        elif self.expandable:
            block = self._extend(size, pool)
        else:
            block = self._segment(size, pool)
        self._split(block, size)
        block.used = True
        self.allocated += block.size
        self.highest_allocated = max(self.highest_allocated, self.allocated)
        return block.address

    def touch(self, size: int) -> None:
        self.release(self.allocate(size))

    def _take(self, size: int) -> None:
        if self.capacity is not None and self.reserved + size > self.capacity:
            self.retries += 1
            self.give_back()
            if self.reserved + size > self.capacity:
                raise OutOfMemory(f"{self.reserved + size} of {self.capacity} bytes")
        self.reserved += size
        self.highest = max(self.highest, self.reserved)

    def _segment(self, size: int, pool: int) -> _Block:
        if pool == 0:
            whole = _SMALL_SEGMENT
        else:
            whole = _LARGE_SEGMENT if size < _MIN_LARGE else -(-size // _ROUND_LARGE) * _ROUND_LARGE
        self._take(whole)
        block = _Block(self._next, whole, pool)
        self._next += whole + _ROUND  # a gap: segments are never joined
        self._blocks[block.address] = block
        return block

    def _extend(self, size: int, pool: int) -> _Block:
        """One segment a pool, which grows in pages; what is free at its end is part of the new block."""
        page = _SMALL_SEGMENT if pool == 0 else _LARGE_SEGMENT
        tail = self._tail[pool]
        if tail is not None and not tail.used:
            more = -(-(size - tail.size) // page) * page
            self._take(more)
            free = self._free[pool]
            free.pop(bisect.bisect_left(free, (tail.size, tail.address)))
            tail.size += more
            return tail
        whole = -(-size // page) * page
        self._take(whole)
        start = tail.address + tail.size if tail else pool * 2**60
        block = _Block(start, whole, pool)
        block.before, self._tail[pool] = tail, block
        if tail:
            tail.after = block
        self._blocks[start] = block
        return block

    def _split(self, block: _Block, size: int) -> None:
        rest = block.size - size
        # large blocks keep what is too small to be a large one
        if not (rest >= _ROUND if block.pool == 0 else rest > _SMALL):
            return
        other = _Block(block.address + size, rest, block.pool)
        other.before, other.after, block.after, block.size = block, block.after, other, size
        if other.after:
            other.after.before = other
        if self._tail[block.pool] is block:
            self._tail[block.pool] = other
        self._blocks[other.address] = other
        bisect.insort(self._free[block.pool], (rest, other.address))

    def release(self, address: int) -> None:
        """Give a block back to the cache."""
        block = self._blocks[address]
        block.used = False
        self.allocated -= block.size
        if block.after is not None and not block.after.used:
            self._join(block, block.after, block.after)
        if block.before is not None and not block.before.used:
            block = self._join(block.before, block, block.before)
        bisect.insort(self._free[block.pool], (block.size, block.address))

    def _join(self, first: _Block, second: _Block, free: _Block) -> _Block:
        blocks = self._free[free.pool]
        blocks.pop(bisect.bisect_left(blocks, (free.size, free.address)))
        first.size += second.size
        first.after = second.after
        if second.after:
            second.after.before = first
        if self._tail[first.pool] is second:
            self._tail[first.pool] = first
        del self._blocks[second.address]
        return first

    def give_back(self) -> None:
        """empty_cache: segments (with expandable ones, the pages at the end) that nothing lives in."""
        for pool, free in enumerate(self._free):
            kept = []
            for size, address in free:
                block = self._blocks[address]
                whole = block.before is None and block.after is None and not self.expandable
                if not whole:
                    kept.append((size, address))
                    continue
                self.reserved -= size
                del self._blocks[address]
            free[:] = kept
            tail = self._tail[pool]
            if self.expandable and tail is not None and not tail.used:
                page = _SMALL_SEGMENT if pool == 0 else _LARGE_SEGMENT
                spare = tail.size // page * page
                if spare and spare < tail.size:
                    free.pop(bisect.bisect_left(free, (tail.size, tail.address)))
                    tail.size -= spare
                    bisect.insort(free, (tail.size, tail.address))
                    self.reserved -= spare


_ALIGNED, _HEADER, _LEAST = 64, 16, 32
_MORE = _HEADER + _ALIGNED + _LEAST  # `_int_memalign` looks for so much more than it needs
# The small objects of autograd (nodes, shapes, versions) are laid into what memalign leaves between two tensors, and
# keep the tensors' holes apart until the step's graph is gone. Behind every tensor while a profiler runs, which makes
# objects of its own, and behind about half of them without (measured: docs/LOG.md).
_OBJECT, _EVERY = 256, 2


class PlainHeap:
    """`highest`: bytes from its beginning to the farthest place that was ever written."""

    def __init__(self) -> None:
        self.top = self.highest = 0
        self._free: list[tuple[int, int]] = []  # (size, address), sorted
        self._ends: dict[int, int] = {}  # a free chunk's address -> its end
        self._starts: dict[int, int] = {}  # and the other way round
        self._used: dict[int, int] = {}
        self._objects: list[tuple[int, int]] = []
        self._count = 0

    def allocate(self, size: int) -> int:
        """A chunk's address."""
        place = bisect.bisect_left(self._free, (size + _MORE, -1))
        if place < len(self._free):
            length, address = self._free.pop(place)
            end = address + length
            del self._ends[address], self._starts[end]
        else:
            address = end = self.top
        start = -(-(address + _HEADER) // _ALIGNED) * _ALIGNED - _HEADER
        if 0 < start - address < _LEAST:
            start += _ALIGNED
        stop = start + _HEADER + size
        if address == self.top:
            self._grow(stop)
        elif stop < end:
            self._keep(stop, end)
        if start > address:
            self._keep(address, start)
        self._used[start] = stop
        self._count += 1
        if self._count % _EVERY == 0:
            self._pin(stop)
        return start

    def release(self, address: int) -> None:
        """Give a chunk back; what is free beside it becomes one with it."""
        self._join(address, self._used.pop(address))

    def touch(self, size: int) -> None:
        self.release(self.allocate(size))

    @property
    def objects(self) -> int:
        """How many small objects there are."""
        return len(self._objects)

    def settle(self, down_to: int = 0) -> None:
        """A graph is gone, and its small objects with it: all but the first `down_to`."""
        for start, end in self._objects[down_to:]:
            self._join(start, end)
        del self._objects[down_to:]

    def _grow(self, top: int) -> None:
        self.top = top
        self.highest = max(self.highest, top)

    def _pin(self, start: int) -> None:
        """A small object right behind a chunk, where there is room for one."""
        end = self._ends.pop(start, 0)
        if not end and start != self.top:
            return
        stop = start + _OBJECT
        if not end:
            self._grow(stop)
        else:
            del self._starts[end]
            self._free.pop(bisect.bisect_left(self._free, (end - start, start)))
            if end > stop:
                self._keep(stop, end)
            stop = min(stop, end)
        self._objects.append((start, stop))

    def _keep(self, start: int, end: int) -> None:
        self._ends[start], self._starts[end] = end, start
        bisect.insort(self._free, (end - start, start))

    def _join(self, start: int, end: int) -> None:
        if (before := self._starts.pop(start, None)) is not None:
            del self._ends[before]
            self._free.pop(bisect.bisect_left(self._free, (start - before, before)))
            start = before
        if (after := self._ends.pop(end, None)) is not None:
            del self._starts[after]
            self._free.pop(bisect.bisect_left(self._free, (after - end, end)))
            end = after
        if end == self.top:
            self.top = start
        else:
            self._keep(start, end)
