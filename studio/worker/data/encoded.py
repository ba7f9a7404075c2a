"""Encoded rows on the disk: written as they come, read back through the memory map.

In: the verdicts on usable rows, with their tokens. Out: `datasets.Dataset`s of input_ids, labels and length, for any
choice of the rows. Memory: a batch, and 9 bytes a row. Without a folder (tests) everything stays in memory.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from studio.worker.data.judge import Verdict

SCHEMA = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int64())), ("length", pa.int32())])
_BATCH = 2**18  # tokens written at once
_IGNORED = -100  # what PyTorch's cross entropy leaves out


class EncodedRows:
    """A context: what was collected is gone afterwards, what was chosen stays."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._all = _Stream(folder / ".all.arrow" if folder else None)
        self._ids: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []
        self._waiting = 0
        self._lengths, self._loss = array("I"), array("I")
        self._lost = array("I")

    def __enter__(self) -> EncodedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.remove()

    def add(self, row: Verdict) -> None:
        """The next usable row."""
        assert row.ids is not None and row.carries is not None
        self._ids.append(row.ids)
        self._labels.append(np.where(row.carries, row.ids, _IGNORED).astype(np.int64))
        self._lengths.append(len(row.ids))
        self._loss.append(row.loss)
        self._lost.append(row.lost)
        self._waiting += len(row.ids)
        if self._waiting >= _BATCH:
            self._flush()

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of every row, within max_length."""
        return np.frombuffer(self._lengths, np.uint32)

    @property
    def loss(self) -> np.ndarray:
        """How many of them carry loss."""
        return np.frombuffer(self._loss, np.uint32)

    @property
    def lost(self) -> np.ndarray:
        """Tokens of every row beyond max_length."""
        return np.frombuffer(self._lost, np.uint32)

    def choose(self, rows: np.ndarray, name: str) -> Any:
        """A Dataset of the rows for which the mask `rows` holds, in order; it lies in <folder>/<name>.arrow."""
        self._flush()
        chosen = _Stream(self._folder / f"{name}.arrow" if self._folder else None)
        start = 0
        for batch in self._all.batches():
            mask = rows[start : start + batch.num_rows]
            start += batch.num_rows
            if mask.any():
                chosen.write(batch if mask.all() else batch.filter(pa.array(mask)))
        return chosen.dataset()

    def _flush(self) -> None:
        if not self._ids:
            return
        offsets = pa.array(np.cumsum([0, *map(len, self._ids)], dtype=np.int32))
        columns = [
            pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(rows))) for rows in (self._ids, self._labels)
        ]
        lengths = pa.array(np.diff(offsets.to_numpy()))
        self._all.write(pa.RecordBatch.from_arrays([*columns, lengths], schema=SCHEMA))
        self._ids, self._labels, self._waiting = [], [], 0


class _Stream:
    """An Arrow stream in a file, or in memory where there is no path. Written first, read once that is done."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._sink: Any = pa.OSFile(str(path), "wb") if path else pa.BufferOutputStream()
        self._writer = pa.ipc.new_stream(self._sink, SCHEMA)
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
