"""The real token lengths of datasets, counted once in the background.

In: a RunConfig. Out: what is known now. Data workers count, and keep their answers under the state of the files, so
asking again after a restart is quick. Counting begins when a question has stood for a moment, as while a person types
each keystroke is another one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from studio.core.config import DatasetSection, RunConfig
from studio.core.errors import StudioError
from studio.core.rowlengths import RowLengths
from studio.workspace.datasets import get_dataset, resolve_dataset
from studio.workspace.desk import DataDesk
from studio.workspace.models import resolve_model
from studio.workspace.tasks import Task

_STANDS = 0.5  # seconds that a question has to stand
_FORGOTTEN = 15.0  # seconds after which nobody waits for an answer any more
_REMEMBERED = 100


@dataclass(frozen=True)
class LengthsState:
    """A dataset's real lengths if they are known; `busy`: they are being counted; `problem`: why they can't be.

    `rows`: usable rows, known as soon as the lengths are, or as the registration says. `done` of `total` are counted.
    """

    lengths: RowLengths | None
    busy: bool = False
    problem: str = ""
    rows: int | None = None
    done: int | None = None
    total: int | None = None


@dataclass
class _Question:
    """One asked about: since when, last when, and what came of it."""

    since: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    task: Task | None = None
    lengths: RowLengths | None = None
    problem: str = ""


class DatasetLengths:
    """See the module. `patient`: begin counting at the first question (a command asks but once)."""

    def __init__(self, desk: DataDesk, *, patient: bool = True) -> None:
        self._desk = desk
        self._stands = _STANDS if patient else 0.0
        self._asked: dict[str, _Question] = {}

    def soon(self, config: RunConfig) -> LengthsState:
        """What is known now; never waits for a row to be read."""
        section = config.dataset
        if section.path is None:
            return LengthsState(None)
        rows = _registered_rows(section)
        try:
            asked = self._question(config)
            self._end_forgotten(asked)
            if asked.task is None and not asked.problem and time.monotonic() - asked.since >= self._stands:
                model = resolve_model(config.model.name_or_path, config.model.revision)
                asked.task = self._desk.lengths(section, model)
        except StudioError as error:
            return LengthsState(None, problem=str(error), rows=rows)
        return self._state(asked, config, rows)

    def _state(self, asked: _Question, config: RunConfig, rows: int | None) -> LengthsState:
        task = asked.task
        if task is not None and asked.lengths is None and task.state == "done" and task.result:
            learnt = task.result["loss"] / (task.result["tokens"] or 1)
            asked.lengths = RowLengths({int(n): int(count) for n, count in task.result["counts"]}, learnt)
        if asked.lengths is not None:
            found = asked.lengths
            if "too_long" in (config.dataset.exclude or ()):  # such rows are left out, not cut
                longest = config.training.max_length
                found = RowLengths({n: count for n, count in found.items() if n <= longest}, found.learnt)
            return LengthsState(found, rows=len(found))
        if task is not None and task.state != "running":
            if task.state == "cancelled":  # nobody waited; somebody asks again now
                asked.task = None
                return LengthsState(None, busy=True, rows=rows)
            return LengthsState(None, problem=f"{task.error} {task.hint}".strip(), rows=rows)
        return LengthsState(None, True, "", rows, task.done if task else None, task.total if task else None)

    def _question(self, config: RunConfig) -> _Question:
        section = config.dataset
        dataset = resolve_dataset(section)
        knobs = (section.format, section.columns, section.tags, section.system_prompt, section.exclude_rows)
        model = (config.model.name_or_path, config.model.revision)
        more = (section.max_samples, section.train_on, section.stopping_strategy)
        key = json.dumps([repr(dataset), _stamp(dataset.path), knobs, model, more], default=str)
        while len(self._asked) >= _REMEMBERED and key not in self._asked:
            del self._asked[next(iter(self._asked))]
        asked = self._asked.setdefault(key, _Question())
        asked.last = time.monotonic()
        return asked

    def _end_forgotten(self, present: _Question) -> None:
        for asked in list(self._asked.values()):
            running = asked.task is not None and asked.task.state == "running"
            if running and asked is not present and time.monotonic() - asked.last > _FORGOTTEN:
                assert asked.task is not None
                asked.task.cancel()


def _registered_rows(section: DatasetSection) -> int | None:
    try:
        return get_dataset(section.path).rows if isinstance(section.path, str) else None
    except StudioError:
        return None


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
