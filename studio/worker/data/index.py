"""The index of a text file: where every so many rows begins, so that any page is a short walk away.

In: a TextFile and the path that its bytes can be read from. Out: rows by position. The index is an array of (position,
offset, line), kept in the cache and memory-mapped; its last entry is the file's end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from studio.core import rows
from studio.core.rows import Line, Record
from studio.core.textfile import TextFile
from studio.worker.data.arraycut import blocks

_EVERY_ROWS = 64
_EVERY_BYTES = 2**19
_BLOCK = 2**21
_END = 2**62  # offset and line of the last entry, whose position is the number of rows
_WHITE = np.zeros(256, np.bool_)
_WHITE[list(rows.BLANK)] = True
Tick = Callable[[int], None]  # told the byte that has been reached; may raise


class Index:
    """A sparse index over a text file's rows."""

    def __init__(self, entries: Any) -> None:
        self._entries = entries
        self.total = int(entries[-1, 0])

    def before(self, position: int) -> tuple[int, int, int]:
        """The last place known at or before a row: its position, offset and line."""
        at = max(int(np.searchsorted(self._entries[:-1, 0], position, side="right")) - 1, 0)
        found, offset, number = self._entries[at].tolist()
        return found, offset, number


def load_index(path: Path) -> Index | None:
    """A kept index; None where there is none, or a damaged one."""
    try:
        entries = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return Index(entries) if entries.ndim == 2 and entries.shape[1] == 3 and len(entries) else None


def build_index(text: TextFile, tick: Tick) -> Any:
    """The index's entries. `tick` hears of every few megabytes, and may raise to stop."""
    if text.kind in ("lines", "paragraphs"):
        entries = _scan_lines(text, tick)
        if entries is not None:
            return entries
    if text.kind == "array":
        return _scan_array(text, tick)
    return _walk(text, tick, text.offset, text.number)


def save_index(path: Path, entries: Any) -> Index:
    """Keep an index: written under another name first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, entries)
    part.replace(path)
    return load_index(path) or Index(entries)


def records_from(text: TextFile, index: Index | None, position: int) -> Iterator[Record]:
    """Every record from a row on."""
    found, offset, number = index.before(position) if index else (0, text.offset, text.number)
    return islice(text.records(offset, number), position - found, None)


def lines_at(text: TextFile, index: Index, positions: Iterator[int]) -> Iterator[Line]:
    """Single rows, in the order asked for; neighbours are read in one walk."""
    records: Iterator[Record] = iter(())
    at = -1  # the position that `records` gives next
    for position in positions:
        if at < 0 or position < at or index.before(position)[0] > at:
            records, at = records_from(text, index, position), position
        record = next(islice(records, position - at, None), None)
        if record is None:
            raise IndexError(position)
        at = position + 1
        yield text.line(record, position)


def _walk(text: TextFile, tick: Tick, offset: int, number: int) -> Any:
    entries = [(0, offset, number)]
    position = seen = 0
    last_offset, last_position = offset, 0
    for record in text.records(offset, number):
        offset = record.offset
        if not record.problem and (position - last_position >= _EVERY_ROWS or offset - last_offset >= _EVERY_BYTES):
            entries.append((position, offset, record.number))
            last_offset, last_position = offset, position
        position += 1
        if offset - seen > _BLOCK:
            seen = offset
            tick(offset)
    return np.array([*entries, (position, _END, _END)], np.int64)


def _scan_lines(text: TextFile, tick: Tick) -> Any:
    """The same as a walk, by arrays. None where that is needed after all: the file is torn, or a line endless."""
    kept: list[Any] = [np.array([[0, text.offset, text.number]], np.int64)]
    position, number, offset, blank_before = 0, text.number, text.offset, True
    buffer = bytearray(_BLOCK)
    filled = 0
    with text.open(offset) as stream:
        while True:
            read = stream.readinto(memoryview(buffer)[filled:])  # type: ignore[attr-defined]
            filled += read
            array = np.frombuffer(buffer, np.uint8, filled)
            ends = np.flatnonzero(array == 10)
            size = (int(ends[-1]) + 1 if len(ends) else 0) if read else filled
            if size:
                starts, blank = _lines_of(array[:size], ends)
                first = ~blank
                if text.kind == "paragraphs":
                    first[1:] &= blank[:-1]
                    first[0] &= blank_before
                    blank_before = bool(blank[-1])
                lines = np.flatnonzero(first)
                kept.append(_entries(position + np.arange(len(lines)), starts[lines] + offset, lines + number))
                position += len(lines)
                number += len(starts)
                offset += size
                tick(offset)
            elif read == 0:
                break
            rest = bytes(array[size:])
            del array
            if len(rest) == len(buffer):
                if len(rest) > rows.LONGEST_LINE:
                    return None
                buffer = bytearray(2 * len(buffer))
            buffer[: len(rest)] = rest
            filled = len(rest)
        if getattr(stream, "torn", ""):
            return None
    kept.append(np.array([[position, _END, _END]], np.int64))
    return np.concatenate(kept)


def _entries(positions: Any, offsets: Any, numbers: Any) -> Any:
    """Of these rows those that another stretch of rows or bytes begins with."""
    steps, stretches = positions // _EVERY_ROWS, offsets // _EVERY_BYTES
    change = np.ones(len(positions), np.bool_)
    change[1:] = (steps[1:] != steps[:-1]) | (stretches[1:] != stretches[:-1])
    return np.stack((positions[change], offsets[change], numbers[change]), axis=1).astype(np.int64)


def _lines_of(array: Any, ends: Any) -> tuple[Any, Any]:
    """Where each line begins, and whether it is blank."""
    starts = np.zeros(len(ends) + (len(array) == 0 or array[-1] != 10), np.int64)
    starts[1:] = ends[: len(starts) - 1] + 1
    blank = _WHITE[array[starts]]
    if blank.any() and not (array[starts[blank]] == 10).all():
        blank = np.add.reduceat(~_WHITE[array], starts, dtype=np.int64) == 0
    return starts, blank


def _scan_array(text: TextFile, tick: Tick) -> Any:
    """The same as a walk over a json array, by arrays as far as they go."""
    kept: list[Any] = [np.array([[0, text.offset, text.number]], np.int64)]
    position = 0
    with text.open(text.offset) as stream:
        found = blocks(stream, text.offset, text.number)
        while True:
            try:
                block = next(found)
            except StopIteration as end:
                offset, number = end.value
                break
            kept.append(_entries(position + np.arange(len(block.starts)), block.starts + block.base, block.numbers))
            position += len(block.starts)
            tick(block.base)
    rest = _walk(text, tick, offset, number)
    rest[:, 0] += position
    # The place where the other way took over is a row's only if one begins there.
    return np.concatenate([*kept, rest[1:] if len(rest) > 1 else rest])
