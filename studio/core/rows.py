"""Rows of a text file of data, one at a time, each with its line number.

In: a path to jsonl, ndjson, json, csv or tsv. Out: `Line`s: a number that counts from 1, and a row or the problem
with it. Bad lines are told, never dropped in silence. Reads line by line (a json array: whole, up to a size). Knows
no layouts.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.errors import DataError

TEXT_SUFFIXES = {".jsonl", ".ndjson", ".json", ".csv", ".tsv"}
LONGEST_LINE = 20 * 2**20  # bytes: a longer row is no example but an accident
LARGEST_ARRAY = 512 * 2**20  # bytes: a json array is parsed whole
_ESCAPE = re.compile("[\udc80-\udcff]")  # how Python's surrogateescape spells bytes that are no text


@dataclass(frozen=True)
class Line:
    """A row, or why there is none. `number` is the line in the file (of its first line, for csv), from 1."""

    number: int
    row: Any = None
    problem: str = ""


def read_rows(path: Path) -> Iterator[Line]:
    """Every row of a file. Raises DataError where the file as a whole can't be read."""
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES:
        raise DataError(f"{path.name} is not a kind of file that holds rows.", "Give jsonl, json, csv, tsv or parquet.")
    _check_encoding(path)
    if suffix in {".csv", ".tsv"}:
        return _read_table(path, "\t" if suffix == ".tsv" else ",")
    if suffix == ".json" and _opens_with_bracket(path):
        return _read_array(path)
    return _read_lines(path)


def parse_line(number: int, raw: bytes) -> Line | None:
    """The row in one line of jsonl; None for a blank line."""
    if len(raw) > LONGEST_LINE:
        return Line(number, problem=f"the line has {len(raw) / 2**20:.0f} MB; 20 MB is the most a row may have")
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        return Line(number, problem=f"byte {error.start + 1} of the line is not UTF-8")
    if not text:
        return None
    try:
        return Line(number, json.loads(text))
    except json.JSONDecodeError as error:
        return Line(number, problem=f"no valid JSON at column {error.colno}: {error.msg}")
    except (RecursionError, ValueError) as error:
        return Line(number, problem=f"no readable JSON ({error})")


def _read_lines(path: Path) -> Iterator[Line]:
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            size = len(raw)
            while not raw.endswith(b"\n") and len(raw) > LONGEST_LINE and (more := file.readline(2**20)):
                size += len(more)  # walk to the end of an endless line without keeping it
                if more.endswith(b"\n"):
                    break
            line = parse_line(number, raw) if size == len(raw) else Line(number, problem=_too_long(size))
            if line is not None:
                yield line


def _too_long(size: int) -> str:
    return f"the line has {size / 2**20:.0f} MB; 20 MB is the most a row may have"


def _read_array(path: Path) -> Iterator[Line]:
    if path.stat().st_size > LARGEST_ARRAY:
        raise DataError(f"{path.name} is one JSON array of over 512 MB.", "Save it as jsonl: one row a line.")
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path.name}, line {line} is not UTF-8.", "Save it as UTF-8 and try again.", line) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path.name}, line {error.lineno}: {error.msg}.",
            "Mend that line, or save the file as jsonl.",
            error.lineno,
        ) from None
    except RecursionError:
        raise DataError(f"{path.name} is nested too deeply to be read.", "Give one flat object a row.") from None
    except ValueError as error:
        raise DataError(f"{path.name} can't be read as JSON ({error}).", "Save it as jsonl: one row a line.") from None
    for number, row in enumerate(rows, start=1):
        yield Line(number, row)


def _read_table(path: Path, delimiter: str) -> Iterator[Line]:
    csv.field_size_limit(LONGEST_LINE)
    # What is no UTF-8 comes through as escapes, so that it costs its own row only and each row keeps its line.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        start = 1
        try:
            header = next((fields for fields in reader if fields), [])
            if _ESCAPE.search("".join(header)):
                yield Line(start, problem="the header is not UTF-8")
                return
            while True:
                start = reader.line_num + 1
                fields = next(reader, None)
                if fields is None:
                    return
                if fields:
                    yield _table_row(start, header, fields)
        except csv.Error as error:
            yield Line(start, problem=f"not readable as a table from here on ({error})")


def _table_row(number: int, header: list[str], fields: list[str]) -> Line:
    if len(fields) != len(header):
        return Line(number, problem=f"{len(fields)} columns where the header names {len(header)}")
    if _ESCAPE.search("".join(fields)):
        return Line(number, problem="the row is not UTF-8")
    return Line(number, dict(zip(header, fields, strict=True)))


def _check_encoding(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}).", "Check the path and its permissions.") from None
    for mark, name in ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16")):
        if start.startswith(mark):
            raise DataError(f"{path.name} is written in {name}.", "Save it as UTF-8 and try again.", 1)


def _opens_with_bracket(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).decode("utf-8-sig", errors="replace").lstrip().startswith("[")
