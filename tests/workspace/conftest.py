"""Supervisors over fake workers, looking often and closed with the test."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.core.config import RunConfig
from studio.core.progress import State
from studio.workspace import follow, supervisor
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers, until


class Watched(Supervisor):
    """A supervisor with words for what tests do again and again."""

    def start(self, label: str = "") -> str:
        return self.submit(RunConfig(), label)

    def path(self, run_id: str) -> Path:
        return self.runs.folder / run_id

    def state(self, run_id: str) -> State:
        return self.runs.get(run_id).state

    def status(self, run_id: str) -> str:
        return self.state(run_id).status

    def wait(self, run_id: str, *wanted: str) -> State:
        """Wait until a run is in one of these states (or has ended, where none is named)."""
        ends = wanted or ("finished", "stopped", "failed", "interrupted")
        until(lambda: self.status(run_id) in ends)
        return self.state(run_id)

    def wait_for(self, run_id: str, name: str) -> Path:
        """Wait until there is a file of this name in the run's folder."""
        path = self.path(run_id) / name
        until(path.exists)
        return path

    def go_on(self, run_id: str, name: str) -> None:
        """Let a fake that waits for this file go on."""
        (self.path(run_id) / name).touch()

    def came(self, run_id: str) -> int:
        """How many workers came to a job."""
        with contextlib.suppress(FileNotFoundError):
            return len((self.path(run_id) / "came").read_text(encoding="utf-8").split())
        return 0


Make = Callable[..., Watched]


@pytest.fixture
def supervise(workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes supervisors: any number may look after the same runs."""
    monkeypatch.setattr(supervisor, "_POLL", 0.02)
    monkeypatch.setattr(follow, "_POLL", 0.02)
    made: list[Watched] = []

    def make(standby: bool = False, grace: float = 90.0) -> Watched:
        made.append(Watched(standby=standby, grace=grace))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def studio(supervise: Make) -> Watched:
    return supervise()
