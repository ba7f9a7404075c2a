"""Encoded rows on the disk: written as they come, read back through the memory map.

In: the verdicts on usable rows, with their tokens, and the shape that a method wants. Out: `datasets.Dataset`s in that
shape's columns, for any choice of the rows. Memory: a batch, and 17 bytes a row. Without a folder (tests) everything
stays in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from studio.core.fitting import RowShape
from studio.worker.data.judge import Verdict

_IDS, _LENGTH = pa.list_(pa.int32()), ("length", pa.int32())
# The columns of each shape, by the names that TRL's trainers look for; `length` is that of the longest sequence.
SCHEMAS: dict[RowShape, pa.Schema] = {
    "tokens": pa.schema([("input_ids", _IDS), ("labels", pa.list_(pa.int64())), _LENGTH]),
    "pairs": pa.schema([("prompt_ids", _IDS), ("chosen_ids", _IDS), ("rejected_ids", _IDS), _LENGTH]),
    "scored": pa.schema([("prompt_ids", _IDS), ("chosen_ids", _IDS), ("rejected_ids", _IDS), _LENGTH]),
    "labelled": pa.schema([("prompt_ids", _IDS), ("completion_ids", _IDS), ("label", pa.bool_()), _LENGTH]),
    "prompts": pa.schema([("prompt_ids", _IDS), ("prompt", pa.string()), ("answer", pa.string()), _LENGTH]),
}
_BATCH = 2**18  # tokens written at once
_IGNORED = -100  # what PyTorch's cross entropy leaves out
Row = dict[str, Any]


def _tokens(row: Verdict) -> list[Row]:
    labels = np.where(row.carries[0], row.ids[0], _IGNORED).astype(np.int64)
    return [{"input_ids": row.ids[0], "labels": labels, "length": len(row.ids[0])}]


def _pairs(row: Verdict, whole: bool = False) -> list[Row]:
    (prompt, chosen), (_, rejected) = _split(row, whole)
    length = len(prompt) + max(len(chosen), len(rejected))
    return [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected, "length": length}]


def _scored(row: Verdict) -> list[Row]:
    return _pairs(row, whole=True)


def _labelled(row: Verdict) -> list[Row]:
    """One row, or two of a pair: the better answer is a good one, the worse a bad one."""
    labels = [row.label] if len(row.ids) == 1 else [True, False]
    return [
        {"prompt_ids": prompt, "completion_ids": answer, "label": label, "length": len(prompt) + len(answer)}
        for (prompt, answer), label in zip(_split(row), labels, strict=True)
    ]


def _prompts(row: Verdict) -> list[Row]:
    ids, (prompt, answer) = row.ids[0], row.words
    return [{"prompt_ids": ids, "prompt": prompt, "answer": answer, "length": len(ids)}]


def _split(row: Verdict, whole: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each answer's prompt and what the model is to write, from the first to the last token that carries loss.

    `whole`: with what a template writes behind it too.
    """
    found = []
    for ids, carries in zip(row.ids, row.carries, strict=True):
        places = np.flatnonzero(carries)
        found.append((ids[: places[0]], ids[places[0] : None if whole else places[-1] + 1]))
    return found


_ROWS: dict[RowShape, Callable[[Verdict], list[Row]]] = {
    "tokens": _tokens,
    "pairs": _pairs,
    "scored": _scored,
    "labelled": _labelled,
    "prompts": _prompts,
}


class EncodedRows:
    """A context: what was collected is gone afterwards, what was chosen stays."""

    def __init__(self, folder: Path | None, shape: RowShape = "tokens") -> None:
        self._folder, self._shape = folder, shape
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._all = _Stream(folder / ".all.arrow" if folder else None, SCHEMAS[shape])
        self._rows: list[Row] = []
        self._waiting = 0
        self._lengths, self._loss, self._longest = array("I"), array("I"), array("I")
        self._lost, self._each = array("I"), array("B")

    def __enter__(self) -> EncodedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.remove()

    def add(self, row: Verdict) -> None:
        """The next usable row."""
        assert row.ids
        rows, tokens = _ROWS[self._shape](row), sum(map(len, row.ids))
        self._rows += rows
        self._each.append(len(rows))
        self._lengths.append(tokens)
        self._longest.append(max(map(len, row.ids)))
        self._loss.append(row.loss)
        self._lost.append(row.lost)
        self._waiting += tokens
        if self._waiting >= _BATCH:
            self._flush()

    @property
    def each(self) -> np.ndarray:
        """How many rows every row of the dataset has become."""
        return np.frombuffer(self._each, np.uint8)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row, within max_length; of both answers, each with the prompt."""
        return np.frombuffer(self._lengths, np.uint32)

    @property
    def longest(self) -> np.ndarray:
        """Tokens of the longer of a row's answers with its prompt."""
        return np.frombuffer(self._longest, np.uint32)

    @property
    def loss(self) -> np.ndarray:
        """How many of them carry loss."""
        return np.frombuffer(self._loss, np.uint32)

    @property
    def lost(self) -> np.ndarray:
        """Tokens of every row beyond max_length."""
        return np.frombuffer(self._lost, np.uint32)

    def choose(self, rows: np.ndarray, name: str) -> Any:
        """A Dataset of the dataset's rows for which the mask `rows` holds, in order; in <folder>/<name>.arrow."""
        self._flush()
        rows = np.repeat(rows, self.each)
        chosen = _Stream(self._folder / f"{name}.arrow" if self._folder else None, SCHEMAS[self._shape])
        start = 0
        for batch in self._all.batches():
            mask = rows[start : start + batch.num_rows]
            start += batch.num_rows
            if mask.any():
                chosen.write(batch if mask.all() else batch.filter(pa.array(mask)))
        return chosen.dataset()

    def _flush(self) -> None:
        if self._rows:
            schema = SCHEMAS[self._shape]
            columns = [_column([row[field.name] for row in self._rows], field.type) for field in schema]
            self._all.write(pa.RecordBatch.from_arrays(columns, schema=schema))
            self._rows, self._waiting = [], 0


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        return pa.array(values, kind)
    offsets = pa.array(np.cumsum([0, *map(len, values)], dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(values), kind.value_type))


class _Stream:
    """An Arrow stream in a file, or in memory where there is no path. Written first, read once that is done."""

    def __init__(self, path: Path | None, schema: pa.Schema) -> None:
        self._path = path
        self._sink: Any = pa.OSFile(str(path), "wb") if path else pa.BufferOutputStream()
        self._writer = pa.ipc.new_stream(self._sink, schema)
        self._whole: Any = None

    def write(self, batch: Any) -> None:
        self._writer.write_batch(batch)

    def _finish(self) -> None:
        if self._whole is None:
            self._writer.close()
            self._whole = self._path if self._path else self._sink.getvalue()
            self._sink.close()

    def batches(self) -> Any:
        self._finish()
        # Read, not mapped: what is mapped and touched would count as this process's memory.
        source = pa.OSFile(str(self._path), "rb") if self._path else pa.BufferReader(self._whole)
        with source:
            yield from pa.ipc.open_stream(source)

    def dataset(self) -> Any:
        from datasets import Dataset

        self._finish()
        if self._path:
            return Dataset.from_file(str(self._path))
        return Dataset(pa.ipc.open_stream(pa.BufferReader(self._whole)).read_all())

    def remove(self) -> None:
        self._finish()
        if self._path:
            self._path.unlink(missing_ok=True)
