"""Following a run from a terminal: what is told, and the exit code."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from studio.workspace import follow
from studio.workspace.follow import ProgressLine, follow_run, wait_until_ended
from tests.fake_worker import FakeWorkers
from tests.workspace.conftest import Watched


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("sign start step:1 step:2 adapter end:finished", 0, ["step 1/10  loss 2.900", "step 2/10  loss 2.800"]),
        ("sign start end:failed exit:1", 1, ["The cause that the worker gave. And the hint."]),
        ("sign start note:two_rows_cut end:stopped", 130, ["two_rows_cut"]),
        ("sign start say:Boom exit:3", 1, ["The worker ended with code 3: Boom. Its log says more."]),
        ("say:Early exit:3", 1, ["The worker ended with code 3: Early. Its log says more."]),
    ],
)
def test_what_a_run_does_is_told_until_its_end(
    studio: Watched, workers: FakeWorkers, script: str, code: int, words: list[str]
) -> None:
    workers.script = script
    said: list[str] = []
    assert follow_run(studio, studio.start(), said.append) == code
    told = [line for line in said if line != "Starting"]
    assert told == words


def test_only_what_is_new_is_told_of_a_resumed_run(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 exit:1"
    run_id = studio.start()
    studio.wait(run_id, "failed")
    workers.script = "sign start:1 step:2 adapter end:finished"
    said: list[str] = []
    studio.resume(run_id)
    assert follow_run(studio, run_id, said.append) == 0
    assert [line for line in said if line.startswith("step")] == ["step 2/10  loss 2.800"]


def pausing(monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], None]) -> None:
    """At each of the follower's next pauses one of these is done, and then Ctrl-C pressed."""
    left = list(acts)

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if left:
            left.pop(0)()
            raise KeyboardInterrupt

    monkeypatch.setattr(follow, "time", SimpleNamespace(sleep=sleep, time=time.time))


def nothing() -> None:
    pass


def test_the_first_interrupt_lets_the_run_save(
    studio: Watched, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.script = "sign start work end:stopped"
    run_id = studio.start()
    studio.wait(run_id, "running")
    pausing(monkeypatch, nothing)
    said: list[str] = []
    assert follow_run(studio, run_id, said.append) == 130
    assert any("checkpoint is being saved" in line for line in said)
    run = studio.runs.get(run_id)
    assert (run.state.status, len(run.progress.checkpoints)) == ("stopped", 1)


def test_the_second_interrupt_leaves_the_run_to_itself(
    studio: Watched, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.script = "sign start wait:go end:stopped"
    run_id = studio.start()
    studio.wait(run_id, "running")
    pausing(monkeypatch, nothing, nothing)
    said: list[str] = []
    assert follow_run(studio, run_id, said.append) == 130
    assert f"studio runs stop {run_id}" in said[-1]
    assert studio.status(run_id) == "stopping"
    studio.go_on(run_id, "go")
    assert wait_until_ended(studio, run_id).state.status == "stopped"


def test_an_interrupt_at_the_very_end_changes_nothing(
    studio: Watched, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers.script = "sign start wait:go adapter end:finished"
    run_id = studio.start()
    studio.wait(run_id, "running")

    def end() -> None:
        studio.go_on(run_id, "go")
        studio.wait(run_id, "finished")

    pausing(monkeypatch, end)
    assert follow_run(studio, run_id, lambda text: None) == 0


def test_counting_is_told_each_tenth_where_there_is_no_terminal() -> None:
    said: list[str] = []
    line = ProgressLine(said.append)
    for done in range(0, 101):
        line.show("Loading", done, 100)
    line.show("Saving")
    line.end()
    assert len(said) == 12
    assert said[0].split() == ["Loading", "0", "%"]
    assert said[-2:] == ["Loading 100 %", "Saving"]
