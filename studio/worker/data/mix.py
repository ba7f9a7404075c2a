"""Several datasets as one: joined one after the other, or drawn from by weights.

In: a DatasetInput with parts, and their Sources. Out: a Source. The order of a weighted mix is that of
`datasets.interleave_datasets` with seed 42, without its indices: one or two bytes a row, kept in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.core.rows import Line
from studio.worker.data.cache import key_of
from studio.worker.data.source import Passing, Progress, Source, Stopped, never, quiet

_SEED = 42
_DRAWS = 1000  # rows drawn at a time, as datasets does; a multiple of it draws the same
_BLOCK = 4096  # rows between two places at which it is kept how many of each part came before
_LARGEST = 10**9  # rows: beyond it a weight is so small that the mix was not meant


class MixSource(Source):
    """The rows of several sources. `line.part` says which one, `line.file` its name."""

    def __init__(self, dataset: DatasetInput, sources: Sequence[Source]) -> None:
        self.name, self.parts = dataset.name, list(dataset.parts)
        self.files = [path for source in sources for path in source.files]
        self._sources = list(sources)
        self._stopping, self._limit = dataset.stopping, dataset.limit
        weights = [part.weight for part in dataset.parts]
        given = [1.0 if weight is None else weight for weight in weights]
        self._shares = None if all(weight is None for weight in weights) else [w / sum(given) for w in given]
        self._order: _Order | None = None

    def part_sources(self) -> list[Source]:
        """The source of each part."""
        return self._sources

    @property
    def total(self) -> int | None:
        totals = [source.total for source in self._sources]
        if any(total is None for total in totals):
            return None
        known = [total for total in totals if total is not None]
        whole = sum(known) if self._stopping == "concatenate" else len(self._ordered(known).parts)
        return whole if self._limit is None else min(whole, self._limit)

    @property
    def indexed(self) -> bool:
        return all(source.indexed for source in self._sources)

    @property
    def bytes(self) -> int:
        return sum(source.bytes for source in self._sources)

    def scan(self, start: int = 0, passing: Passing | None = None) -> Iterator[Line | None]:
        if start and self.indexed:
            assert self.total is not None
            return self.rows(range(start, self.total))
        lines = islice(self._stream(), start, self._limit)
        return (replace(line, position=position) for position, line in enumerate(lines, start=start))

    def _stream(self) -> Iterator[Line]:
        if self._stopping == "concatenate":
            for number, source in enumerate(self._sources):
                for line in source.iterate():
                    yield self._labelled(line, number)
            return
        parts = [_Rounds(source) for source in self._sources]
        used: set[int] = set()
        for draw, number in enumerate(self._draws(), start=1):
            yield self._labelled(parts[number].take(), number)
            if parts[number].used_up:
                used.add(number)
            done = len(used) == len(parts) if self._stopping == "all_exhausted" else bool(used)
            # Without weights the parts take turns, and the turn is finished.
            if done and (self._shares is not None or draw % len(parts) == 0):
                return

    def _draws(self) -> Iterator[int]:
        if self._shares is None:
            yield from cycle(range(len(self._sources)))
            return
        generator = np.random.default_rng(_SEED)
        while True:
            yield from generator.choice(len(self._sources), size=_DRAWS, p=self._shares).tolist()

    def _labelled(self, line: Line, number: int) -> Line:
        label = self.parts[number].name
        return replace(line, part=number, file=f"{label}/{line.file}" if line.file else label)

    def rows(self, positions: Sequence[int]) -> Iterator[Line]:
        self.build_index()
        total, totals = self.total or 0, [source.total or 0 for source in self._sources]
        for start in range(0, len(positions), 256):
            wanted = [int(position) for position in positions[start : start + 256]]
            if any(not 0 <= position < total for position in wanted):
                raise IndexError(f"there are {total} rows in {self.name}")
            places = [self._place(position, totals) for position in wanted]
            lines = {
                number: self._sources[number].rows([local for part, local in places if part == number])
                for number in {part for part, _ in places}
            }
            for position, (number, _) in zip(wanted, places, strict=True):
                yield replace(self._labelled(next(lines[number]), number), position=position)

    def _place(self, position: int, totals: list[int]) -> tuple[int, int]:
        if self._stopping == "concatenate":
            number = 0
            while position >= totals[number]:
                position -= totals[number]
                number += 1
            return number, position
        number, drawn = self._ordered(totals).place(position)
        return number, drawn % totals[number]

    def _ordered(self, totals: list[int]) -> _Order:
        if self._order is None:
            path = self.cache / "mix.npy"
            try:
                parts = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError):
                parts = _save(path, draw_parts(totals, self._shares, self._stopping, self.parts))
            self._order = _Order(parts, len(totals))
        return self._order

    def build_index(self, progress: Progress = quiet, stopped: Stopped = never) -> None:
        for source in self._sources:
            if not source.indexed:
                source.build_index(progress, stopped)

    def fingerprint(self) -> str:
        inner = [source.fingerprint() for source in self._sources]
        return key_of(["mix", *inner, self._shares, self._stopping, self._limit])


class _Rounds:
    """The rows of a source, over and over. `used_up`: each was taken at least once."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines = source.iterate()
        self._next = next(self._lines, None)
        self.used_up = False
        if self._next is None:
            raise _empty(source.name)

    def take(self) -> Line:
        line = self._next
        assert line is not None
        self._next = next(self._lines, None)
        if self._next is None:
            self.used_up = True
            self._lines = self._source.iterate()
            self._next = next(self._lines)
        return line


class _Order:
    """Which part each row is from, and how many of that part came before it."""

    def __init__(self, parts: Any, count: int) -> None:
        self.parts = parts
        self._before = np.zeros((len(parts) // _BLOCK + 1, count), np.int64)
        for block in range(1, len(self._before)):
            drawn = np.bincount(parts[(block - 1) * _BLOCK : block * _BLOCK], minlength=count)
            self._before[block] = self._before[block - 1] + drawn

    def place(self, position: int) -> tuple[int, int]:
        block, number = position // _BLOCK, int(self.parts[position])
        inside = int(np.count_nonzero(self.parts[block * _BLOCK : position] == number))
        return number, int(self._before[block, number]) + inside


def draw_parts(totals: list[int], shares: list[float] | None, stopping: str, parts: Sequence[DatasetInput]) -> Any:
    """Which part each row of the mix is from, as `datasets.interleave_datasets` draws them."""
    kind = np.uint8 if len(totals) < 256 else np.uint16
    for total, part in zip(totals, parts, strict=True):
        if total == 0:
            raise _empty(part.name)
    every = stopping == "all_exhausted"
    if shares is None:
        return np.tile(np.arange(len(totals), dtype=kind), max(totals) if every else min(totals))
    needed = [total / share for total, share in zip(totals, shares, strict=True)]
    if (max(needed) if every else min(needed)) > _LARGEST:
        raise DataError("The weights of the mix would repeat rows a billion times.", "Choose weights nearer together.")
    generator, blocks, counts = np.random.default_rng(_SEED), [], np.zeros(len(totals), np.int64)
    while not (all if every else any)((counts >= totals).tolist()):
        block = generator.choice(len(totals), size=100 * _DRAWS, p=shares).astype(kind)
        blocks.append(block)
        counts += np.bincount(block, minlength=len(totals))
    drawn = np.concatenate(blocks)
    ends = []
    for number, total in enumerate(totals):
        if counts[number] >= total:
            ends.append(int(np.flatnonzero(drawn == number)[total - 1]))
    return drawn[: (max if every else min)(ends) + 1]


def _save(path: Path, parts: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with part.open("wb") as file:
        np.save(file, parts)
    part.replace(path)
    return parts


def _empty(name: str) -> DataError:
    return DataError(f"{name} has 0 rows, so it can't be a weighted part of a mix.", "Take it out of the mix.")
