"""Rows of parquet and arrow files, by batches.

In: a path. Out: rows as plain dicts, whatever JSON can say: dates as text, bytes as their length. A parquet file's row
groups are read a batch at a time, an arrow file is memory-mapped; neither is ever read whole.
"""

from __future__ import annotations

import base64
import datetime
import decimal
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from studio.core.errors import DataError
from studio.core.rows import Line

COLUMNAR = {".parquet", ".arrow"}
_BATCH = 256


class Columnar:
    """The rows of one file. `total` is known at once; a damaged place ends the rows with one problem."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self.path, self.name = path, path.name
        try:
            self._file = _Parquet(path) if path.suffix.lower() == ".parquet" else _Arrow(path)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            kind = path.suffix.lower().lstrip(".")
            raise DataError(
                f"{path.name} can't be read as {kind} ({_short(error)}).", "Save or download it again, or give jsonl."
            ) from None
        self._plain = _is_plain(self._file.schema)
        self._starts = [0, *accumulate(self._file.sizes)]
        self.total = self._starts[-1]

    def iterate(self, start: int = 0) -> Iterator[Line]:
        """Every row from `start` on."""
        import pyarrow as pa

        group = max(bisect_right(self._starts, start) - 1, 0)
        for number in range(group, len(self._file.sizes)):
            position = self._starts[number]
            skip = max(start - position, 0)
            position += skip
            try:
                for batch in self._file.batches(number, skip):
                    for at in range(0, batch.num_rows, _BATCH):
                        for row in self._rows(batch.slice(at, _BATCH)):
                            if isinstance(row, Line):
                                yield replace(row, number=position + 1, position=position)
                            else:
                                yield Line(position + 1, row, position=position)
                            position += 1
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                # Of a damaged row group nothing more can be had; its rows are told as one, so that others follow.
                for at in range(position, self._starts[number + 1]):
                    text = f"the file is damaged here ({_short(error)})"
                    yield Line(at + 1, problem=text, kind="unreadable", position=at)

    def at(self, positions: Sequence[int]) -> Iterator[Line]:
        """Single rows, in the order asked for; rows near one another cost one reading."""
        held: list[Line] = []
        first = 0
        for position in positions:
            if not first <= position < first + len(held):
                first = position
                held = []
                for line in self.iterate(position):
                    held.append(line)
                    if len(held) >= (64 if self._file.cheap else _BATCH):
                        break
            if not held:
                raise IndexError(position)
            yield held[position - first]

    def _rows(self, batch: Any) -> Iterator[Any]:
        try:
            rows = batch.to_pylist()
        except (UnicodeDecodeError, ValueError, OverflowError):
            # One bad value spoils the batch: the rows one by one.
            for at in range(batch.num_rows):
                try:
                    yield self._clean(batch.slice(at, 1).to_pylist()[0])
                except (UnicodeDecodeError, ValueError, OverflowError) as error:
                    yield Line(0, problem=f"a value can't be read ({_short(error)})", kind="encoding")
            return
        yield from rows if self._plain else map(self._clean, rows)

    def _clean(self, row: Any) -> Any:
        return row if self._plain else plain(row)


class _Parquet:
    cheap = False  # every jump decodes its row group from the start

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**16)
        self.schema = self._file.schema_arrow
        about = self._file.metadata
        self.sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]

    def batches(self, group: int, skip: int) -> Iterator[Any]:
        for batch in self._file.iter_batches(batch_size=_BATCH, row_groups=[group], use_threads=False):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield batch.slice(skip)
            skip = 0


class _Arrow:
    cheap = True

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        source = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_file(source)
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            self._batches = list(reader)
        self.schema = reader.schema
        self.sizes = [batch.num_rows for batch in self._batches]

    def batches(self, group: int, skip: int) -> Iterator[Any]:
        yield self._batches[group].slice(skip)


def plain(value: Any) -> Any:
    """A value as JSON can say it."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (datetime.date, datetime.time, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode() if len(value) < 64 else f"({len(value)} bytes)"
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def _is_plain(schema: Any) -> bool:
    return all(_is_plain_type(field.type) for field in schema)


def _is_plain_type(kind: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(kind):
        return all(_is_plain_type(kind.field(i).type) for i in range(kind.num_fields))
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_plain_type(kind.value_type)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return bool(text or number or types.is_null(kind))


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
