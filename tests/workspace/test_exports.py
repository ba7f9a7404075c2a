"""Exports: where they may be written, and how they end."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from studio.core.config import ExportConfig
from studio.core.errors import RunError, TargetError
from studio.workspace import processes
from studio.workspace.follow import follow_export
from studio.workspace.runs import Run, read_export
from studio.workspace.submission import check_target
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers, until
from tests.workspace.conftest import Make, Watched


@pytest.fixture
def run(studio: Watched) -> Run:
    """A finished run."""
    run_id = studio.start("taught")
    studio.wait(run_id, "finished")
    return studio.runs.get(run_id)


# -- where it may be written ------------------------------------------------------------------------------------------


def test_a_new_or_an_empty_folder_may_be_written(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "new", tmp_path / "deep" / "er", tmp_path / "empty"):
        assert check_target(target, run) == target
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"], "looking leaves nothing"
    monkeypatch.chdir(tmp_path)
    assert check_target(Path("here"), run) == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert check_target(Path("~/there"), run) == tmp_path / "there"


def test_F49_nothing_that_is_there_is_written_over(run: Run, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, words in (
        ("full", "isn't empty"),  # a base model's folder is one of these
        ("file", "is a file"),
        ("link", "is a link"),
        ("dangling", "is a link"),
    ):
        with pytest.raises(TargetError, match=words) as raised:
            check_target(tmp_path / name, run)
        assert raised.value.exit_code == 2
        assert raised.value.hint
    assert (full / "config.json").read_text(encoding="utf-8") == "{}"


def test_F49_a_run_is_not_exported_into_itself(run: Run, tmp_path: Path) -> None:
    (tmp_path / "by-link").symlink_to(run.folder.path)
    inside = run.folder.path / "merged"
    for target in (inside, inside / "deeper", tmp_path / "by-link" / "merged", run.folder.path / "a" / ".." / "b"):
        with pytest.raises(TargetError, match="inside the run"):
            check_target(target, run)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "~nobody-of-this-name/x", "file/below"])
def test_F51_what_can_be_no_folder_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(TargetError):
        check_target(Path(name) if name.startswith("~") else tmp_path / name, run)


def test_F23_a_place_that_cannot_be_written_is_refused_before_anything_starts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: Path, *_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(TargetError, match="Read-only file system"):
        check_target(tmp_path / "new", run)


# -- how it goes ------------------------------------------------------------------------------------------------------


def ends(studio: Watched, job_id: str) -> str:
    """The state that an export ends in."""

    def look() -> str:
        (job,) = (job for job in studio.exports() if job.id == job_id)
        return job.state.status if job.state.status not in ("queued", "running", "stopping") else ""

    return str(until(look))


def test_an_export_is_a_job_with_a_folder_of_its_own(
    studio: Watched, workers: FakeWorkers, run: Run, studio_home: Path, tmp_path: Path
) -> None:
    job = studio.export(ExportConfig(run=run.id, format="merged", out=str(tmp_path / "out"), dtype="float16"))
    assert job.folder.path.parent == studio_home / "exports"
    assert job.id.endswith("-taught-merged")
    assert ends(studio, job.id) == "finished"
    assert read_export(job.folder.path).config == job.config
    assert job.config.out == str(tmp_path / "out")
    assert studio.runs.ids() == [run.id], "an export is no run"


def test_an_export_does_not_wait_for_a_run(studio: Watched, workers: FakeWorkers, run: Run, tmp_path: Path) -> None:
    workers.scripts["busy"] = "sign start wait:go end:finished"
    busy = studio.start("busy")
    studio.wait(busy, "running")
    job = studio.export(ExportConfig(run=run.id, out=str(tmp_path / "out")))
    assert ends(studio, job.id) == "finished"
    assert studio.status(busy) == "running"


def test_an_export_is_cancelled_like_a_run_is_stopped(
    studio: Watched, workers: FakeWorkers, run: Run, tmp_path: Path
) -> None:
    workers.script = "sign start obey end:stopped"
    job = studio.export(ExportConfig(run=run.id, out=str(tmp_path / "out")))
    until(lambda: read_export(job.folder.path).state.status == "running")
    studio.stop_export(job)
    assert ends(studio, job.id) == "stopped"


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_F12_an_export_that_ignores_its_cancelling_is_ended(
    supervise: Make, workers: FakeWorkers, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "end", partial(processes.end, grace=0.2))
    workers.script = "deaf sign start wait:never"
    studio = supervise(grace=0.3)
    job = studio.export(ExportConfig(run=run.id, out=str(tmp_path / "out")))
    until(lambda: read_export(job.folder.path).state.status == "running")
    studio.stop_export(job)
    assert ends(studio, job.id) == "stopped"


def test_a_run_without_a_result_is_not_exported(studio: Watched, workers: FakeWorkers, tmp_path: Path) -> None:
    workers.script = "sign start step:1 end:failed exit:1"
    run_id = studio.start()
    studio.wait(run_id, "failed")
    with pytest.raises(RunError, match="nothing to export yet; it is failed"):
        studio.export(ExportConfig(run=run_id, out=str(tmp_path / "out")))
    with pytest.raises(RunError, match="no run"):
        studio.export(ExportConfig(run="../x", out=str(tmp_path / "out")))
    assert studio.exports() == []


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_F4_a_killed_export_is_told_as_killed(supervise: Make, workers: FakeWorkers, run: Run, tmp_path: Path) -> None:
    workers.script = "sign start kill:9"
    studio = supervise()
    job = studio.export(ExportConfig(run=run.id, out=str(tmp_path / "out")))
    ended = follow_export(studio, job, lambda text: None)
    assert (ended.state.status, "killed (9)" in ended.state.cause) == ("failed", True)
    assert not (tmp_path / "out").exists()


def test_F57_a_damaged_export_hides_no_other(studio: Watched, run: Run, studio_home: Path, tmp_path: Path) -> None:
    job = studio.export(ExportConfig(run=run.id, out=str(tmp_path / "out")))
    for name, text in (("20200101-0000-a", "["), ("20200101-0000-b", "{}")):
        (studio_home / "exports" / name).mkdir()
        (studio_home / "exports" / name / "export.yaml").write_text(text, encoding="utf-8")
    (studio_home / "exports" / "notes.txt").write_text("", encoding="utf-8")
    assert [found.id for found in studio.exports()] == [job.id]
    assert ends(studio, job.id) == "finished"


def test_the_target_is_checked_again_by_nobody_else(run: Run, tmp_path: Path) -> None:
    """Two exports to one target: the second is refused once there is something in it."""
    supervisor = Supervisor()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("", encoding="utf-8")
    with pytest.raises(TargetError, match="isn't empty"):
        supervisor.export(ExportConfig(run=run.id, out=str(tmp_path / "out")))
    assert supervisor.exports() == []
