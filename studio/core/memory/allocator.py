"""CUDA's caching allocator: which blocks it takes from the device for a run of allocations and releases.

In: sizes in bytes, in order. Out: what is reserved. Rules and constants are those of c10/cuda/CUDACachingAllocator.cpp
with its default settings, or with expandable segments: requests are rounded to 512 bytes, small ones live in segments
of 2 MiB, large ones in segments of 20 MiB or their own size; the smallest free block that fits is taken and split;
neighbours that are free are joined; where the device is full, segments that are wholly free are given back first.
"""

from __future__ import annotations

from bisect import bisect_left, insort

MIB = 2**20
_ROUND = 512
_SMALL, _SMALL_SEGMENT = MIB, 2 * MIB
_MIN_LARGE, _LARGE_SEGMENT, _ROUND_LARGE = 10 * MIB, 20 * MIB, 2 * MIB
# A free block is one number, its size before its address, so that the smallest that fits is found by bisection.
_PLACES = 62
_ADDRESS = 2**_PLACES - 1
_POOL = 2**60  # where the expandable segment of large blocks begins


class OutOfMemory(Exception):
    """The device has no room for a segment, even after everything unused was given back."""


class CachingAllocator:
    """`reserved` and `highest` in bytes; `capacity` bounds what it may take from the device."""

    def __init__(self, expandable: bool = False, capacity: int | None = None) -> None:
        self.expandable, self.capacity = expandable, capacity
        self.reserved = self.highest = self.retries = 0
        self._free: tuple[list[int], list[int]] = ([], [])  # of small and of large blocks, sorted
        self._used: dict[int, int] = {}  # address -> size; large ones are larger than small ones can be
        self._ends: dict[int, int] = {}  # where a free block begins -> where it ends
        self._starts: dict[int, int] = {}  # and the other way round
        self._segments: dict[int, int] = {}  # address -> size, where they aren't expandable
        self._top = [0, _POOL] if expandable else [0, 0]

    @property
    def allocated(self) -> int:
        """Bytes of all blocks in use."""
        return sum(self._used.values())

    def allocate(self, size: int) -> int:
        """A block's address. Raises OutOfMemory where `capacity` is reached."""
        size = (size + 511) & -_ROUND or _ROUND
        large = size > _SMALL
        free = self._free[large]
        place = bisect_left(free, size << _PLACES)
        if place < len(free):
            key = free.pop(place)
            address: int = key & _ADDRESS
            end = self._ends.pop(address)
            del self._starts[end]
        elif self.expandable:
            address, end = self._extend(size, large)
        else:
            address, end = self._segment(size, large)
        stop = address + size
        # large blocks keep what is too small to be a large one
        if end - stop > (_SMALL if large else 0):
            self._ends[stop], self._starts[end] = end, stop
            insort(free, (end - stop) << _PLACES | stop)
        else:
            stop = end
        self._used[address] = stop - address
        return address

    def touch(self, size: int) -> None:
        """Allocate and release at once: where a block fits, nothing comes of it."""
        size = (size + 511) & -_ROUND or _ROUND
        free = self._free[size > _SMALL]
        if not free or free[-1] >> _PLACES < size:
            self.release(self.allocate(size))

    def release(self, address: int) -> None:
        """Give a block back to the cache; what is free beside it becomes one with it."""
        size = self._used.pop(address)
        end = address + size
        free = self._free[size > _SMALL]
        after = self._ends.pop(end, 0)
        if after:
            del free[bisect_left(free, (after - end) << _PLACES | end)]
            end = after
        before = self._starts.pop(address, -1)
        if before >= 0:
            del free[bisect_left(free, (address - before) << _PLACES | before)]
            address = before
        self._ends[address], self._starts[end] = end, address
        insort(free, (end - address) << _PLACES | address)

    def _take(self, size: int) -> bool:
        """Ask the device for more; whether it had it."""
        if self.capacity is not None and self.reserved + size > self.capacity:
            return False
        self.reserved += size
        self.highest = max(self.highest, self.reserved)
        return True

    def _full(self, size: int) -> None:
        """The device had no room: give back what is unused, before it is asked again."""
        self.retries += 1
        before = self.reserved
        self.give_back()
        if self.reserved == before:
            raise OutOfMemory(f"{self.reserved + size} of {self.capacity} bytes")

    def _segment(self, size: int, large: bool) -> tuple[int, int]:
        """A new segment's beginning and end."""
        if large:
            whole = _LARGE_SEGMENT if size < _MIN_LARGE else -(-size // _ROUND_LARGE) * _ROUND_LARGE
        else:
            whole = _SMALL_SEGMENT
        while not self._take(whole):
            self._full(whole)
        address = self._top[0]
        self._top[0] += whole + _ROUND  # a gap: segments are never joined
        self._segments[address] = whole
        return address, address + whole

    def _extend(self, size: int, large: bool) -> tuple[int, int]:
        """One segment a pool, which grows in pages; what is free at its end is part of the new block."""
        page = _LARGE_SEGMENT if large else _SMALL_SEGMENT
        while True:
            top = self._top[large]
            address = self._starts.get(top, top)
            more = -(-(size - (top - address)) // page) * page
            if self._take(more):
                break
            self._full(more)
        if address < top:
            del self._starts[top], self._ends[address]
            free = self._free[large]
            del free[bisect_left(free, (top - address) << _PLACES | address)]
        self._top[large] = top + more
        return address, top + more

    def give_back(self) -> None:
        """empty_cache: segments (with expandable ones, the pages at the end) that nothing lives in."""
        for large, free in enumerate(self._free):
            if self.expandable:
                self._shrink(large, free)
                continue
            for key in [k for k in free if self._segments.get(k & _ADDRESS) == k >> _PLACES]:
                address, size = key & _ADDRESS, key >> _PLACES
                free.remove(key)
                del self._segments[address], self._ends[address], self._starts[address + size]
                self.reserved -= size

    def _shrink(self, large: int, free: list[int]) -> None:
        top, page = self._top[large], _LARGE_SEGMENT if large else _SMALL_SEGMENT
        address = self._starts.get(top, top)
        spare = (top - address) // page * page
        if not spare:
            return
        free.remove((top - address) << _PLACES | address)
        del self._starts[top], self._ends[address]
        self._top[large] = top - spare
        self.reserved -= spare
        if address < top - spare:
            self._ends[address], self._starts[top - spare] = top - spare, address
            insort(free, (top - spare - address) << _PLACES | address)
