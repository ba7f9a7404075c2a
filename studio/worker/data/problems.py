"""What is wrong with rows, counted: by kind, with the first line numbers and an example of each.

In: findings, one at a time or as arrays of positions. Out: the list that the check prints, and one file of positions
a kind, by which a preview filters. Takes 8 bytes a finding. Knows neither rows nor how a problem is found.
"""

from __future__ import annotations

import os
import shutil
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.problems import PROBLEMS

SHOWN = 10  # line numbers and positions that are told of each kind
TOLD = 5  # line numbers in a run's report
LONGEST_EXAMPLE = 200  # characters of a value at fault

Where = int | str


def shorten(value: str) -> str:
    """What is told of a value: at most 200 characters, on one line."""
    line = " ".join(value[: 4 * LONGEST_EXAMPLE].split())
    return line if len(line) <= LONGEST_EXAMPLE else line[: LONGEST_EXAMPLE - 1] + "…"


class Findings:
    """Positions of the rows that have each kind of problem."""

    def __init__(self) -> None:
        self._positions: dict[str, array[int]] = {}
        self._where: dict[str, list[Where]] = {}
        self._example: dict[str, str] = {}

    def add(self, kind: str, position: int, where: Where, value: str) -> None:
        """One row has a problem of this kind; `value` is what is at fault."""
        assert kind in PROBLEMS, kind
        if kind not in self._positions:
            self._positions[kind], self._where[kind] = array("Q"), []
            self._example[kind] = shorten(value)
        self._positions[kind].append(position)
        if len(self._where[kind]) < SHOWN:
            self._where[kind].append(where)

    def add_all(self, kind: str, positions: np.ndarray, where: Callable[[int], Where], example: str) -> None:
        """Many rows, by their ascending positions, have a problem of a kind that was not found before."""
        assert kind in PROBLEMS and kind not in self._positions, kind
        if len(positions):
            self._positions[kind] = array("Q", positions.astype(np.uint64).tobytes())
            self._where[kind] = [where(int(position)) for position in positions[:SHOWN]]
            self._example[kind] = shorten(example)

    def kinds(self) -> list[str]:
        """The kinds that were found: errors first, then in the order of the table of all kinds."""
        return [kind for kind in PROBLEMS if kind in self._positions]

    def count(self, kind: str) -> int:
        return len(self._positions.get(kind, ()))

    def where(self, kind: str) -> list[Where]:
        """The first line numbers."""
        return self._where.get(kind, [])

    def told(self, kind: str) -> dict[str, Any]:
        """How often it was found and the first line numbers, for a run's report."""
        return {"count": self.count(kind), "lines": self.where(kind)[:TOLD]}

    def example(self, kind: str) -> str:
        return self._example.get(kind, "")

    def positions(self, kind: str) -> np.ndarray:
        """All of them, ascending, as uint64."""
        found: np.ndarray = np.frombuffer(self._positions.get(kind) or array("Q"), np.uint64).copy()
        return found

    def union(self, kinds: Iterable[str]) -> np.ndarray:
        """The rows that have a problem of any of these kinds, ascending and once each."""
        found = [self.positions(kind) for kind in kinds]
        rows: np.ndarray = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)
        return rows

    def to_list(self) -> list[dict[str, Any]]:
        """As `studio data check --json` prints them."""
        return [
            {
                "kind": kind,
                "title": PROBLEMS[kind].title,
                "severity": PROBLEMS[kind].severity,
                "count": self.count(kind),
                "lines": self._where[kind],
                "positions": self._positions[kind][:SHOWN].tolist(),
                "example": self._example[kind],
            }
            for kind in self.kinds()
        ]

    def save(self, folder: Path) -> None:
        """`<kind>.npy` (uint64) for every kind that was found; the folder is whole once it is there."""
        staging = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for kind in self.kinds():
            np.save(staging / f"{kind}.npy", self.positions(kind))
        shutil.rmtree(folder, ignore_errors=True)
        staging.replace(folder)
