"""A dataset, read, encoded and split: what goes into the trainer, and the count of everything that doesn't.

In: a DatasetInput, the config's dataset section, an Encoder. Out: `datasets.Dataset`s of input_ids and labels, and a
DataReport. No row is dropped, cut or masked without being counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.formats import FORMATS, Example, Format, RowProblem, recognise, to_example
from studio.core.inputs import DatasetInput
from studio.core.rows import Line, read_rows
from studio.core.schedule import split_sizes
from studio.worker.encode import Encoded, Encoder

Progress = Callable[[int], None]


@dataclass
class DataReport:
    """What became of the rows. `unusable` maps a reason to its count and first line numbers."""

    format: str = ""
    sha256: str = ""
    rows: int = 0
    usable: int = 0
    train: int = 0
    validation: int = 0
    test: int = 0
    cut: int = 0
    tokens_lost: int = 0
    without_loss: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    longest: int = 0
    unusable: dict[str, dict[str, Any]] = field(default_factory=dict)

    def leave_out(self, line: int, reason: str) -> None:
        entry = self.unusable.setdefault(reason, {"count": 0, "lines": []})
        entry["count"] += 1
        if len(entry["lines"]) < 5:
            entry["lines"].append(line)

    def notes(self, max_length: int) -> Iterator[str]:
        """A sentence for everything that a person should know."""
        for reason, entry in self.unusable.items():
            lines = ", ".join(map(str, entry["lines"]))
            yield f"{entry['count']} rows were left out: {reason} (line {lines}{'…' if entry['count'] > 5 else ''})."
        if self.cut:
            yield f"{self.cut} rows have over {max_length} tokens and were cut; {self.tokens_lost} tokens are lost."
        if self.without_loss:
            yield f"{self.without_loss} rows were left out: their question fills all {max_length} tokens."


@dataclass
class Prepared:
    """The rows to train on and to validate on (None: no split), as `input_ids` and `labels`."""

    train: Any
    validation: Any | None
    report: DataReport


def open_rows(dataset: DatasetInput) -> Iterator[Line]:
    """Every row of the dataset's file. Raises DataError."""
    path = _file(dataset)
    return _parquet_rows(path) if path.suffix.lower() == ".parquet" else read_rows(path)


def _file(dataset: DatasetInput) -> Path:
    path = Path(dataset.path)
    if not path.is_file():
        raise DataError(f"The dataset's file {path} is gone.", "Put it back, or choose another dataset.")
    return path


def choose_format(section: DatasetSection, dataset: DatasetInput, first: Any) -> tuple[Format, dict[str, str]]:
    """The layout and column mapping: the run's own choice, the dataset's, or what the first row's columns say."""
    columns = section.columns or dataset.columns
    name = section.format if section.format != "auto" else dataset.format
    if name != "auto":
        return FORMATS[name], columns
    if not isinstance(first, dict):
        raise DataError("The first row is not an object with named columns.", "Give one JSON object a line.", 1)
    return recognise(list(first), columns), columns


def examples(section: DatasetSection, dataset: DatasetInput, report: DataReport) -> Iterator[tuple[int, Example]]:
    """Line number and Example of every usable row; the others are counted in `report`."""
    layout: tuple[Format, dict[str, str]] | None = None
    for line in islice(open_rows(dataset), section.max_samples):
        report.rows += 1
        if line.problem:
            report.leave_out(line.number, line.problem)
            continue
        layout = layout or choose_format(section, dataset, line.row)
        report.format = layout[0].name
        try:
            yield line.number, to_example(line.row, *layout, section.system_prompt)
        except RowProblem as problem:
            report.leave_out(line.number, str(problem))


def prepare(
    section: DatasetSection, dataset: DatasetInput, encoder: Encoder, *, max_length: int, seed: int, progress: Progress
) -> Prepared:
    """Read, encode, cut and split a dataset. Raises DataError when no row is left to train on."""
    report = DataReport(sha256=_sha256(_file(dataset)))
    rows: list[Encoded] = []
    for _, example in examples(section, dataset, report):
        whole = encoder.encode(example)
        row = whole.cut(max_length)
        if len(row.ids) < len(whole.ids):
            report.cut += 1
            report.tokens_lost += len(whole.ids) - len(row.ids)
        # The first token is never predicted, so loss on it alone teaches nothing.
        if not any(row.loss[1:]):
            report.without_loss += 1
            continue
        rows.append(row)
        progress(report.rows)
    report.usable = len(rows)
    if not rows:
        why = "".join(f" Line {entry['lines'][0]}: {reason}." for reason, entry in islice(report.unusable.items(), 1))
        if report.without_loss:
            why += f" The question fills all {max_length} tokens (training.max_length) in {report.without_loss} rows."
        raise DataError(f"The dataset has 0 usable rows of {report.rows}.{why}", "Look at it in the Data tab.")
    return _split(rows, section, seed, report)


def _split(rows: list[Encoded], section: DatasetSection, seed: int, report: DataReport) -> Prepared:
    order = np.random.default_rng(seed).permutation(len(rows))
    _, validation, test = split_sizes(section, len(rows))
    held, tested = set(order[:validation].tolist()), set(order[validation : validation + test].tolist())
    kept = [row for i, row in enumerate(rows) if i not in held and i not in tested]
    if not kept:
        raise DataError(
            f"Of {len(rows)} usable rows none is left to train on.",
            "Lower dataset.validation_split, or add rows.",
        )
    report.train, report.validation, report.test = len(kept), validation, test
    report.tokens = sum(len(row.ids) for row in kept)
    report.loss_tokens = sum(sum(row.loss) for row in kept)
    report.longest = max(len(row.ids) for row in rows)
    return Prepared(_dataset(kept), _dataset([rows[i] for i in sorted(held)]) if held else None, report)


def _dataset(rows: list[Encoded]) -> Any:
    """Arrow columns of 32- and 64-bit lists: 12 bytes a token, where Python's lists would take over 40."""
    from datasets import Dataset

    offsets = np.cumsum([0, *(len(row.ids) for row in rows)], dtype=np.int32)
    ids = np.fromiter((token for row in rows for token in row.ids), np.int32, int(offsets[-1]))
    labels = np.fromiter((label for row in rows for label in row.labels), np.int64, int(offsets[-1]))
    columns = [pa.ListArray.from_arrays(pa.array(offsets), pa.array(values)) for values in (ids, labels)]
    lengths = pa.array(np.diff(offsets))
    return Dataset(pa.table({"input_ids": columns[0], "labels": columns[1], "length": lengths}))


def _parquet_rows(path: Path) -> Iterator[Line]:
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} can't be read as parquet ({error}).", "Save it again, or give jsonl.") from None
    number = 0
    for batch in file.iter_batches(batch_size=256):
        for row in batch.to_pylist():
            number += 1
            yield Line(number, row)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def check_same_data(folder: Path, report: DataReport) -> None:
    """Keep the report beside the run; a resumed run must find the data it began with. Raises DataError."""
    path = folder / "data.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        now = asdict(report)
        names = ("sha256", "format", "train", "validation", "tokens")
        differing = [name for name in names if before.get(name) != now[name]]
        if differing:
            what = "; ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in differing)
            raise DataError(
                f"The dataset has changed since this run began ({what}).", "Put it back as it was, or start a new run."
            )
        return
    path.write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1), encoding="utf-8")
