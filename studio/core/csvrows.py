"""Records of a csv or tsv file, each with the line and byte it begins at.

In: a binary file at the beginning of a record. Out: Records whose `raw` is the list of fields, read by Python's own
csv. A quote that is never closed, or a record beyond the limit, costs its first line only: reading goes on behind it.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from studio.core import rows
from studio.core.rows import Line, Record, not_utf8

_ESCAPE = re.compile("[\udc80-\udcff]")  # how Python's surrogateescape spells bytes that are no text
_LONE_RETURN = re.compile(rb"(?<=\r)(?!\n)")  # ends a line of a table too


class _TooBig(Exception):
    pass


class _Feed:
    """The file's lines as text, as csv asks for them; keeps those of the record at hand, to read them otherwise."""

    def __init__(self, file: BinaryIO, offset: int, number: int) -> None:
        self._file = file
        self._ahead: deque[bytes] = deque()
        self.taken: list[bytes] = []
        self.size = 0
        self.unclosed = False
        self.offset, self.number = offset, number

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        raw = self._ahead.popleft() if self._ahead else self._read()
        if not raw:
            self.unclosed = bool(self.taken)
            raise StopIteration
        self.taken.append(raw)
        self.size += len(raw)
        if self.size > rows.LONGEST_LINE:
            raise _TooBig
        return raw.decode("utf-8", "surrogateescape")

    def _read(self) -> bytes:
        raw = self._file.readline(rows.LONGEST_LINE + 1)
        if b"\r" in raw[:-2]:
            raw, *more = [piece for piece in _LONE_RETURN.split(raw) if piece]
            self._ahead.extend(more)
        return raw

    def done(self, lines: int | None = None) -> int:
        """The record is made of the lines taken, or of their first `lines` only; the bytes behind are read again."""
        if lines is not None:
            self._ahead.extendleft(reversed(self.taken[lines:]))
            del self.taken[lines:]
        size = sum(map(len, self.taken))
        self.offset += size
        self.number += len(self.taken)
        self.taken, self.size, self.unclosed = [], 0, False
        return size

    def skip_line(self) -> int:
        """Drop the first line taken, to its end even where that is far; its size."""
        last = self.taken[0]
        size = self.done(1)
        while not last.endswith((b"\n", b"\r")) and (last := self._ahead.popleft() if self._ahead else self._read()):
            self.offset += len(last)
            size += len(last)
        return size


def cut_table(file: BinaryIO, offset: int, number: int, delimiter: str) -> Iterator[Record]:
    """Every record from here on, blank lines passed over."""
    csv.field_size_limit(max(csv.field_size_limit(), rows.LONGEST_LINE + 1))
    feed = _Feed(file, offset, number)
    reader = csv.reader(feed, delimiter=delimiter)
    while True:
        begin, line = feed.offset, feed.number
        try:
            fields = next(reader, None)
        except _TooBig:
            lines = len(feed.taken)
            size = feed.skip_line()
            if lines == 1:
                yield Record(begin, line, b"", rows.too_long(size), "too_big")
            else:
                text = f"a quote is opened that isn't closed within {rows.LONGEST_LINE / 2**20:.0f} MB"
                yield Record(begin, line, b"", text, "too_big")
        except csv.Error as error:
            feed.done(1)
            yield Record(begin, line, b"", f"no readable row of a table ({error})", "unreadable")
        else:
            if fields is None:
                return
            if feed.unclosed:
                feed.done(1)
                yield Record(begin, line, b"", "a quote is opened that is never closed", "unreadable")
            else:
                feed.done()
                if fields and not (len(fields) == 1 and fields[0].isspace()):
                    yield Record(begin, line, fields)
                continue
        reader = csv.reader(feed, delimiter=delimiter)


def table_line(record: Record, columns: list[str], position: int) -> Line:
    """The row in a record, its fields by the header's names."""
    number, fields = record.number, record.raw
    problem, kind = record.problem, record.kind
    if not problem:
        assert isinstance(fields, list)
        text = "".join(fields)
        if len(fields) != len(columns):
            problem, kind = f"{len(fields)} columns where the header names {len(columns)}", "unreadable"
        elif (escape := _ESCAPE.search(text)) is not None:
            whole = "\n".join(fields).encode("utf-8", "surrogateescape")
            value = ord(escape.group()) - 0xDC00
            problem, kind = f"the row is not UTF-8 (byte 0x{value:02X}){_perhaps(whole)}", "encoding"
        elif "\0" in text:
            problem, kind = "the row holds a NUL byte", "encoding"
    if problem:
        return Line(number, problem=problem, kind=kind, position=position)
    return Line(number, dict(zip(columns, fields, strict=True)), position=position)


def _perhaps(raw: bytes) -> str:
    return "; perhaps it is Windows-1252 (Latin-1)" if "perhaps" in not_utf8(raw, 0, 0) else ""
