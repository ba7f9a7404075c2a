"""The list of runs, kept fresh cheaply however many there are.

In: the workspace's `Runs`. Out: summaries, newest first; a version that changes when any line of the list does; the
run that is live. A run that has ended is read again only after its folder changed: asking once a second costs one
`stat` for each of them.
"""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass

from studio.core.errors import StudioError
from studio.core.progress import LIVE
from studio.workspace.runs import Runs, RunSummary, summarise

_FRESH = 0.5  # seconds within which everyone gets the same look


@dataclass(frozen=True)
class Look:
    """The list at one moment. `total` counts the runs on disk, `lines` the newest of them."""

    lines: tuple[RunSummary, ...]
    total: int
    version: str

    @property
    def live(self) -> RunSummary | None:
        """The run that is training, else the one that waits longest."""
        running = [line for line in self.lines if line.status in ("running", "stopping")]
        waiting = [line for line in self.lines if line.status == "queued"]
        return next(iter(running or waiting[::-1]), None)

    @property
    def queued(self) -> int:
        return sum(line.status == "queued" for line in self.lines)


class RunList:
    """Looks at the runs for all who ask at about the same time; `most` runs, the newest."""

    def __init__(self, runs: Runs, most: int = 100) -> None:
        self._runs = runs
        self._most = most
        self._known: dict[str, tuple[int, RunSummary]] = {}
        self._look: Look | None = None
        self._looked = 0.0
        self._lock = threading.Lock()

    def look(self, most: int | None = None) -> Look:
        """The list now, at most half a second old. `most` widens it for good: somebody wants to see older runs."""
        with self._lock:
            wider = most is not None and most > self._most
            if wider and most is not None:
                self._most = most
            if self._look is None or wider or time.monotonic() - self._looked > _FRESH:
                self._look = self._read()
                self._looked = time.monotonic()
            return self._look

    def forget(self) -> None:
        """Make the next look a fresh one: something was just done to a run."""
        with self._lock:
            self._look = None

    def _read(self) -> Look:
        ids = self._runs.ids()
        known: dict[str, tuple[int, RunSummary]] = {}
        for run_id in ids[: self._most]:
            entry = self._entry(run_id)
            if entry is not None:
                known[run_id] = entry
        self._known = known
        lines = tuple(summary for _, summary in known.values())
        # What changes with every step stays out of the version, or the whole list would be sent again each second.
        told = [(line.id, line.status, line.cause, line.best_eval_loss) for line in lines]
        version = hashlib.sha256(repr((told, len(ids))).encode()).hexdigest()[:16]
        return Look(lines, len(ids), version)

    def _entry(self, run_id: str) -> tuple[int, RunSummary] | None:
        try:
            changed = (self._runs.folder / run_id).stat().st_mtime_ns
            before = self._known.get(run_id)
            if before is not None and before[0] == changed and before[1].status not in LIVE:
                return before
            return changed, summarise(self._runs.get(run_id))
        except (OSError, StudioError):  # deleted in between, or its run.yaml is damaged
            return None
