"""The elements of a json array, many at a time: what core.jsonarray does one by one, by arrays.

In: a TextFile that is an array. Out: the same Records as its own, several times as fast. Only what is plainly in order
is cut here: at anything else (a broken row, a row that is no object or too big, the array's end) the careful way takes
over, from the last row that was.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from studio.core import rows
from studio.core.jsonarray import mask
from studio.core.rows import Record
from studio.core.textfile import TextFile
from studio.worker.data.unpack import UnpackedStream

_SMALLEST, _LARGEST = 2**18, 2**21
_QUOTE, _COMMA = 1, 6  # openers are 2 and 4, their closers one more
_MARKS = {0x22: 1, 0x7B: 2, 0x7D: 3, 0x5B: 4, 0x5D: 5, 0x2C: 6}
_CLASSES = bytes(_MARKS.get(value, 0) for value in range(256))
_STEP = np.array([0, 0, 1, -1, 1, -1, 0], np.int8)
_WHITE, _FOLLOWS = np.zeros(256, np.bool_), np.zeros(256, np.bool_)
_WHITE[list(b" \t\r\n")] = True
_FOLLOWS[list(b",:}] \t\r\n")] = True
_WIDEST = 64  # white bytes between a row and its comma that are looked at here


class Block(NamedTuple):
    """Some elements: their bytes are data[start:end], `base` is where data lies in the file."""

    data: bytes
    base: int
    starts: Any
    ends: Any
    numbers: Any


def fast_records(text: TextFile, offset: int | None = None, number: int | None = None) -> Iterator[Record]:
    """What text.records gives."""
    if text.kind == "array":
        with text.open(text.offset if offset is None else offset) as stream:
            place = yield from _records(stream, text, offset, number)
        offset, number = place
    yield from text.records(offset, number)


def _records(
    stream: BinaryIO, text: TextFile, offset: int | None, number: int | None
) -> Generator[Record, None, tuple[int, int]]:
    begin, line = (text.offset, text.number) if offset is None or number is None else (offset, number)
    found = blocks(stream, begin, line)
    while True:
        try:
            data, base, starts, ends, numbers = next(found)
        except StopIteration as end:
            place: tuple[int, int] = end.value
            return place
        for start, stop, at in zip(starts.tolist(), ends.tolist(), numbers.tolist(), strict=True):
            yield Record(base + start, at, data[start:stop])


def blocks(stream: BinaryIO, base: int, number: int) -> Generator[Block, None, tuple[int, int]]:
    """The elements from here on. Returns the offset and line from where on the careful way has to take over."""
    if isinstance(stream, UnpackedStream):
        return base, number  # such a stream can't be taken up in its middle
    data, size = b"", _SMALLEST
    while read := stream.read(size):
        data += read
        starts, ends, used, more = _cut(data)
        if len(starts):
            lines = np.flatnonzero(np.frombuffer(data, np.uint8, used) == 10)
            yield Block(data, base, starts, ends, number + np.searchsorted(lines, starts))
            number += len(lines)
            base += used
            data = data[used:]
        if not more or len(data) > rows.LONGEST_LINE:
            break
        size = min(max(2 * size, len(data)), max(_LARGEST, len(data)))
    return base, number


def _cut(data: bytes) -> tuple[Any, Any, int, bool]:
    """Starts and ends of the whole elements, where the rest begins, and whether the rest may go on in this way."""
    nothing = np.empty(0, np.int64)
    text = mask(data)
    letters = np.frombuffer(text, np.uint8)
    marks = np.frombuffer(text.translate(_CLASSES), np.uint8)
    places = np.flatnonzero(marks)
    kinds = marks[places]
    quotes = kinds == _QUOTE
    inside = (np.cumsum(quotes, dtype=np.int32) & 1).astype(np.bool_)
    well = True
    closing = places[quotes & ~inside]
    closing = closing[: len(closing) - (len(closing) > 0 and closing[-1] + 1 == len(data))]
    broken = closing[~_FOLLOWS[letters[closing + 1]]]
    outside = ~(inside | quotes)
    places, kinds = places[outside], kinds[outside]
    if len(broken):
        well = False
        sound = int(np.searchsorted(places, broken[0]))
        places, kinds = places[:sound], kinds[:sound]
    depths = np.cumsum(_STEP[kinds], dtype=np.int32)
    below = np.flatnonzero(depths < 0)
    if len(below):
        well = False  # the array's end
        places, kinds, depths = places[: below[0]], kinds[: below[0]], depths[: below[0]]
    commas = np.flatnonzero((kinds == _COMMA) & (depths == 0))
    if not len(commas):
        return nothing, nothing, 0, well
    last = int(commas[-1])
    places, kinds, depths = places[: last + 1], kinds[: last + 1], depths[: last + 1]
    firsts = np.concatenate(([0], commas[:-1] + 1))
    lasts = commas - 1
    ends_at_zero = np.count_nonzero((depths == 0) & ((kinds == 3) | (kinds == 5)))
    if ends_at_zero != len(commas) or not _whole(kinds, depths, firsts, lasts):
        return nothing, nothing, 0, False
    starts, ends, stops = places[firsts], places[lasts] + 1, places[commas]
    begins = np.concatenate(([0], stops[:-1] + 1))
    if not (_white(letters, begins, starts) and _white(letters, ends, stops)):
        return nothing, nothing, 0, False
    if int((ends - starts).max()) > rows.LONGEST_LINE:
        return nothing, nothing, 0, False
    return starts, ends, int(stops[-1]) + 1, well


def _whole(kinds: Any, depths: Any, firsts: Any, lasts: Any) -> bool:
    """Whether each element is one pair of brackets, and every bracket within is closed by its like."""
    if lasts[0] < firsts[0] or (lasts <= firsts).any():
        return False
    if (kinds[firsts] % 2 == 1).any() or (kinds[firsts] == _COMMA).any() or (kinds[lasts] % 2 == 0).any():
        return False
    brackets = kinds != _COMMA
    kinds, depths = kinds[brackets], depths[brackets]
    levels = depths + (kinds % 2)  # a closer belongs to the level it ends
    if int(levels.max()) > 2**14:
        return False
    order = np.argsort(levels.astype(np.int16), kind="stable")
    pairs = kinds[order].astype(np.int8)
    return len(pairs) % 2 == 0 and bool(((pairs[1::2] - pairs[::2]) == 1).all() and (pairs[::2] % 2 == 0).all())


def _white(letters: Any, begins: Any, ends: Any) -> bool:
    """Whether there is nothing but white between the places."""
    gaps = ends - begins
    if int(gaps.max()) > _WIDEST:
        return False
    return all(bool(_WHITE[letters[begins[gaps > step] + step]].all()) for step in range(int(gaps.max())))
