"""Rows of any dataset: in their order, a page of them, or single ones, each as a Line.

In: a DatasetInput. Out: a Source. Its index and unpacked copies are kept in the cache; the data itself is only read.
Knows no layouts but through core.formats, and nothing of tokens.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.core.config import DatasetSection
from studio.core.errors import DataError, StudioError
from studio.core.inputs import DatasetInput
from studio.core.rows import Line
from studio.worker.data.cache import cache_root, file_key, key_of
from studio.worker.data.files import FileRows, find_files, open_file

if TYPE_CHECKING:
    from studio.core.formats import Layout

Progress = Callable[[str, "int | None", "int | None"], None]
Stopped = Callable[[], bool]
Passing = Callable[[bytes], bool]
_AT_HAND = 0.5  # seconds that a page without an index may take


class Cancelled(StudioError):
    """A pass over the rows was stopped before its end."""

    def __init__(self, message: str = "It was stopped.", hint: str = "Start it again when you like.") -> None:
        super().__init__(message, hint)


def quiet(text: str, done: int | None, total: int | None) -> None:
    """Progress that nobody looks at."""


def reporting(part: Callable[[dict[str, Any]], None]) -> Progress:
    """Progress as parts of an answer on the data worker's pipe. What `part` raises ends the pass."""
    return lambda text, done, total: part({"text": text, "done": done, "total": total})


def never() -> bool:
    """A pass that nobody stops."""
    return False


class Source(ABC):
    """Rows in a fixed order. Positions count from 0; blank lines have none, unreadable rows have one."""

    name: str
    parts: list[DatasetInput]  # one, unless it is a mix
    files: list[Path]

    @property
    @abstractmethod
    def total(self) -> int | None:
        """The number of rows; None until it is known."""

    @property
    @abstractmethod
    def indexed(self) -> bool:
        """Whether any page is at hand."""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """The size of its files."""

    @abstractmethod
    def scan(self, start: int = 0, passing: Passing | None = None) -> Iterator[Line | None]:
        """As `iterate`; None for rows that `passing` tells by their bytes alone to be of no interest."""

    def iterate(self, start: int = 0) -> Iterator[Line]:
        """Every row from `start` on, streamed: bounded memory, and no index but for the later start's sake."""
        return (line for line in self.scan(start) if line is not None)

    @abstractmethod
    def rows(self, positions: Sequence[int]) -> Iterator[Line]:
        """Single rows, in the order asked for. Builds the index where there is none. IndexError beyond the end."""

    @abstractmethod
    def build_index(self, progress: Progress = quiet, stopped: Stopped = never) -> None:
        """Make any page reachable. Raises Cancelled."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Names caches: another one once a file's path, size or time has changed. Reads no contents."""

    def part_sources(self) -> list[Source]:
        """The source of each part."""
        return [self]

    def first(self, count: int) -> list[Line]:
        """The first rows, at once: of what lies elsewhere it may be fewer, but nothing is fetched for them."""
        return list(islice(self.iterate(), count))

    def page(self, start: int, size: int) -> list[Line]:
        """Up to `size` rows from `start`; without an index only what can be reached in time."""
        start = max(start, 0)
        if self.indexed:
            return list(islice(self.iterate(start), size))
        return _in_time(self.iterate(), start, size)

    def sha256(self, progress: Progress = quiet) -> str:
        """The hash of the contents of all files, in their order."""
        digest, done = hashlib.sha256(), 0
        for path in self.files:
            with path.open("rb") as file:
                while block := file.read(2**22):
                    digest.update(block)
                    done += len(block)
                    progress("Hashing", done, self.bytes)
        return digest.hexdigest()

    @property
    def cache(self) -> Path:
        """The folder of what was computed from exactly these files: $STUDIO_HOME/cache/data/<fingerprint>."""
        return cache_root() / self.fingerprint()


class FilesSource(Source):
    """The rows of one or several files, one file after the other."""

    def __init__(self, dataset: DatasetInput, paths: Sequence[Path]) -> None:
        self.name, self.parts, self.files = dataset.name, [dataset], list(paths)
        self._limit = dataset.limit
        self.revision: str | None = None  # the hub's commit, where the rows are from there
        self._opened: dict[int, FileRows] = {}
        names = _names(paths)
        self._labels = names if len(names) > 1 else [""]

    def _file(self, number: int) -> FileRows:
        if number not in self._opened:
            self._opened[number] = open_file(self.files[number])
        return self._opened[number]

    def _starts(self) -> list[int] | None:
        """The position that each file begins at, then the end; None where a file's rows aren't counted yet."""
        totals = [self._file(number).total for number in range(len(self.files))]
        return None if None in totals else [0, *accumulate(total for total in totals if total is not None)]

    @property
    def total(self) -> int | None:
        starts = self._starts()
        if starts is None:
            return None
        return starts[-1] if self._limit is None else min(self._limit, starts[-1])

    @property
    def indexed(self) -> bool:
        return all(self._file(number).indexed for number in range(len(self.files)))

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    def scan(self, start: int = 0, passing: Passing | None = None) -> Iterator[Line | None]:
        end = self._limit
        lines = self._from(start, passing)
        return lines if end is None else islice(lines, max(end - start, 0))

    def _from(self, start: int, passing: Passing | None) -> Iterator[Line | None]:
        starts = self._starts() if start else None
        first = max(bisect_right(starts, start) - 1, 0) if starts is not None else 0
        position = starts[first] if starts is not None else 0
        for number in range(first, len(self.files)):
            skip = start - position if starts is not None and number == first else 0
            position += skip
            for line in self._file(number).scan(skip, passing):
                if position >= start:
                    yield None if line is None else self._placed(line, number, position)
                position += 1

    def _placed(self, line: Line, number: int, position: int) -> Line:
        label = self._labels[number] if len(self._labels) > 1 else ""
        if not label and line.position == position:
            return line
        return replace(line, file=label, position=position)

    def rows(self, positions: Sequence[int]) -> Iterator[Line]:
        self.build_index()
        starts = self._starts()
        assert starts is not None
        total = starts[-1] if self._limit is None else min(self._limit, starts[-1])
        at = 0
        while at < len(positions):
            if not 0 <= positions[at] < total:
                raise IndexError(f"there is no row {positions[at]} in {self.name}")
            number = bisect_right(starts, positions[at]) - 1
            end = at
            while end < len(positions) and starts[number] <= positions[end] < min(starts[number + 1], total):
                end += 1
            local = [int(position) - starts[number] for position in positions[at:end]]
            for line in self._file(number).at(local):
                yield self._placed(line, number, line.position + starts[number])
            at = end

    def build_index(self, progress: Progress = quiet, stopped: Stopped = never) -> None:
        done, size = 0, self.bytes
        for number, path in enumerate(self.files):
            before = done

            def tick(reached: int, before: int = before, path: Path = path) -> None:
                if stopped():
                    raise Cancelled
                progress(f"Counting rows of {path.name}", before + reached, size)

            if not self._file(number).indexed:
                self._file(number).build(tick)
            done += path.stat().st_size
        progress("Counting rows", size, size)

    def fingerprint(self) -> str:
        return key_of([*self._states(), self._limit, self.revision])

    def _states(self) -> list[str]:
        try:
            return [file_key(path) for path in self.files]
        except OSError:
            raise _gone(self.name, self.files) from None


def open_source(dataset: DatasetInput) -> Source:
    """The rows of a dataset. Raises DataError where it as a whole can't be read."""
    if dataset.kind == "mix":
        from studio.worker.data.mix import MixSource

        return MixSource(dataset, [open_source(part) for part in dataset.parts])
    if dataset.kind == "hub":
        from studio.worker.data.hub import HubSource

        return HubSource(dataset)
    source = FilesSource(dataset, find_files(Path(dataset.path), dataset.split))
    if len(source.files) == 1:
        source._file(0)  # what can't be read as a whole is told at once
    return source


def layouts(section: DatasetSection, source: Source) -> list[Layout]:
    """The layout of each part of a source; `layouts[line.part]` is that of a line. Raises DataError."""
    from studio.core.formats import choose_layout

    chosen = []
    for part, dataset in zip(source.part_sources(), source.parts, strict=True):
        first = next((line.row for line in part.first(1000) if not line.problem), None)
        chosen.append(choose_layout(section, dataset, first))
    return chosen


def _names(paths: Sequence[Path]) -> list[str]:
    """File names, with as many of their folders as tell them apart."""
    names = [path.name for path in paths]
    deep = 1
    while len(set(names)) < len(names) and deep < max(len(path.parts) for path in paths):
        deep += 1
        names = ["/".join(path.parts[-deep:]) for path in paths]
    return names


def _gone(name: str, files: Sequence[Path]) -> DataError:
    return DataError(f"The files of {name} are gone ({files[0]}).", "Put them back, or choose another dataset.")


def _in_time(lines: Iterator[Line], start: int, size: int) -> list[Line]:
    import time

    until, found = time.monotonic() + _AT_HAND, []
    for line in lines:
        if line.position >= start:
            found.append(line)
        if len(found) >= size or (line.position % 64 == 0 and time.monotonic() > until):
            break
    return found
