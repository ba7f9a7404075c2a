"""The list of runs: fresh where runs live, unread where they have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.ui import runlist
from studio.ui.runlist import RunList
from studio.workspace.runs import Run, Runs
from tests.ui.made_runs import add, ended, make_run, metrics


class CountedRuns(Runs):
    """Notes which runs are read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: list[str] = []

    def get(self, run_id: str) -> Run:
        self.read.append(run_id)
        return super().get(run_id)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CountedRuns:
    monkeypatch.setattr(runlist, "_FRESH", -1.0)  # every look is a new one
    return CountedRuns(tmp_path)


def test_runs_that_have_ended_are_not_read_again(runs: CountedRuns) -> None:
    make_run(runs.folder, "a-ended", metrics(1), ended())
    live = make_run(runs.folder, "b-live", metrics(1), alive=True)
    listed = RunList(runs)
    first = listed.look()
    assert [line.id for line in first.lines] == ["b-live", "a-ended"]
    runs.read.clear()
    add(live, metrics(2))
    second = listed.look()
    assert runs.read == ["b-live"]
    assert second.live is not None and second.live.step == 2
    assert second.version == first.version, "a step is no news for the list"


def test_the_version_changes_with_every_line_that_does(runs: CountedRuns) -> None:
    live = make_run(runs.folder, "a", metrics(1), alive=True)
    listed = RunList(runs)
    versions = [listed.look().version]
    add(live, metrics(2, eval_loss=1.0))
    versions.append(listed.look().version)
    add(live, ended())
    versions.append(listed.look().version)
    make_run(runs.folder, "b", metrics(1), ended())
    versions.append(listed.look().version)
    assert len(set(versions)) == 4


def test_a_resumed_run_is_read_again(runs: CountedRuns) -> None:
    folder = make_run(runs.folder, "a", metrics(1), ended("stopped"))
    listed = RunList(runs)
    assert [line.status for line in listed.look().lines] == ["stopped"]
    (folder / "process.json").rename(folder / "process-1.json")
    assert [line.status for line in listed.look().lines] == ["queued"]
    assert listed.look().queued == 1


def test_L06_only_the_newest_are_read_until_more_are_wanted(runs: CountedRuns) -> None:
    for number in range(12):
        make_run(runs.folder, f"run-{number:03}", metrics(1), ended())
    listed = RunList(runs, most=5)
    look = listed.look()
    assert (len(look.lines), look.total) == (5, 12)
    assert sorted(set(runs.read)) == [f"run-{number:03}" for number in range(7, 12)]
    assert len(listed.look(most=10).lines) == 10
    assert len(listed.look().lines) == 10


def test_the_live_run_is_the_one_that_trains_else_the_first_in_the_queue(runs: CountedRuns) -> None:
    for name in ("a", "b"):
        (make_run(runs.folder, name) / "process.json").unlink()
    listed = RunList(runs)
    live = listed.look().live
    assert live is not None and live.id == "a"
    make_run(runs.folder, "c", metrics(1), alive=True)
    live = listed.look().live
    assert live is not None and live.id == "c"


def test_a_damaged_run_is_passed_over(runs: CountedRuns) -> None:
    folder = make_run(runs.folder, "a", metrics(1), ended())
    make_run(runs.folder, "b", metrics(1), ended())
    (folder / "run.yaml").write_text("method: {name: nonsense}")
    assert [line.id for line in RunList(runs).look().lines] == ["b"]
