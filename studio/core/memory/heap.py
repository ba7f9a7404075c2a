"""glibc's heap, which a processor's tensors live in: how far it grows for a run of allocations and releases.

In: sizes in bytes, in order. Out: the most it has reached. Workers keep all of it (workspace/launcher.py: nothing is
handed back), so what it once reached stays resident. Rules are those of malloc/malloc.c (2.36), as torch asks it
(c10/core/impl/alloc_cpu.cpp, posix_memalign to 64 bytes): the smallest free chunk that holds the request and 96 bytes
more is split, neighbours that are free are joined, else the heap grows. So a hole with anything behind it is too small
for a second tensor of the size that left it.
"""

from __future__ import annotations

from bisect import bisect_left, insort

_ALIGNED, _HEADER, _LEAST = 64, 16, 32
_MORE = _HEADER + _ALIGNED + _LEAST  # `_int_memalign` looks for so much more than it needs
# The small objects of autograd (nodes, shapes, versions) are laid into what memalign leaves between two tensors, and
# keep the tensors' holes apart until the step's graph is gone. How often one comes to lie so isn't known: behind every
# second tensor is what the first runs of bench/cpu_memory.py came nearest to, and no measurement of its own.
_OBJECT, _EVERY = 256, 2
# A free chunk is one number, its size before its address, so that the smallest that fits is found by bisection.
_PLACES = 62
_ADDRESS = 2**_PLACES - 1


class Heap:
    """`highest`: bytes from its beginning to the farthest place that was ever written."""

    def __init__(self) -> None:
        self.top = self.highest = 0
        self._free: list[int] = []  # sorted; without those that are too small for any request
        self._ends: dict[int, int] = {}  # a free chunk's address -> its end
        self._starts: dict[int, int] = {}  # and the other way round
        self._used: dict[int, int] = {}
        self._objects: list[tuple[int, int]] = []
        self._odd = False

    def allocate(self, size: int) -> int:
        """A chunk's address."""
        free = self._free
        place = bisect_left(free, (size + _MORE) << _PLACES)
        if place < len(free):
            address = free.pop(place) & _ADDRESS
            end = self._ends.pop(address)
            del self._starts[end]
        else:
            address = end = self.top
        start: int = ((address + _HEADER + _ALIGNED - 1) & -_ALIGNED) - _HEADER
        if 0 < start - address < _LEAST:
            start += _ALIGNED
        stop = start + _HEADER + size
        odd = self._odd
        self._odd = not odd
        if address == end:
            self.top = stop
            if stop > self.highest:
                self.highest = stop
            if odd:
                self._object(stop)
        elif stop < end:
            if odd:
                self._object(stop, end)
            else:
                self._keep(stop, end)
        if start > address:  # too small for any request
            self._ends[address], self._starts[start] = start, address
        self._used[start] = stop
        return start

    def touch(self, size: int) -> None:
        """Allocate and release at once."""
        if self._odd or not self._free or self._free[-1] >> _PLACES < size + _MORE:
            self.release(self.allocate(size))
        else:
            self._odd = True

    def release(self, address: int) -> None:
        """Give a chunk back; what is free beside it becomes one with it."""
        self._join(address, self._used.pop(address))

    @property
    def objects(self) -> int:
        """How many small objects there are."""
        return len(self._objects)

    def settle(self, down_to: int = 0) -> None:
        """A graph is gone, and its small objects with it: all but the first `down_to`."""
        for start, end in self._objects[down_to:]:
            self._join(start, end)
        del self._objects[down_to:]

    def _object(self, start: int, end: int = 0) -> None:
        """A small object right behind a chunk: where the heap ends, or in what is free there up to `end`."""
        stop = start + _OBJECT
        if not end:
            self.top = stop
            self.highest = max(self.highest, stop)
        elif end > stop:
            self._keep(stop, end)
        else:
            stop = end
        self._objects.append((start, stop))

    def _keep(self, start: int, end: int) -> None:
        self._ends[start], self._starts[end] = end, start
        if end - start > _MORE:
            insort(self._free, (end - start) << _PLACES | start)

    def _join(self, start: int, end: int) -> None:
        free = self._free
        before = self._starts.pop(start, -1)
        if before >= 0:
            del self._ends[before]
            if start - before > _MORE:
                del free[bisect_left(free, (start - before) << _PLACES | before)]
            start = before
        after = self._ends.pop(end, 0)
        if after:
            del self._starts[after]
            if after - end > _MORE:
                del free[bisect_left(free, (after - end) << _PLACES | end)]
            end = after
        if end == self.top:
            self.top = start
        else:
            self._keep(start, end)
