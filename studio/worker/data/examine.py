"""One pass over all rows of a source, and what it finds: the same for the check and for the preparation of a run.

In: a Source, a Judge, what else to look for. Out: Examined: every problem with its rows, which rows are usable, which
are the same, how many tokens they have. Memory: some 30 bytes a row and nothing a token; whoever wants the tokens
takes each verdict as it passes (`sink`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.formats import Layout
from studio.worker.data.duplicates import NearDuplicates, first_of_equals
from studio.worker.data.judge import Judge, Verdict, told
from studio.worker.data.judging import judged, workers_for
from studio.worker.data.problems import Findings, Where
from studio.worker.data.source import Cancelled, Progress, Source, Stopped, layouts, never, quiet

Sink = Callable[[Verdict], None]

_EVERY = 200  # rows between two words of progress
_LOOKED_AT = 1000  # rows that may tell the layout
_STRATA = 10_000  # values of a column to split evenly by: with more it is no category
# What is found by comparing rows, and so only after the last one.
COMPARED = ("duplicate", "near_duplicate", "leak")


@dataclass
class Tokens:
    """Tokens of the usable rows: `total` and, of them, `loss` are within max_length, `lost` beyond; `longest` whole."""

    total: int = 0
    loss: int = 0
    longest: int = 0
    cut_rows: int = 0
    lost: int = 0


class Rows:
    """The usable rows, in order: their positions, their hashes, where they stand."""

    def __init__(self) -> None:
        self._positions, self._hashes, self._numbers = array("Q"), array("Q"), array("Q")
        self._file_of, self._files = array("I"), dict[tuple[int, str], int]()
        self._stratum_of, self._strata = array("I"), dict[str | None, int]()

    def add(self, found: Verdict) -> None:
        self._positions.append(found.position)
        self._hashes.append(found.digest)
        self._numbers.append(found.number)
        self._file_of.append(self._files.setdefault((found.part, found.file), len(self._files)))
        self._stratum_of.append(self._strata.setdefault(found.stratum, len(self._strata)))
        if len(self._strata) > _STRATA:
            raise DataError(
                f"The column to split evenly by has over {_STRATA:,} different values.",
                "Name one that holds categories as dataset.stratify_by.",
            )

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def positions(self) -> np.ndarray:
        return np.frombuffer(self._positions, np.uint64)

    @property
    def hashes(self) -> np.ndarray:
        return np.frombuffer(self._hashes, np.uint64)

    @property
    def strata(self) -> np.ndarray:
        """For each row a number that stands for its value of the column to split evenly by."""
        return np.frombuffer(self._stratum_of, np.uint32)

    @property
    def strata_seen(self) -> list[str | None]:
        return list(self._strata)

    def where(self, position: int) -> Where:
        row = int(np.searchsorted(self.positions, np.uint64(position)))
        file = list(self._files)[self._file_of[row]][1]
        return f"{file}:{self._numbers[row]}" if file else self._numbers[row]

    def is_another(self, first: np.ndarray) -> np.ndarray:
        """Whether a row and the first of its group are two: in a mix the same one may come round again."""
        numbers, files = np.frombuffer(self._numbers, np.uint64), np.frombuffer(self._file_of, np.uint32)
        different: np.ndarray = (numbers != numbers[first]) | (files != files[first])
        return different


@dataclass
class Examined:
    """What a pass found. `first` and `near`: for each usable row the index among them of the first one like it."""

    rows: int = 0
    bad: int = 0
    type: str = ""  # of the first usable row
    conversational: bool = False
    findings: Findings = field(default_factory=Findings)
    reasons: dict[str, str] = field(default_factory=dict)  # kind -> in words, of the first such row
    hint: str = ""
    usable: Rows = field(default_factory=Rows)
    tokens: Tokens = field(default_factory=Tokens)
    first: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    near: np.ndarray | None = None


def examine(
    source: Source,
    judge: Judge,
    *,
    limit: int | None = None,
    compare: tuple[str, ...] = COMPARED,
    validation: np.ndarray | None = None,
    sink: Sink | None = None,
    text: str = "Checking the rows",
    progress: Progress = quiet,
    stopped: Stopped = never,
) -> Examined:
    """Look at every row (the first `limit`). `compare`: which of COMPARED to find; `validation`: hashes, for leaks.

    Raises DataError, Cancelled.
    """
    found = Examined()
    with ExitStack() as stack:
        near = stack.enter_context(NearDuplicates(source.cache)) if judge.wanted.shingles else None
        lines = islice(source.iterate(), limit)
        total = source.total if limit is None else min(limit, source.total or limit)

        def look_up() -> None:
            if stopped():
                raise Cancelled
            progress(text, found.rows, total)

        verdicts = judged(lines, judge, workers_for(judge, source.bytes), look_up)
        stack.callback(verdicts.close)
        for verdict in verdicts:
            if found.rows % _EVERY == 0:
                look_up()
            _take(found, verdict)
            if not verdict.usable:
                continue
            if near is not None and verdict.shingles is not None:
                near.add(verdict.shingles)
            if sink is not None:
                sink(verdict)
        progress(text, found.rows, found.rows)
        found.first = first_of_equals(found.usable.hashes)
        if near is not None:
            found.near = near.groups(found.first, progress, stopped)
    masks = _compared(found, compare, validation)
    if masks and not source.indexed:
        source.build_index(progress, stopped)
    for kind, mask in masks.items():
        positions = found.usable.positions[mask]
        example = next((told(line.row) for line in source.rows([int(positions[0])])), "")
        found.findings.add_all(kind, positions, found.usable.where, example)
    return found


def layouts_of(section: DatasetSection, source: Source) -> list[Layout]:
    """The layout of each part; none where no row can be read that would tell it, so that its rows are counted as bad.

    Raises DataError where there are no rows, and where the rows leave the layout open.
    """
    try:
        return layouts(section, source)
    except DataError:
        lines = list(islice(source.iterate(), _LOOKED_AT))
        if not lines:
            raise no_rows(source) from None
        if any(isinstance(line.row, Mapping) for line in lines):
            raise
        return []


def no_rows(source: Source) -> DataError:
    return DataError(f"{source.name} has 0 rows.", "Give at least one row with named columns.")


def _take(found: Examined, verdict: Verdict) -> None:
    found.rows += 1
    for kind, value in verdict.problems:
        found.findings.add(kind, verdict.position, verdict.where, value)
    if not verdict.usable:
        found.bad += 1
        found.reasons.setdefault(verdict.problems[0][0], verdict.reason)
        found.hint = found.hint or verdict.hint
        return
    if not found.type:
        found.type, found.conversational = verdict.type, verdict.conversational
    found.usable.add(verdict)
    tokens = found.tokens
    tokens.total += verdict.length - verdict.lost
    tokens.loss += verdict.loss
    tokens.longest = max(tokens.longest, verdict.longest)
    tokens.cut_rows += verdict.lost > 0
    tokens.lost += verdict.lost


def _compared(found: Examined, kinds: tuple[str, ...], validation: np.ndarray | None) -> dict[str, np.ndarray]:
    """Which of the usable rows have each of these kinds of problems; only kinds that some have."""
    first, rows = found.first, np.arange(len(found.first))
    masks = {"duplicate": (first != rows) & found.usable.is_another(first)}
    if found.near is not None:
        masks["near_duplicate"] = (found.near != rows) & (first == rows)
    if validation is not None:
        masks["leak"] = np.isin(found.usable.hashes, validation)
    return {kind: mask for kind, mask in masks.items() if kind in kinds and mask.any()}
