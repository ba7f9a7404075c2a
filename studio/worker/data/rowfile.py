"""Rows written to a file: jsonl row by row, or parquet made from it.

In: rows as mappings. Out: a file, for the caller to publish. What JSON has no way to say is written as near as can be:
dates as text, what is no number (NaN) as null. Knows no layouts.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from studio.core.errors import DataError
from studio.worker.data.source import Cancelled, Progress, Stopped, never, quiet

_BATCH = 1000  # rows that are made columns at once


class RowWriter:
    """Writes one JSON object a line; `count` rows so far."""

    def __init__(self, path: Path) -> None:
        self.count = 0
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write(_line(row) + "\n")
        self.count += 1

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _line(row: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:  # NaN or infinity
        text = json.dumps(_without_nan(row), ensure_ascii=False, default=_plain)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: JSON can spell it, UTF-8 can't
        text = json.dumps(json.loads(text))
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise DataError(f"A column holds {type(value).__name__}, which can't be written as text.", "Leave that column out.")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_parquet(path: Path, progress: Progress = quiet, stopped: Stopped = never) -> Path:
    """Make `rows.jsonl` into `rows.parquet` beside it, which replaces it.

    The columns' types are joined over all rows first: a field that only some rows have is null in the others. Raises
    DataError where two rows have different types in one place, and jsonl is the way.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = path.with_suffix(".parquet")
    schema = pa.schema([])
    try:
        for batch in _batches(path, "Joining the columns' types", progress, stopped):
            # By itself pyarrow takes the columns from the first row, and leaves out what only others have.
            names = dict.fromkeys(name for row in batch for name in row)
            found = pa.table({name: pa.array([row.get(name) for row in batch]) for name in names}).schema
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        schema = _without_nothing(schema)
        with pq.ParquetWriter(target, schema, compression="zstd") as writer:
            for batch in _batches(path, "Writing parquet", progress, stopped):
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        target.unlink(missing_ok=True)
        raise DataError(
            f"These rows don't fit into parquet's columns ({' '.join(str(error).split())[:160]}).",
            "Save them as jsonl, which lets every row differ.",
        ) from None
    path.unlink()
    return target


def _batches(path: Path, text: str, progress: Progress, stopped: Stopped) -> Iterator[list[dict[str, Any]]]:
    done = 0
    with path.open(encoding="utf-8") as file:
        while lines := list(islice(file, _BATCH)):
            if stopped():
                raise Cancelled()
            yield [_columns(json.loads(line)) for line in lines]
            done += len(lines)
            progress(text, done, None)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    """Empty objects have no columns, which parquet can't say: they are null."""
    return {name: _filled(value) for name, value in row.items()}


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _filled(inner) for name, inner in value.items()} or None
    return [_filled(inner) for inner in value] if isinstance(value, list) else value


def _without_nothing(schema: Any) -> Any:
    """Columns that are null in every row become text: not every reader knows a column of no type."""
    import pyarrow as pa

    def typed(kind: Any) -> Any:
        if pa.types.is_null(kind):
            return pa.string()
        if pa.types.is_list(kind):
            return pa.list_(typed(kind.value_type))
        if pa.types.is_struct(kind):
            fields: list[Any] = [pa.field(field.name, typed(field.type)) for field in kind]
            return pa.struct(fields)
        return kind

    return pa.schema([pa.field(field.name, typed(field.type)) for field in schema])
