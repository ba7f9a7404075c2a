"""Which rows are learnt from, which validate, which are set aside for testing.

In: the config's wishes and what a pass over the rows found. Out: a part for every row; the positions of each part as a
file beside the run, by which an evaluation finds its test rows, or as files of rows in a new folder. How rows are
shared out is `partition`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.config import DatasetSection
from studio.core.errors import ConfigError, DataError
from studio.core.inputs import DatasetInput
from studio.core.schedule import Split, split_sizes
from studio.worker.data.examine import COMPARED, Examined, examine, layouts_of
from studio.worker.data.exclusion import NEED_MODEL, excluded, excluded_kinds, told_excluded
from studio.worker.data.judge import Judge, Wanted
from studio.worker.data.newfolder import published
from studio.worker.data.partition import NAMES, share_out
from studio.worker.data.rowfile import RowWriter, to_parquet
from studio.worker.data.source import Cancelled, Progress, Source, Stopped, never, open_source, quiet, reporting

FILE = "split.npz"  # beside a run: the positions of each part


@dataclass(frozen=True)
class Membership:
    """The part of every usable row, in order, and where they stand in the dataset."""

    positions: np.ndarray  # uint64
    part: np.ndarray  # uint8

    def of(self, part: int) -> np.ndarray:
        """The positions of a part's rows."""
        chosen: np.ndarray = self.positions[self.part == part]
        return chosen

    @property
    def sizes(self) -> Split:
        return Split(*(int(np.count_nonzero(self.part == part)) for part in range(len(NAMES))))

    def save(self, folder: Path) -> None:
        """Write split.npz: one array of positions (uint64) for each of NAMES."""
        temporary = folder / f".{FILE}.tmp.npz"
        parts: dict[str, Any] = {name: self.of(part) for part, name in enumerate(NAMES)}
        np.savez_compressed(temporary, **parts)
        temporary.replace(folder / FILE)


def read_split(folder: Path) -> dict[str, np.ndarray] | None:
    """The positions of each part of a run's rows, by name; None where the run has no split on record."""
    path = folder / FILE
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        return {name: arrays[name] for name in NAMES}


def wanted_sizes(section: DatasetSection, rows: int) -> Split:
    """How many rows each part should have. Raises DataError where more are asked for than there are."""
    for name in ("validation_split", "test_split"):
        part = getattr(section, name)
        if part >= 1 and part >= rows and not (name == "validation_split" and section.validation_path):
            raise DataError(
                f"dataset.{name} asks for {int(part):,} rows, but only {rows:,} can be used.",
                "Lower it; a number below 1 is a share.",
            )
    sizes = split_sizes(section, rows)
    if not sizes.train:
        raise DataError(f"Of {rows} usable rows none is left to train on.", "Hold out fewer rows, or add some.")
    return sizes


def split(section: DatasetSection, found: Examined, used: np.ndarray, seed: int) -> Membership:
    """The part of each of the rows that are used. Raises DataError."""
    sizes = wanted_sizes(section, int(used.sum()))
    if section.stratify_by is not None and set(found.usable.strata_seen) <= {None}:
        raise DataError(
            f"No row has the column {section.stratify_by}, by which to split evenly.", "Name one of the columns."
        )
    groups = np.arange(len(used))
    if section.group_duplicates != "off":
        groups = found.first if section.group_duplicates == "exact" or found.near is None else found.near
    part = share_out(sizes, groups[used], found.usable.strata[used], seed)
    return Membership(found.usable.positions[used].copy(), part)


def split_files(
    source: Source,
    section: DatasetSection,
    *,
    seed: int,
    out: Path,
    format: str = "jsonl",
    tokenizer: Any = None,
    max_length: int = 1024,
    progress: Progress = quiet,
    stopped: Stopped = never,
) -> dict[str, Any]:
    """Write the rows of each part, as they are, to a file of its own in the new folder `out`.

    Rows that can't be used, and those that the section leaves out, are left out and counted. Raises ConfigError,
    DataError, TargetError where `out` is there already, Cancelled.
    """
    kinds = excluded_kinds(section)
    for kind in kinds:
        if kind in NEED_MODEL and tokenizer is None:
            raise ConfigError("dataset.exclude", f"{kind} is told only under a model.", "Name one, or take that out.")
    near = "near_duplicate" in kinds or section.group_duplicates == "near"
    wanted = Wanted(section.system_prompt, max_length, tuple(kinds), shingles=near, stratum=section.stratify_by)
    compare = tuple(kind for kind in COMPARED if kind in kinds)
    judge = Judge(layouts_of(section, source), _encoder(tokenizer, section), wanted)
    with published(out) as staging:
        found = examine(source, judge, limit=section.max_samples, compare=compare, progress=progress, stopped=stopped)
        used = ~excluded(found, section, kinds)
        membership = split(section, found, used, seed)
        with ExitStack() as stack:
            paths = [staging / name / "rows.jsonl" for name, size in zip(NAMES, membership.sizes, strict=True) if size]
            for path in paths:
                path.parent.mkdir()
            files = {path.parent.name: stack.enter_context(RowWriter(path)) for path in paths}
            _write(source, membership, files, progress, stopped)
        for path in paths:
            written = to_parquet(path, progress, stopped) if format == "parquet" else path
            written.replace(staging / f"{path.parent.name}{written.suffix}")
            path.parent.rmdir()
    told: dict[str, Any] = {name: {"path": None, "rows": 0} for name in NAMES}
    for name, rows in files.items():
        told[name] = {"path": str(out / f"{name}.{format}"), "rows": rows.count}
    excluding = told_excluded(found, section, kinds)
    return {**told, "unusable": found.bad, "excluded": {kind: entry["count"] for kind, entry in excluding.items()}}


def _encoder(tokenizer: Any, section: DatasetSection) -> Any:
    if tokenizer is None:
        return None
    from studio.worker.encode import Encoder

    return Encoder(tokenizer, section.train_on)


def _write(
    source: Source, membership: Membership, files: dict[str, RowWriter], progress: Progress, stopped: Stopped
) -> None:
    """One more pass: each row that has a part goes to its file."""
    next_ = 0
    for line in source.iterate():
        if next_ == len(membership.positions):
            return
        if line.position != membership.positions[next_]:
            continue
        if next_ % 1000 == 0:
            if stopped():
                raise Cancelled
            progress("Writing the rows", next_, len(membership.positions))
        files[NAMES[membership.part[next_]]].write(line.row)
        next_ += 1


def split_op(request: dict[str, Any], part: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Answers as `split_files`.

    Fields of the request: `dataset`, `section`, `seed`, `out` (a new folder), `format`; `model` and `max_length` where
    rows are left out for what only a model tells.
    """
    from studio.worker.data.check import tokenizer_of

    report = reporting(part)
    return split_files(
        open_source(DatasetInput.from_dict(request["dataset"])),
        DatasetSection(**request["section"]),
        seed=int(request.get("seed", 42)),
        out=Path(request["out"]),
        format=request.get("format") or "jsonl",
        tokenizer=tokenizer_of(request.get("model"), report),
        max_length=int(request.get("max_length") or 1024),
        progress=report,
    )
