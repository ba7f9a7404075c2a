"""Text files of rows: which kind one is, and its rows one after the other.

In: a path, or anything that opens a binary stream at an offset. Out: Records (where each row begins) and Lines. Kinds:
lines (jsonl), array (one json array, or the one list in an object), values (json objects one after the other), table
(csv, tsv), paragraphs (txt, md). No index, bounded memory. Knows no compression and no columnar files.
"""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from studio.core import rows
from studio.core.csvrows import cut_table, table_line
from studio.core.errors import DataError
from studio.core.jsonarray import Broken, Scanner, cut_values, lists_within
from studio.core.rows import BLANK, TEXT_SUFFIXES, Line, Record, not_utf8, parse_record

Opener = Callable[[int], BinaryIO]  # the stream, from an offset on
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_HEAD = 2**20  # bytes by which a json file is told; its first row may be larger
_MESSAGE_KEYS = {"role", "from"}  # what an object has that is a message, not a row


@dataclass(frozen=True)
class TextFile:
    """A text file of rows. Rows begin at `offset`, in line `number`."""

    name: str
    open: Opener
    kind: str
    offset: int = 0
    number: int = 1
    columns: list[str] = field(default_factory=list)
    delimiter: str = ","
    whole: bool = True  # nothing may stand behind the array

    def records(self, offset: int | None = None, number: int | None = None) -> Iterator[Record]:
        """Every row as it stands there, from the one at `offset` on."""
        begin = self.offset if offset is None else offset
        line = self.number if number is None else number
        with self.open(begin) as stream:
            records = self._cut(stream, begin, line)
            before = next(records, None)
            for record in records:
                assert before is not None
                yield before
                before = record
            torn = getattr(stream, "torn", "")
            yield from [before] if before is not None and not torn else []
            yield from _torn(before, torn, self.kind, line) if torn else ()

    def _cut(self, stream: BinaryIO, offset: int, number: int) -> Iterator[Record]:
        if self.kind == "table":
            return cut_table(stream, offset, number, self.delimiter)
        if self.kind == "paragraphs":
            return _cut_paragraphs(stream, offset, number)
        if self.kind == "lines":
            return _cut_lines(stream, offset, number)
        return cut_values(stream, offset, number, array=self.kind == "array", whole=self.whole)

    def line(self, record: Record, position: int = 0) -> Line:
        """The row in a record."""
        if self.kind == "table":
            return table_line(record, self.columns, position)
        if self.kind == "paragraphs":
            return _paragraph(record, position)
        return parse_record(record, position)

    def lines(self) -> Iterator[Line]:
        """Every row."""
        return (self.line(record, position) for position, record in enumerate(self.records()))


def open_text(path: Path) -> TextFile:
    """A text file of rows on this disk, recognised by its suffix and its beginning. Raises DataError."""

    def opened(offset: int) -> BinaryIO:
        file = path.open("rb", buffering=2**18)
        file.seek(offset)
        return file

    return recognise(path.name, path.suffix.lower(), opened)


def recognise(name: str, suffix: str, opened: Opener) -> TextFile:
    """The TextFile behind a name and an opener. Raises DataError where the file as a whole can't be read."""
    if suffix not in TEXT_SUFFIXES:
        raise DataError(f"{name} is not a kind of file that holds rows.", "Give jsonl, json, csv, tsv or parquet.")
    try:
        with opened(0) as stream:
            head = stream.read(4096)
    except OSError as error:
        raise DataError(
            f"{name} can't be read ({error.strerror or error}).", "Check the path and its permissions."
        ) from None
    _check_encoding(name, head)
    offset = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    if suffix in {".csv", ".tsv"}:
        return _table(name, opened, offset, "\t" if suffix == ".tsv" else ",")
    if suffix in {".txt", ".md"}:
        return TextFile(name, opened, "paragraphs", offset)
    return _json(name, suffix, opened, offset)


def _check_encoding(name: str, head: bytes) -> None:
    found = next((title for mark, title in _MARKS if head.startswith(mark)), "")
    if not found and len(head) >= 8:
        # Without a mark: text in these encodings has a zero in every second byte, or in three of four.
        zeros = [head[i::4].count(0) / len(head[i::4]) for i in range(4)]
        filled = [i for i in range(4) if zeros[i] < 0.3]
        if max(zeros) > 0.9 and filled in ([0], [3]):
            found = "UTF-32"
        elif filled in ([0, 2], [1, 3]) and min(zeros[1 - filled[0]], zeros[3 - filled[0]]) > 0.6:
            found = "UTF-16"
    if found:
        text = f"{name} is written in {found} (seen at byte 1)."
        raise DataError(text, "Save it as UTF-8 and try again.", 1)


# -- json -------------------------------------------------------------------------------------------------------------


def _json(name: str, suffix: str, opened: Opener, offset: int) -> TextFile:
    """Told by the beginning: an array, an object a line, objects one after the other, one object with a list in it."""
    lines = TextFile(name, opened, "lines", offset)
    with opened(offset) as stream:
        head = stream.read(_HEAD)
        ended = not stream.read(1)
    begin = len(head) - len(head.lstrip(b" \t\r\n"))
    number = 1 + head.count(b"\n", 0, begin)
    body, begin = head[begin:], begin + offset
    if body[:1] not in (b"[", b"{"):
        return lines
    line, newline, rest = body.partition(b"\n")
    alone = _measure(line) == len(line.rstrip(BLANK))
    if alone and newline and (rest.strip(BLANK) or not ended):
        return lines
    if body[:1] == b"[":
        return TextFile(name, opened, "array", begin + 1, number)
    size = _measure(body)
    if size and (not ended or body[size:].strip(BLANK)):
        return TextFile(name, opened, "values", begin, number) if b"\n" in body[:size] else lines
    # What is not an object of its own in each line may be one object whose rows are in a list.
    separate = suffix != ".json" or rest.lstrip(BLANK).startswith(b"{")
    found = None if separate and not size else _wrapped(name, opened, begin, number)
    return found or (TextFile(name, opened, "values", begin, number) if size and newline and not alone else lines)


def _measure(text: bytes) -> int:
    """How many bytes the first value in a text has; 0 where it isn't whole."""
    scan = Scanner(io.BytesIO(text), 0, 1)
    try:
        return scan.value(0)[1]
    except Broken:
        return 0


def _wrapped(name: str, opened: Opener, offset: int, number: int) -> TextFile | None:
    """The one list of objects directly within the object that is the file; None where it has none."""
    with opened(offset) as stream:
        found = lists_within(stream, offset, number)
    found = [entry for entry in found if not _is_messages(opened, entry[1], entry[2])]
    if len(found) > 1:
        keys = ", ".join(key for key, _, _ in found)
        text = f"{name} is one object that holds several lists of rows: {keys}."
        raise DataError(text, "Save the wanted one as a file of its own.")
    return TextFile(name, opened, "array", found[0][1], found[0][2], whole=False) if found else None


def _is_messages(opened: Opener, offset: int, number: int) -> bool:
    with opened(offset) as stream:
        try:
            first = json.loads(Scanner(stream, offset, number).value(rows.LONGEST_LINE)[0])
        except (Broken, ValueError, RecursionError):
            return False
    return isinstance(first, dict) and bool(_MESSAGE_KEYS & set(first))


# -- lines, tables, paragraphs ----------------------------------------------------------------------------------------


def _cut_lines(stream: BinaryIO, offset: int, number: int) -> Iterator[Record]:
    longest = rows.LONGEST_LINE
    while raw := stream.readline(longest + 1):
        size = len(raw)
        if size > longest:
            last = raw
            while not last.endswith(b"\n") and (last := stream.readline(2**20)):
                size += len(last)  # walk to the end of an endless line without keeping it
            yield Record(offset, number, b"", rows.too_long(size), "too_big")
        elif raw.strip(BLANK):
            yield Record(offset, number, raw)
        offset += size
        number += 1


def _table(name: str, opened: Opener, offset: int, delimiter: str) -> TextFile:
    with opened(offset) as stream:
        records = cut_table(stream, offset, 1, delimiter)
        header, after = next(records, None), next(records, None)
    if header is None:
        return TextFile(name, opened, "table", offset, 1, [], delimiter)
    line = table_line(header, [""] * len(header.raw), 0)
    if line.problem:
        raise DataError(f"The header of {name} can't be read: {line.problem}.", "Save it as UTF-8.", header.number)
    names = [str(value) for value in header.raw]
    if delimiter == "," and len(names) == 1 and ";" in names[0]:
        return _table(name, opened, offset, ";")  # as spreadsheets write it where the comma is for decimals
    columns = [column or f"column {place}" for place, column in enumerate(names, start=1)]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(
            f"{name} has two columns named {twice[0]!r}.", "Give each column a name of its own.", header.number
        )
    if after is None:
        with opened(offset) as stream:  # a header and nothing else: rows begin at the end
            while block := stream.read(2**20):
                offset += len(block)
        return TextFile(name, opened, "table", offset, header.number + 1, columns, delimiter)
    return TextFile(name, opened, "table", after.offset, after.number, columns, delimiter)


def _cut_paragraphs(stream: BinaryIO, offset: int, number: int) -> Iterator[Record]:
    begin, line, size = offset, number, 0
    pieces: list[bytes] = []
    while raw := stream.readline(2**20):
        if raw.strip(BLANK) or (pieces and not pieces[-1].endswith(b"\n")):
            if not size:
                begin, line = offset, number
            size += len(raw)
            pieces = [*pieces, raw] if size <= rows.LONGEST_LINE else [raw]
        elif size:
            yield _joined(begin, line, pieces, size)
            pieces, size = [], 0
        offset += len(raw)
        number += raw.endswith(b"\n")
    if size:
        yield _joined(begin, line, pieces, size)


def _joined(begin: int, line: int, pieces: list[bytes], size: int) -> Record:
    if size > rows.LONGEST_LINE:
        return Record(begin, line, b"", rows.too_long(size).replace("the line", "the paragraph"), "too_big")
    return Record(begin, line, b"".join(pieces))


def _paragraph(record: Record, position: int) -> Line:
    number, raw, problem, kind = record.number, record.raw, record.problem, record.kind
    assert isinstance(raw, bytes)
    text = ""
    if not problem:
        try:
            text = raw.decode("utf-8").replace("\r\n", "\n").strip()
        except UnicodeDecodeError as error:
            problem, kind = not_utf8(raw, error.start, record.offset), "encoding"
        if "\0" in text:
            problem, kind = f"byte {raw.index(0) + 1} of the paragraph is NUL: this is no text", "encoding"
    return Line(number, None if problem else {"text": text}, problem, kind, position=position)


def _torn(last: Record | None, torn: str, kind: str, number: int) -> Iterator[Record]:
    """How a damaged stream ends: the row that broke off, and what was found before, are told as one problem."""
    if last is None:
        yield Record(0, number, b"", torn, "unreadable")
    elif kind == "lines" and isinstance(last.raw, bytes) and last.raw.endswith(b"\n"):
        yield last
        yield Record(last.offset + len(last.raw), last.number + 1, b"", torn, "unreadable")
    else:
        yield Record(last.offset, last.number, b"", torn, "unreadable")
