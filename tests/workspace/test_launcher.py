"""How workers are started: their environment, and that the user's own settings win."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studio.workspace.launcher import Launcher, worker_env
from tests.fake_worker import FakeWorkers


def test_what_the_user_has_set_wins(monkeypatch: pytest.MonkeyPatch, studio_home: Path) -> None:
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    assert worker_env()["TOKENIZERS_PARALLELISM"] == "false"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    assert worker_env()["TOKENIZERS_PARALLELISM"] == "true"


def test_a_worker_keeps_its_state_where_the_studio_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, studio_home: Path
) -> None:
    monkeypatch.chdir(studio_home.parent)
    monkeypatch.setenv("STUDIO_HOME", studio_home.name)  # relative to where the studio was started, not the worker
    assert worker_env()["STUDIO_HOME"] == str(studio_home)


def test_S15_a_job_is_one_argument_whatever_its_path(workers: FakeWorkers, tmp_path: Path) -> None:
    folder = tmp_path / "--serve; touch x"
    folder.mkdir()
    workers.script = "say:here"
    launcher = Launcher(standby=False)
    process = launcher.job(folder)
    assert process.wait(timeout=30) == 0
    (command,) = workers.commands
    assert command[0] == sys.executable
    assert command[command.index("-m") + 1 :] == ["studio.worker", str(folder)]
    assert (folder / "worker.log").read_text(encoding="utf-8").strip() == "here"
