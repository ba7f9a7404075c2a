"""Rows that stand there twice, the same or nearly.

In: the hash of every usable row (exact) and its shingles (near), in order. Out: for each row the first one of its
group. Near means a Jaccard similarity of shingles of at least 0.8: MinHash (Broder 1997) and banding find candidates,
each of which is then compared in full, so that there are no false ones. datasketch computes the MinHashes; its LSH
keeps a Python object a row and band, so the banding is done by sorting here. Shingles and bands lie on the disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from studio.core.errors import DataError
from studio.worker.data.source import Cancelled, Progress, Stopped, never, quiet

THRESHOLD = 0.8  # Jaccard
# 1 - (1 - 0.8^6)^21 = 99.8 % of the pairs at the threshold share a band; of pairs at 0.5, which cost time, 28 %.
_BANDS, _PER_BAND = 21, 6
_BATCH = 512  # rows
_SPEAKERS = 8  # members of a bucket that the others are compared with


def first_of_equals(hashes: np.ndarray) -> np.ndarray:
    """For each row the index of the first row that has the same hash (int64); its own where it is the first."""
    if not len(hashes):
        return np.empty(0, np.int64)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    leaders: np.ndarray = first[inverse]
    return leaders


class NearDuplicates:
    """Collects shingles, then groups rows. A context: its files are gone afterwards."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".near-", dir=folder))
        self._file = (self._folder / "shingles").open("wb")
        self._ends = array("Q", [0])

    def __enter__(self) -> NearDuplicates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what is still to be written has no room
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, shingles: np.ndarray) -> None:
        """The next row's shingles: uint32, ascending, once each. Raises DataError when the disk is full."""
        with _room():
            self._file.write(shingles.tobytes())
        self._ends.append(self._ends[-1] + len(shingles))

    def groups(self, first: np.ndarray, progress: Progress = quiet, stopped: Stopped = never) -> np.ndarray:
        """For each row the index of the first row of its group (int64), where `first` says which rows are equal.

        Rows without a word are like no other. Raises DataError when the disk is full, Cancelled.
        """
        with _room():
            self._file.flush()
        if self._ends[-1] == 0:
            alone: np.ndarray = first.copy()
            return alone
        shingles: np.ndarray = np.memmap(self._folder / "shingles", np.uint32, "r")
        ends = np.frombuffer(self._ends, np.uint64)
        rows = np.flatnonzero((first == np.arange(len(first))) & (np.diff(ends) > 0))
        keys = self._band_keys(rows, shingles, ends, progress, stopped)
        merged = _Merger(np.asarray(shingles), self._ends)
        for band in range(_BANDS):
            if stopped():
                raise Cancelled
            progress("Comparing like rows", band, _BANDS)
            for bucket in _buckets(keys[band], rows):
                merged.add_bucket(bucket)
        leaders: np.ndarray = merged.leaders(len(first))[first]
        return leaders

    def _band_keys(
        self, rows: np.ndarray, shingles: np.ndarray, ends: np.ndarray, progress: Progress, stopped: Stopped
    ) -> np.ndarray:
        """(bands, rows) of uint64: rows with the same key in a band may be alike."""
        from datasketch import MinHash

        with _room():
            _reserve(self._folder / "bands", 8 * _BANDS * max(1, len(rows)))
        keys: np.ndarray = np.memmap(self._folder / "bands", np.uint64, "r+", shape=(_BANDS, max(1, len(rows))))
        mix = np.random.default_rng(0).integers(0, 2**63, _PER_BAND, np.uint64) * np.uint64(2) + np.uint64(1)
        for start in range(0, len(rows), _BATCH):
            if stopped():
                raise Cancelled
            progress("Looking for like rows", start, len(rows))
            batch = rows[start : start + _BATCH]
            sets = (shingles[ends[row] : ends[row + 1]].tolist() for row in batch)
            signatures = MinHash.generator(sets, num_perm=_BANDS * _PER_BAND, seed=1, hashfunc=int)
            values = np.stack([signature.hashvalues for signature in signatures]).astype(np.uint64)
            keys[:, start : start + len(batch)] = (values.reshape(-1, _BANDS, _PER_BAND) * mix).sum(axis=2).T
        found: np.ndarray = keys[:, : len(rows)]
        return found


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"There is no room on the disk to look for near duplicates ({error.strerror}).",
            "Free some, or leave them out of the check.",
        ) from None


def _reserve(path: Path, size: int) -> None:
    """A file of this size, with room for it: a hole in a mapped file would end the process where the disk is full."""
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def _buckets(keys: np.ndarray, rows: np.ndarray) -> Iterator[list[int]]:
    """Rows, ascending, of every key that several have."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    bounds = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1], [True])))
    several = np.flatnonzero(np.diff(bounds) > 1)
    for start, end in zip(bounds[several].tolist(), bounds[several + 1].tolist(), strict=True):
        yield rows[order[start:end]].tolist()


class _Merger:
    """Joins rows whose shingles are alike into groups."""

    def __init__(self, shingles: np.ndarray, ends: Sequence[int]) -> None:
        self._shingles, self._ends = shingles, ends
        self._parent: dict[int, int] = {}
        self._unlike: set[tuple[int, int]] = set()

    def add_bucket(self, rows: list[int]) -> None:
        """Each is compared with the first, and with a few more of those that are unlike it."""
        speakers = rows[:1]
        for row in rows[1:]:
            if any(self._join(speaker, row) for speaker in speakers):
                continue
            if len(speakers) < _SPEAKERS:
                speakers.append(row)

    def leaders(self, count: int) -> np.ndarray:
        leaders = np.arange(count)
        for row in self._parent:
            leaders[row] = self._leader(row)
        return leaders

    def _join(self, one: int, other: int) -> bool:
        first, second = self._leader(one), self._leader(other)
        if first == second:
            return True
        if (one, other) in self._unlike:
            return False
        if not self._alike(one, other):
            if len(self._unlike) < 2**20:
                self._unlike.add((one, other))
            return False
        self._parent[max(first, second)] = min(first, second)
        return True

    def _leader(self, row: int) -> int:
        while (parent := self._parent.get(row, row)) != row:
            self._parent[row] = self._parent.get(parent, parent)
            row = parent
        return row

    def _alike(self, one: int, other: int) -> bool:
        first, second = (self._shingles[self._ends[row] : self._ends[row + 1]] for row in (one, other))
        if min(len(first), len(second)) < THRESHOLD * max(len(first), len(second)):
            return False
        # Both are ascending: three times as fast as numpy's intersection, which sorts.
        shared = np.count_nonzero(first.take(np.searchsorted(first, second), mode="clip") == second)
        return bool(shared >= THRESHOLD * (len(first) + len(second) - shared))
