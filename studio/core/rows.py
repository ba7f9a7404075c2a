"""A row of data with its place, and how one row's bytes are read.

In: the bytes of one line of jsonl or of one element of a json array. Out: a Line: the row, or in plain words why
there is none. How a file is cut into such pieces is textfile's and its neighbours' business. Knows no layouts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

TEXT_SUFFIXES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md"}
LONGEST_LINE = 20 * 2**20  # bytes: a longer row is no example but an accident
DEEPEST = 128  # brackets within brackets: beyond it no row is meant, and walking it could exhaust the stack
BLANK = b" \t\r\n\x0b\x0c"
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*){0,50}"|[\[{]+|[\]}]+', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Line:
    """A row, or why there is none.

    `number` is the line in its file, from 1: of the first line of a csv record, of a json array's element, of a txt
    paragraph; for parquet and arrow the row's number. `kind` is unreadable, encoding or too_big where there is a
    `problem`. `file` is its name where there are several files, `part` which part of a mix it is from, `position` its
    place among all rows, from 0, blank lines not counted.
    """

    number: int
    row: Any = None
    problem: str = ""
    kind: str = ""
    file: str = ""
    part: int = 0
    position: int = 0

    @property
    def where(self) -> int | str:
        """The line number, with its file's name before it where there are several."""
        return f"{self.file}:{self.number}" if self.file else self.number


class Record(NamedTuple):
    """A row as it stands in a text file: where it begins, and its bytes, a table's fields, or what is wrong with it."""

    offset: int  # in bytes, of the file as unpacked
    number: int  # the line it begins in, from 1
    raw: bytes | list[str] = b""
    problem: str = ""
    kind: str = ""


def read_rows(path: Path) -> Iterator[Line]:
    """Every row of a text file. Raises DataError where the file as a whole can't be read."""
    from studio.core.textfile import open_text  # which is made of what stands here

    return open_text(path).lines()


def parse_record(record: Record, position: int = 0) -> Line:
    """The row in a record of JSON."""
    number, raw = record.number, record.raw
    assert isinstance(raw, bytes)
    if record.problem:
        return Line(number, problem=record.problem, kind=record.kind, position=position)
    if len(raw) > LONGEST_LINE:
        return Line(number, problem=too_long(len(raw)), kind="too_big", position=position)
    problem, kind, row = "", "unreadable", None
    try:
        text = raw.decode("utf-8").rstrip()  # an error at the end is in this line, not in the next
        if raw.count(b"[") + raw.count(b"{") > DEEPEST and depth(raw) > DEEPEST:
            problem = f"it is nested over {DEEPEST} levels deep"
        else:
            row = json.loads(text)
            problem = _half_characters(raw, row)
            kind = "encoding" if problem else ""
    except UnicodeDecodeError as error:
        problem, kind = not_utf8(raw, error.start, record.offset), "encoding"
    except json.JSONDecodeError as error:
        nul = raw.find(b"\0")
        if nul >= 0:
            problem, kind = (
                f"byte {nul + 1} of the line (byte {record.offset + nul + 1} of the file) is NUL",
                "encoding",
            )
        else:
            problem = f"no valid JSON at {_place(error, number)}: {error.msg}"
    except (RecursionError, ValueError) as error:
        problem = f"no readable JSON ({error})"
    return Line(number, None if problem else row, problem, kind, position=position)


def too_long(size: int) -> str:
    """What is said of a row of so many bytes."""
    return f"the line has {size / 2**20:.0f} MB; {LONGEST_LINE / 2**20:.0f} MB is the most a row may have"


def not_utf8(raw: bytes, at: int, offset: int) -> str:
    """What is said of a row whose byte `at` is no UTF-8; `offset` is where the row begins in its file."""
    try:
        raw[at : at + 64].decode("cp1252")
        perhaps = "; perhaps it is Windows-1252 (Latin-1)"
    except UnicodeDecodeError:
        perhaps = ""
    return f"byte {at + 1} of the line (byte {offset + at + 1} of the file) is not UTF-8{perhaps}"


def depth(raw: bytes) -> int:
    """How many brackets stand within brackets in a piece of JSON."""
    now = deepest = 0
    for match in _BRACKETS.finditer(raw):
        first, size = raw[match.start()], match.end() - match.start()
        if first in b"[{":
            now += size
            deepest = max(deepest, now)
        elif first in b"]}":
            now -= size
    return deepest


def _place(error: json.JSONDecodeError, number: int) -> str:
    # An element of an array may stand on several lines.
    return f"column {error.colno}" if error.lineno == 1 else f"line {number + error.lineno - 1}, column {error.colno}"


def _half_characters(raw: bytes, row: Any) -> str:
    """JSON can spell half of a character (a lone surrogate), which no tokenizer and no file can hold."""
    if _SURROGATE.search(raw) is None:
        return ""
    try:
        json.dumps(row, ensure_ascii=False).encode("utf-8")
        return ""
    except UnicodeEncodeError as error:
        return f"it spells half of a character (\\u{ord(error.object[error.start]):04x} without its other half)"
