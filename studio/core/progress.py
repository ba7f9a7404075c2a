"""Where a job stands: events folded into step, curves, ETA; and the one true status, derived and never stored.

In: events in their order; whether the worker lives. Out: Progress, a status with its cause. Knows no files, no clock
but the events' own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from studio.core.events import CheckpointSaved, Ended, Event, Metrics, Note, Stage

Status = Literal["queued", "running", "stopping", "finished", "stopped", "failed", "interrupted"]
LIVE: frozenset[Status] = frozenset({"queued", "running", "stopping"})


@dataclass
class Progress:
    """A job's events, folded. `series[name]` are (step, value) in the order of steps, each step once."""

    attempt: int = 0
    stage: Stage | None = None
    step: int = 0
    max_steps: int = 0
    epoch: float = 0.0
    started: float | None = None
    elapsed: float = 0.0
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    checkpoints: list[CheckpointSaved] = field(default_factory=list)
    ended: Ended | None = None
    _pace: tuple[int, float] | None = None  # step and elapsed of the attempt's first metrics

    def fold(self, event: Event) -> None:
        """Take one more event in."""
        if isinstance(event, Stage):
            self._fold_stage(event)
        elif isinstance(event, Metrics):
            self._fold_metrics(event)
        elif isinstance(event, Note):
            self.notes.append(event)
        elif isinstance(event, CheckpointSaved):
            self.checkpoints = [c for c in self.checkpoints if c.step != event.step] + [event]
        else:
            self.ended = event

    def _fold_stage(self, stage: Stage) -> None:
        if stage.name == "starting":
            self.attempt, self.ended, self._pace = stage.attempt, None, None
            self.started = self.started or stage.t
            self.step = min(self.step, stage.from_step)
            for name, points in self.series.items():
                self.series[name] = [point for point in points if point[0] <= stage.from_step]
            self.notes = []
        self.stage = stage

    def _fold_metrics(self, metrics: Metrics) -> None:
        self.step, self.max_steps, self.epoch = metrics.step, metrics.max_steps, metrics.epoch
        self.elapsed = max(self.elapsed, metrics.elapsed)
        self._pace = self._pace or (metrics.step, metrics.elapsed)
        for name, value in metrics.values.items():
            points = self.series.setdefault(name, [])
            if points and points[-1][0] >= metrics.step:
                points[:] = [point for point in points if point[0] < metrics.step]
            points.append((metrics.step, value))

    def latest(self, name: str) -> float | None:
        """The last value of a series."""
        points = self.series.get(name)
        return points[-1][1] if points else None

    def best(self, name: str) -> tuple[int, float] | None:
        """The (step, value) at which a series was lowest; NaN never is."""
        points = [point for point in self.series.get(name, ()) if math.isfinite(point[1])]
        return min(points, key=lambda point: point[1], default=None)

    @property
    def eta(self) -> float | None:
        """Seconds to the last step at the attempt's pace so far; None before there is a pace."""
        if self._pace is None or not self.max_steps or self.ended:
            return None
        step, elapsed = self._pace
        if self.step > step:
            return (self.max_steps - self.step) * (self.elapsed - elapsed) / (self.step - step)
        return (self.max_steps - self.step) * self.elapsed / self.step if self.step else None


@dataclass(frozen=True)
class State:
    """A job's status, and why in plain words with the next step where there is one."""

    status: Status
    cause: str = ""
    hint: str = ""


def derive(
    progress: Progress,
    *,
    process: dict[str, Any] | None,
    alive: bool,
    stop_asked: bool,
    exit: dict[str, Any] | None = None,
) -> State:
    """The one true state of a job.

    `process` is process.json (None: no worker has taken the job yet), `alive` whether that very process lives, `exit`
    what its parent wrote when it ended (None: no parent was there to see).
    """
    if process is None:
        if exit is not None:  # the worker died before it could sign
            return _killed(exit, stop_asked)
        return State("stopped", "It was taken back before it started.") if stop_asked else State("queued")
    ended = progress.ended if progress.attempt == process.get("attempt", 1) else None
    if ended is not None:
        return State(ended.status, ended.cause, ended.hint)
    if alive:
        return State("stopping" if stop_asked else "running")
    if exit is None:
        return State("interrupted", "The run ended without a word: the computer or the studio was shut down.", _RESUME)
    return _killed(exit, stop_asked)


_RESUME = "Resume goes on from the last complete checkpoint."


def _killed(exit: dict[str, Any], stop_asked: bool) -> State:
    code = exit.get("code")
    if exit.get("forced"):
        return State("stopped", "It didn't answer the stop and was ended by force.", _RESUME)
    if code in (-9, 137):
        return State(
            "failed",
            "The worker was killed (9): probably the machine ran out of memory.",
            "Lower the batch size or the longest row, or close other programs, then resume.",
        )
    if isinstance(code, int) and code < 0:
        if stop_asked:
            return State("stopped", f"The worker was ended by signal {-code}.", _RESUME)
        return State("failed", f"The worker was ended by signal {-code}.", _RESUME)
    last = str(exit.get("last_line") or "").strip()
    return State("failed", f"The worker ended with code {code}{': ' + last if last else ''}.", "Its log says more.")
