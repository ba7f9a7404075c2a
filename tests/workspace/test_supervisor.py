"""Runs from the submission to their one true end, with fake workers that do well and badly."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from studio.core.configfile import load_config, parse_config
from studio.core.errors import ConfigError, RunError, StudioError
from studio.core.inputs import Inputs
from studio.workspace import processes
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import GOOD, FakeWorkers, until
from tests.workspace.conftest import Make, Watched

posix = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
LONG = "sign start step:1 wait:go step:2 adapter end:finished"


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each act gave or raised, all let go at the same moment."""
    barrier, results = threading.Barrier(len(acts)), list[Any]([None] * len(acts))

    def do(number: int, act: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            results[number] = act()
        except StudioError as error:
            results[number] = error

    threads = [threading.Thread(target=do, args=item) for item in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def worker_of(studio: Watched, run_id: str) -> psutil.Process:
    process = processes.find(json.loads(studio.wait_for(run_id, "process.json").read_text(encoding="utf-8")))
    assert process is not None
    return process


def kill(studio: Watched, run_id: str) -> None:
    process = worker_of(studio, run_id)
    process.kill()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


# -- submitting -------------------------------------------------------------------------------------------------------


def test_a_run_is_a_folder_that_ends_finished(studio: Watched) -> None:
    config = parse_config({"training": {"learning_rate": 1e-3}})
    run_id = studio.submit(config, "My first: 🦙")
    assert studio.wait(run_id).status == "finished"
    run = studio.runs.get(run_id)
    assert run_id.endswith("-my-first")
    # What the dataset leaves out is written down: a later change of its registration is none of this run's.
    config.dataset.exclude = []
    assert (run.label, run.config) == ("My first: 🦙", config)
    assert load_config(run.folder.run_config) == config, "it loads again as it was run"
    assert Inputs.read(run.folder.inputs).dataset.path.endswith("train.jsonl")
    assert run.progress.series["loss"] == [(1, 2.9), (2, 2.8)]
    assert run.output == run.folder.adapter


def test_a_run_without_a_name_is_called_after_its_model_and_method(studio: Watched) -> None:
    run_id = studio.start()
    assert run_id[13:] == "-starter-sft"
    assert studio.runs.get(run_id).label == "starter sft"


def test_the_worker_gets_a_session_and_a_log_of_its_own(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start say:hello wait:go end:finished"
    run_id = studio.start()
    process = worker_of(studio, run_id)
    until(lambda: "hello" in (studio.path(run_id) / "worker.log").read_text(encoding="utf-8"))
    if os.name == "posix":
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    assert process.environ()["STUDIO_HOME"] == os.environ["STUDIO_HOME"]
    studio.go_on(run_id, "go")
    studio.wait(run_id, "finished")


def test_S15_names_are_never_commands_or_options(studio: Watched, workers: FakeWorkers, tmp_path: Path) -> None:
    for label in ("; touch /tmp/x", "$(id)", "--output_dir=/x", "-rf", "a\nb"):
        run_id = studio.start(label)
        studio.wait(run_id, "finished")
        assert workers.commands[-1][-1] == str(studio.path(run_id))
        assert studio.runs.get(run_id).label == " ".join(label.split())


@pytest.mark.parametrize("label", ["..", "/", "../../x", "a\0b", "x" * 300, "CON", "🦙", "\u202eexe", "half \ud800"])
def test_F51_a_run_of_any_name_lies_in_the_runs_folder(studio: Watched, studio_home: Path, label: str) -> None:
    before = {path for path in studio_home.parent.rglob("*") if studio_home not in path.parents}
    run_id = studio.start(label)
    assert studio.wait(run_id).status == "finished"
    assert studio.path(run_id).parent == studio_home / "runs"
    assert {path for path in studio_home.parent.rglob("*") if studio_home not in path.parents} == before


def test_F52_the_same_name_in_the_same_minute_makes_two_runs(studio: Watched) -> None:
    ids = [studio.start("twin") for _ in range(3)]
    assert len(set(ids)) == 3
    for run_id in ids:
        assert studio.wait(run_id).status == "finished"
        assert studio.runs.get(run_id).label == "twin"
    assert [studio.came(run_id) for run_id in ids] == [1, 1, 1]


def test_F52_names_taken_at_the_same_moment_are_told_apart(studio: Watched) -> None:
    ids = at_once(*[partial(studio.start, "twin")] * 4)
    assert len({str(run_id) for run_id in ids}) == 4
    for run_id in ids:
        assert studio.wait(run_id).status == "finished"


# -- what is refused, and leaves nothing ------------------------------------------------------------------------------


def nothing_was_made(studio: Watched) -> bool:
    return list(studio.runs.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "field", "words"),
    [
        ({"dataset": {"path": "nothing"}}, "dataset.path", "no dataset or file"),
        ({"model": {"name_or_path": "nothing"}}, "model.name_or_path", "no model"),
        (
            {"dataset": {"path": "quickstart-sft", "format": "alpaca"}},
            "dataset.path",
            "the columns are those of messages",
        ),
        ({"dataset": {"columns": {"messages": "nothing"}}}, "dataset.path", r"nothing \(as messages\) is missing"),
    ],
)
def test_a_run_that_cannot_be_is_refused_at_its_knob(
    studio: Watched, workers: FakeWorkers, config: dict[str, Any], field: str, words: str
) -> None:
    workers.real_data = True
    with pytest.raises(ConfigError, match=words) as raised:
        studio.submit(parse_config(config))
    assert raised.value.field == field
    assert raised.value.exit_code == 2
    assert nothing_was_made(studio)


def test_a_model_without_weights_is_refused_at_its_knob(studio: Watched, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds no weights") as raised:
        studio.submit(parse_config({"model": {"name_or_path": str(tmp_path)}}))
    assert raised.value.field == "model.name_or_path"
    assert nothing_was_made(studio)


def test_F23_a_home_that_cannot_be_written_is_told_with_what_to_do(studio: Watched) -> None:
    studio.runs.folder.rmdir()
    studio.runs.folder.write_text("a file in its place", encoding="utf-8")
    with pytest.raises(StudioError, match="STUDIO_HOME"):
        studio.start()
    assert studio.runs.folder.read_text(encoding="utf-8") == "a file in its place"


def test_F18_a_full_disk_leaves_no_half_made_run(studio: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.workspace import submission

    def full(path: Path, text: str) -> None:
        if path.name == "inputs.json":
            raise OSError(28, "No space left on device")
        path.write_text(text, encoding="utf-8")

    monkeypatch.setattr(submission, "write_text", full)
    with pytest.raises(StudioError, match="No space left on device"):
        studio.start()
    assert nothing_was_made(studio)


# -- the queue --------------------------------------------------------------------------------------------------------


def test_runs_wait_their_turn_and_start_in_the_order_they_came(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start wait:go end:finished"
    first, second, third = (studio.start(label) for label in ("zebra", "middle", "ape"))
    studio.wait(first, "running")
    for run_id, later in ((first, [second, third]), (second, [third])):
        studio.wait(run_id, "running")
        time.sleep(0.1)
        assert [studio.status(other) for other in later] == ["queued"] * len(later)
        studio.go_on(run_id, "go")
        studio.wait(run_id, "finished")
    studio.wait(third, "running")
    studio.go_on(third, "go")
    studio.wait(third, "finished")


def test_a_run_taken_back_in_the_queue_never_starts_and_holds_nobody_up(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start wait:go end:finished"
    first, second, third = (studio.start(label) for label in "abc")
    studio.wait(first, "running")
    studio.stop(second)
    assert studio.state(second).cause == "It was taken back before it started."
    studio.go_on(first, "go")
    studio.wait(third, "running")
    studio.go_on(third, "go")
    studio.wait(third, "finished")
    assert studio.status(second) == "stopped"
    assert studio.came(second) == 0


def test_a_worker_that_dies_before_it_signs_fails_its_run_and_holds_nobody_up(
    studio: Watched, workers: FakeWorkers
) -> None:
    workers.scripts["doomed"] = "say:no_space_left exit:3"
    first = studio.start("doomed")
    state = studio.wait(first)
    assert (state.status, state.cause) == ("failed", "The worker ended with code 3: no_space_left.")
    second = studio.start("next")
    assert studio.wait(second).status == "finished"


def test_F57_a_damaged_run_holds_nobody_up(studio: Watched) -> None:
    for name, text in (("20200101-0000-a", "training: {seeed: 1}"), ("20200101-0000-b", "[")):
        damaged = studio.runs.folder / name
        damaged.mkdir()
        (damaged / "run.yaml").write_text(text, encoding="utf-8")
    run_id = studio.start()
    assert studio.wait(run_id).status == "finished"
    assert [run.id for run in studio.runs.list()] == [run_id]


def test_a_run_whose_studio_died_in_the_queue_is_started_by_the_next_that_waits(
    supervise: Make, workers: FakeWorkers
) -> None:
    workers.script = "sign start wait:go end:finished"
    window, command = supervise(), supervise()
    first = window.start("first")
    window.wait(first, "running")
    orphan = command.start("orphan")
    command.close()
    third = window.start("third")
    window.go_on(first, "go")
    window.wait(orphan, "running")
    for run_id in (orphan, third):
        window.wait(run_id, "running")
        window.go_on(run_id, "go")
        assert window.wait(run_id).status == "finished"


# -- one worker, whoever asks -----------------------------------------------------------------------------------------


def test_F53_twenty_threads_start_one_worker(studio: Watched, workers: FakeWorkers) -> None:
    workers.scripts["busy"] = workers.script = "sign start wait:go end:finished"
    busy = studio.start("busy")
    studio.wait(busy, "running")
    run_id = studio.start("wanted")
    other = Supervisor()  # one that looks after nothing by itself
    folder = studio.runs.job(run_id)
    studio.go_on(busy, "go")
    children = at_once(*[partial(other._start_if_its_turn, folder)] * 20)
    studio.wait(run_id, "running")
    assert len([child for child in children if child is not None]) <= 1
    assert len(workers.processes) == 2
    assert studio.came(run_id) == 1
    studio.go_on(run_id, "go")
    assert studio.wait(run_id).status == "finished"


def test_F53_many_studios_that_adopt_a_run_start_one_worker(supervise: Make, workers: FakeWorkers) -> None:
    workers.script = "sign start wait:go end:finished"
    studios = [supervise() for _ in range(6)]
    busy = studios[0].start("busy")
    studios[0].wait(busy, "running")
    run_id = studios[0].start("wanted")
    at_once(*[studio.adopt for studio in studios])
    studios[0].go_on(busy, "go")
    studios[0].wait(run_id, "running")
    studios[0].go_on(run_id, "go")
    assert [studio.wait(run_id).status for studio in studios] == ["finished"] * 6
    assert studios[0].came(run_id) == 1
    assert len(workers.processes) == 2


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_a_stop_is_a_file_that_the_worker_obeys(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 obey wait:go save:1 end:stopped"
    run_id = studio.start()
    studio.wait(run_id, "running")
    studio.stop(run_id)
    assert (studio.path(run_id) / "stop").exists()
    assert studio.status(run_id) == "stopping"
    studio.go_on(run_id, "go")
    assert studio.wait(run_id).status == "stopped"
    assert [c.step for c in studio.runs.get(run_id).progress.checkpoints] == [1]
    with pytest.raises(RunError, match="it is stopped"):
        studio.stop(run_id)


def test_F11_a_stop_that_comes_too_late_changes_nothing(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start wait:go adapter end:finished"
    run_id = studio.start()
    studio.wait(run_id, "running")
    studio.stop(run_id)
    studio.go_on(run_id, "go")
    assert studio.wait(run_id).status == "finished"


@posix
def test_F12_a_worker_that_ignores_the_stop_is_ended_with_its_children(
    supervise: Make, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "end", partial(processes.end, grace=0.2))
    studio = supervise(grace=0.3)
    workers.script = "deaf sign start child step:1 wait:never"
    run_id = studio.start()
    child = psutil.Process(int(until(lambda: studio.wait_for(run_id, "child").read_text(encoding="utf-8"))))
    process = worker_of(studio, run_id)
    studio.stop(run_id)
    state = studio.wait(run_id)
    assert state.status == "stopped"
    assert "by force" in state.cause and "Resume" in state.hint
    until(lambda: not processes_left(process, child))
    assert json.loads((studio.path(run_id) / "exit.json").read_text(encoding="utf-8"))["forced"] is True


def processes_left(*those: psutil.Process) -> list[psutil.Process]:
    return [p for p in those if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@posix
def test_F12_a_worker_that_was_adopted_is_ended_too(
    supervise: Make, workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "end", partial(processes.end, grace=0.2))
    first, second = supervise(grace=0.3), supervise(grace=0.3)
    workers.script = "deaf sign start step:1 wait:never"
    run_id = first.start()
    process = worker_of(first, run_id)
    first.close()
    second.adopt()
    second.stop(run_id)
    state = second.wait(run_id)
    assert (state.status, "by force" in state.cause) == ("stopped", True)
    until(lambda: not processes_left(process))


def test_F12_a_worker_that_still_saves_is_given_time(supervise: Make, workers: FakeWorkers) -> None:
    studio = supervise(grace=1.5)
    workers.script = "sign start obey " + "step:1 " * 2 + "wait:go save:1 end:stopped"
    run_id = studio.start()
    studio.wait(run_id, "running")
    studio.stop(run_id)
    for _ in range(10):  # it is heard of, over more than the grace in all
        time.sleep(0.17)
        with (studio.path(run_id) / "worker.log").open("a", encoding="utf-8") as log:
            log.write("saving\n")
    assert studio.status(run_id) == "stopping"
    studio.go_on(run_id, "go")
    assert "by force" not in studio.wait(run_id, "stopped").cause


# -- ends that nobody wanted ------------------------------------------------------------------------------------------


@posix
def test_F1_a_killed_worker_is_told_as_killed_and_the_next_run_starts(studio: Watched, workers: FakeWorkers) -> None:
    workers.scripts["victim"] = LONG
    run_id = studio.start("victim")
    studio.wait(run_id, "running")
    kill(studio, run_id)
    seen = set()
    until(lambda: seen.add(studio.status(run_id)) or studio.status(run_id) == "failed")
    assert seen <= {"running", "failed"}, "a run ends in one state, and not in another before it"
    assert "killed (9)" in studio.state(run_id).cause
    assert "resume" in studio.state(run_id).hint
    following = studio.start("next")
    assert studio.wait(following).status == "finished"


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("sign start step:1 end:failed exit:1", "failed", "The cause that the worker gave."),
        pytest.param("sign start step:1 kill:11", "failed", "signal 11", marks=posix),
        pytest.param("sign start step:1 kill:9", "failed", "killed (9)", marks=posix),
        ("sign start step:1 say:Boom exit:7", "failed", "code 7: Boom"),
        ("sign start step:1 exit:0", "failed", "code 0"),
        ("sign exit:5", "failed", "code 5"),
        ("sign start step:1 adapter end:finished exit:1", "finished", ""),
        pytest.param("sign start step:1 adapter end:finished kill:9", "finished", "", marks=posix),
        ("sign start step:1 tear exit:1", "failed", "code 1"),
    ],
)
def test_every_end_is_one_state_with_its_cause(
    studio: Watched, workers: FakeWorkers, script: str, status: str, words: str
) -> None:
    workers.script = script
    run_id = studio.start()
    state = studio.wait(run_id)
    assert (state.status, words in state.cause) == (status, True)
    until(lambda: processes.find(json.loads((studio.path(run_id) / "process.json").read_text())) is None)
    until(lambda: (studio.path(run_id) / "exit.json").exists())
    assert studio.state(run_id) == state, "it changed afterwards"
    fresh = Supervisor()
    assert fresh.runs.get(run_id).state == state, "another reader sees another state"


def test_F55_what_a_torn_line_leaves_is_read_and_the_run_can_go_on(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 tear exit:1"
    run_id = studio.start()
    studio.wait(run_id, "failed")
    workers.script = "sign start:1 step:2 adapter end:finished"
    studio.resume(run_id)
    studio.wait(run_id, "finished")
    assert [step for step, _ in studio.runs.get(run_id).progress.series["loss"]] == [1, 2]


def test_F13_a_worker_that_lives_on_has_finished_and_the_next_run_starts(studio: Watched, workers: FakeWorkers) -> None:
    workers.scripts["lingers"] = "sign start adapter end:finished wait:go"
    run_id = studio.start("lingers")
    assert studio.wait(run_id).status == "finished"
    process = worker_of(studio, run_id)
    following = studio.start("next")
    assert studio.wait(following).status == "finished"
    assert processes_left(process) == [process]
    studio.go_on(run_id, "go")


def test_F64_a_worker_that_cannot_be_started_fails_its_run_and_holds_nobody_up(
    studio: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(folder: Path) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(studio.launcher, "job", none_left)
        first = studio.start("first")
        state = studio.wait(first)
    assert (state.status, "Too many open files" in state.cause) == ("failed", True)
    second = studio.start("second")
    assert studio.wait(second).status == "finished"
    studio.resume(first)
    assert studio.wait(first).status == "finished"


@posix
def test_F14_a_worker_held_still_is_not_responding_and_recovers(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = LONG
    run_id = studio.start()
    process = worker_of(studio, run_id)
    process.suspend()
    until(lambda: studio.runs.get(run_id).not_responding)
    assert studio.status(run_id) == "running"
    process.resume()
    until(lambda: not studio.runs.get(run_id).not_responding)
    studio.go_on(run_id, "go")
    assert studio.wait(run_id).status == "finished"


def test_F24_a_folder_removed_under_the_watcher_ends_the_watching(studio: Watched, workers: FakeWorkers) -> None:
    import shutil

    workers.scripts["busy"] = "sign start wait:go end:finished"
    busy, queued = studio.start("busy"), studio.start("queued")
    studio.wait(busy, "running")
    shutil.rmtree(studio.path(queued))
    until(lambda: not studio._watchers[studio.path(queued)].is_alive())
    studio.go_on(busy, "go")
    assert studio.wait(busy).status == "finished"
    assert not studio.path(queued).exists()


# -- the studio's own end ---------------------------------------------------------------------------------------------


def test_F6_a_worker_outlives_its_studio_and_the_next_one_takes_it_over(supervise: Make, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 wait:go step:2 step:3 adapter end:finished"
    first = supervise()
    run_id = first.start()
    process = worker_of(first, run_id)
    first.close()
    second = supervise()
    second.adopt()
    assert second.status(run_id) == "running"
    assert worker_of(second, run_id).pid == process.pid
    second.go_on(run_id, "go")
    assert second.wait(run_id).status == "finished"
    assert [step for step, _ in second.runs.get(run_id).progress.series["loss"]] == [1, 2, 3]
    assert second.came(run_id) == 1


def test_F7_a_run_that_finished_alone_is_found_finished(supervise: Make, workers: FakeWorkers) -> None:
    workers.script = LONG
    first = supervise()
    run_id = first.start()
    process = worker_of(first, run_id)
    first.close()
    first.go_on(run_id, "go")
    until(lambda: not processes_left(process))
    second = supervise()
    second.adopt()
    assert second.status(run_id) == "finished"
    assert not (second.path(run_id) / "exit.json").exists(), "there was no parent to see it"


@posix
def test_F8_where_both_were_killed_the_run_is_interrupted_and_resumes(supervise: Make, workers: FakeWorkers) -> None:
    workers.script = LONG
    first = supervise()
    run_id = first.start()
    first.wait(run_id, "running")
    first.close()
    kill(first, run_id)
    second = supervise()
    second.adopt()
    assert second.state(run_id).status == "interrupted"
    workers.script = "sign start:1 step:2 adapter end:finished"
    second.resume(run_id)
    assert second.wait(run_id).status == "finished"


def test_a_queued_run_is_started_by_the_next_studio(supervise: Make, workers: FakeWorkers) -> None:
    workers.scripts["busy"] = LONG
    first = supervise()
    busy, queued = first.start("busy"), first.start("queued")
    first.wait(busy, "running")
    first.close()
    second = supervise()
    second.adopt()
    second.go_on(busy, "go")
    assert second.wait(queued).status == "finished"


def test_adopting_clears_away_what_was_left_half_made_but_nothing_fresh(studio: Watched, studio_home: Path) -> None:
    old = [studio.runs.folder / ".deleted-a", studio.runs.folder / ".new-b-1", studio_home / "exports" / ".new-c-1"]
    fresh = [studio.runs.folder / ".new-d-1"]
    for path in (*old, *fresh):
        path.mkdir(parents=True)
        (path / "run.yaml").write_text("{}", encoding="utf-8")
    for path in old:
        os.utime(path, (time.time() - 120,) * 2)
    finished = studio.start()
    studio.wait(finished, "finished")
    studio.adopt()
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in fresh)
    assert studio.status(finished) == "finished"


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_resuming_keeps_the_past_and_goes_on(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 step:2 step:3 save:2 obey end:stopped"
    run_id = studio.start()
    studio.wait(run_id, "running")
    studio.stop(run_id)
    studio.wait(run_id, "stopped")
    studio.wait_for(run_id, "exit.json")
    workers.script = "sign start:2 wait:go step:3 step:4 adapter end:finished"
    studio.resume(run_id)
    assert not (studio.path(run_id) / "stop").exists()
    studio.wait(run_id, "running")
    assert not (studio.path(run_id) / "exit.json").exists()
    assert json.loads((studio.path(run_id) / "process-1.json").read_text(encoding="utf-8"))["attempt"] == 1
    studio.go_on(run_id, "go")
    assert studio.wait(run_id).status == "finished"
    progress = studio.runs.get(run_id).progress
    assert (progress.attempt, [step for step, _ in progress.series["loss"]]) == (2, [1, 2, 3, 4])
    with pytest.raises(RunError, match="has finished"):
        studio.resume(run_id)


def test_a_run_resumes_as_often_as_it_fails(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 exit:1"
    run_id = studio.start()
    for attempt in range(1, 4):
        assert studio.wait(run_id, "failed")
        assert (studio.path(run_id) / f"process-{attempt}.json").exists() is False
        if attempt == 3:
            workers.script = GOOD
        studio.resume(run_id)
        studio.wait_for(run_id, f"process-{attempt}.json")
        until(lambda n=attempt: studio.came(run_id) == n + 1)
    assert studio.wait(run_id, "finished")
    assert studio.runs.get(run_id).progress.attempt == 4


def test_a_run_resumes_while_its_old_worker_is_still_ending(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 obey save:1 end:stopped wait:leave"
    run_id = studio.start()
    studio.wait(run_id, "running")
    studio.stop(run_id)
    studio.wait(run_id, "stopped")
    workers.script = "sign start:1 wait:go step:2 adapter end:finished"
    studio.resume(run_id)
    studio.wait(run_id, "running")
    studio.go_on(run_id, "leave")  # the first worker ends now, and its end is not the run's
    until(lambda: workers.processes[0].poll() is not None)
    time.sleep(0.2)
    assert studio.status(run_id) == "running"
    assert not (studio.path(run_id) / "exit.json").exists()
    studio.go_on(run_id, "go")
    assert studio.wait(run_id).status == "finished"


def test_a_run_taken_back_in_the_queue_can_be_put_back(studio: Watched, workers: FakeWorkers) -> None:
    workers.scripts["busy"] = LONG
    busy, run_id = studio.start("busy"), studio.start("queued")
    studio.wait(busy, "running")
    studio.stop(run_id)
    assert studio.status(run_id) == "stopped"
    studio.resume(run_id)
    assert studio.status(run_id) == "queued"
    studio.go_on(busy, "go")
    assert studio.wait(run_id).status == "finished"


def test_a_run_whose_worker_died_before_signing_can_be_resumed(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = "exit:3"
    run_id = studio.start()
    studio.wait(run_id, "failed")
    workers.script = GOOD
    studio.resume(run_id)
    assert studio.wait(run_id).status == "finished"


def test_F53_of_two_resumes_at_once_one_starts_the_run_and_the_other_is_told(
    supervise: Make, workers: FakeWorkers
) -> None:
    first, second = supervise(), supervise()
    workers.script = "sign start step:1 exit:1"
    run_id = first.start()
    first.wait(run_id, "failed")
    first.wait_for(run_id, "exit.json")
    workers.script = "sign start:1 wait:go step:2 adapter end:finished"
    results = at_once(*[partial(studio.resume, run_id) for studio in (first, second) for _ in range(5)])
    refused = [result for result in results if isinstance(result, RunError)]
    assert len(refused) == 9, results
    first.wait(run_id, "running")
    first.go_on(run_id, "go")
    assert first.wait(run_id).status == "finished"
    assert first.came(run_id) == 2
    assert len(list(first.path(run_id).glob("process-*.json"))) == 1


def test_a_live_run_is_not_resumed(studio: Watched, workers: FakeWorkers) -> None:
    workers.script = LONG
    run_id = studio.start()
    with pytest.raises(RunError, match="Stop it first"):
        studio.resume(run_id)
    studio.wait(run_id, "running")
    with pytest.raises(RunError, match="is running"):
        studio.resume(run_id)
    assert not list(studio.path(run_id).glob("process-*.json"))


# -- records that lie -------------------------------------------------------------------------------------------------


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every signal that would have been sent; none is."""
    sent: list[tuple[int, int]] = []

    def note(pid: int, number: int) -> None:
        if number:  # 0 only asks whether it is there
            sent.append((pid, number))

    monkeypatch.setattr(os, "kill", note)
    if hasattr(os, "killpg"):
        monkeypatch.setattr(os, "killpg", note)
    for name in ("terminate", "kill", "send_signal"):
        monkeypatch.setattr(psutil.Process, name, lambda self, number=9: sent.append((self.pid, number)))
    return sent


@pytest.fixture
def bystander(tmp_path: Path) -> Any:
    """A live process that has nothing to do with any run."""
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")


RECORDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "init": lambda pid: {"pid": 1, "create_time": psutil.Process(1).create_time()},
    "every process of the group": lambda pid: {"pid": 0, "create_time": 0.0},
    "every process there is": lambda pid: {"pid": -1, "create_time": 0.0},
    "the studio's own group": lambda pid: {"pid": -os.getpid(), "create_time": 0.0},
    "an unrelated process": lambda pid: {"pid": pid, "create_time": 1.0},
    "an unrelated process, made before": lambda pid: {"pid": pid, "create_time": psutil.Process(pid).create_time() - 5},
    "an unrelated process, made at no time": lambda pid: {"pid": pid, "create_time": float("nan")},
    "an unrelated process, made later than ever": lambda pid: {"pid": pid, "create_time": float("inf")},
    "an unrelated process, unsaid when made": lambda pid: {"pid": pid},
    "an unrelated process, in words": lambda pid: {"pid": str(pid), "create_time": str(time.time())},
    "a number that is no pid": lambda pid: {"pid": 2**70, "create_time": 10**400},
    "true": lambda pid: {"pid": True, "create_time": True},
    "nothing": lambda pid: {},
}


@pytest.mark.parametrize("name", RECORDS)
def test_S20_F59_a_forged_record_is_never_signalled_and_reads_as_interrupted(
    supervise: Make, bystander: Any, signals: list[tuple[int, int]], name: str
) -> None:
    studio = supervise(grace=0.0)
    record = {"attempt": 1, **RECORDS[name](bystander.pid)}
    folder = studio.path("20261122-1412-forged")
    folder.mkdir()
    (folder / "run.yaml").write_text("{}", encoding="utf-8")
    (folder / "process.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "events.jsonl").write_text("", encoding="utf-8")
    assert processes.find(record) is None
    studio.adopt()
    assert studio.status(folder.name) == "interrupted"
    (folder / "stop").touch()  # the forger may ask for a stop too
    studio._watch(studio.runs.job(folder.name))
    until(lambda: not studio._watchers[folder].is_alive())
    with pytest.raises(RunError):
        studio.stop(folder.name)
    assert signals == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\x00" * 50])
def test_F57_a_damaged_record_reads_as_interrupted_and_resumes(studio: Watched, content: str) -> None:
    folder = studio.path("20261122-1412-damaged")
    folder.mkdir()
    for name, text in (("run.yaml", "{}"), ("process.json", content)):
        (folder / name).write_text(text, encoding="utf-8")
    assert studio.status(folder.name) == "interrupted"
    studio.resume(folder.name)
    assert studio.wait(folder.name).status == "finished"


def test_S20_the_process_of_the_record_is_the_only_one_found(bystander: Any) -> None:
    me = psutil.Process(bystander.pid)
    found = processes.find({"pid": me.pid, "create_time": me.create_time()})
    assert found is not None and found.pid == bystander.pid
    assert not processes.is_stopped(found)


@posix
def test_S20_a_zombie_is_not_alive(workers: FakeWorkers, tmp_path: Path) -> None:
    import subprocess
    import sys

    process = subprocess.Popen([sys.executable, "-c", "pass"])
    record = {"pid": process.pid, "create_time": psutil.Process(process.pid).create_time()}
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert processes.find(record) is None
    process.wait()


# -- deleting ---------------------------------------------------------------------------------------------------------


def test_a_run_that_has_ended_is_deleted_with_all_it_made(studio: Watched) -> None:
    keep, run_id = studio.start("keep"), studio.start("delete")
    for one in (keep, run_id):
        studio.wait(one, "finished")
    studio.delete(run_id)
    assert [path.name for path in studio.runs.folder.iterdir()] == [keep]
    assert studio.runs.ids() == [keep]
    with pytest.raises(RunError, match="no run"):
        studio.delete(run_id)


def test_a_name_used_again_after_a_deletion_is_a_new_run(studio: Watched, workers: FakeWorkers) -> None:
    first = studio.start("twin")
    studio.wait(first, "finished")
    studio.delete(first)
    workers.script = "sign start step:1 end:failed"
    second = studio.submit(parse_config({"training": {"seed": 7}}), "twin")
    studio.wait(second, "failed")
    run = studio.runs.get(second)
    assert (run.config.training.seed, len(run.progress.series["loss"])) == (7, 1)


def test_a_live_run_is_not_deleted(studio: Watched, workers: FakeWorkers) -> None:
    workers.scripts["busy"] = LONG
    busy, queued = studio.start("busy"), studio.start("queued")
    studio.wait(busy, "running")
    for run_id in (busy, queued):
        with pytest.raises(RunError, match="Stop it before"):
            studio.delete(run_id)
        assert (studio.path(run_id) / "run.yaml").exists()
    studio.stop(busy)
    with pytest.raises(RunError, match="is stopping"):
        studio.delete(busy)


def test_F5_a_deletion_that_was_killed_leaves_no_run_and_is_finished_later(
    studio: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.workspace import supervisor

    run_id = studio.start()
    studio.wait(run_id, "finished")
    studio.wait_for(run_id, "exit.json")

    class Killed(Exception):
        pass

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if path.exists():
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(supervisor.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            studio.delete(run_id)
    assert studio.runs.ids() == []
    (grave,) = studio.runs.folder.iterdir()
    os.utime(grave, (time.time() - 120,) * 2)
    studio.adopt()
    assert list(studio.runs.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "..", ".", "", "/", "a/../../x", "x\0", "x" * 300, ".deleted-a", "~"])
def test_S16_nothing_outside_the_runs_is_ever_touched(studio: Watched, studio_home: Path, name: str) -> None:
    outside = studio_home / "x"
    outside.mkdir()
    for folder in (outside, studio_home):
        (folder / "run.yaml").write_text("{}", encoding="utf-8")
    acts: list[Callable[[str], Any]] = [studio.delete, studio.stop, studio.resume, studio.runs.get, studio.runs.job]
    for act in acts:
        with pytest.raises(RunError, match="no run") as raised:
            act(name)
        assert len(raised.value.message) < 200
    assert sorted(path.name for path in outside.iterdir()) == ["run.yaml"]


def test_S16_a_link_among_the_runs_is_no_run(studio: Watched, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "run.yaml").write_text("{}", encoding="utf-8")
    (studio.runs.folder / "20261122-1412-linked").symlink_to(outside)
    assert studio.runs.ids() == []
    with pytest.raises(RunError, match="no run"):
        studio.delete("20261122-1412-linked")
    assert (outside / "run.yaml").exists()


# -- a standby --------------------------------------------------------------------------------------------------------


def test_a_standby_takes_the_job_and_another_is_made_ready_after_it(supervise: Make, workers: FakeWorkers) -> None:
    studio = supervise(standby=True)
    studio.launcher.prepare()
    studio.launcher.prepare()
    assert [command[-1] for command in workers.commands] == ["--standby"], "one is enough"
    run_id = studio.start()
    assert studio.wait(run_id).status == "finished"
    until(lambda: len(workers.commands) == 2)
    assert [command[-1] for command in workers.commands] == ["--standby"] * 2
    studio.close()
    assert all(process.poll() is not None for process in workers.processes)


def test_a_standby_that_died_is_replaced_by_a_cold_start(supervise: Make, workers: FakeWorkers) -> None:
    studio = supervise(standby=True)
    studio.launcher.prepare()
    workers.processes[0].kill()
    workers.processes[0].wait()
    run_id = studio.start()
    assert studio.wait(run_id).status == "finished"
    assert workers.commands[1][-1] == str(studio.path(run_id))


def test_closing_ends_the_standby_and_no_worker(supervise: Make, workers: FakeWorkers) -> None:
    studio = supervise(standby=True)
    workers.script = LONG
    run_id = studio.start()
    process = worker_of(studio, run_id)
    studio.launcher.prepare()
    studio.close()
    assert workers.processes[-1].poll() is not None
    assert processes_left(process) == [process]
    studio.launcher.prepare()
    assert len(workers.commands) == 2, "a closed studio makes no standby"
