"""`studio sweep`: a line a trial, the table, JSON; a sweep that goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.core.configfile import load_config
from studio.workspace import follow, supervisor, sweeps
from studio.workspace.home import runs_dir
from tests.commands import Command, runner
from tests.fake_worker import FakeWorkers

RATE = "training.learning_rate"


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], workers: FakeWorkers) -> Command:
    """Runs `studio ARGS` in this process, over fake workers."""
    monkeypatch.setattr(supervisor, "_POLL", 0.02)
    monkeypatch.setattr(sweeps, "_POLL", 0.02)
    monkeypatch.setattr(follow, "_POLL", 0.02)
    workers.script = "sign start judge:1 judge:4 adapter end:finished"
    return runner(monkeypatch, capfd)


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("{adapter: {r: 4}}", encoding="utf-8")
    return path


def test_trials_are_told_and_the_best_can_be_copied(studio: Command, run_yaml: Path) -> None:
    said = studio("sweep", run_yaml, "--vary", f"{RATE}=1e-3,1e-5", "--trials", 3, "--name", "Rates", "--no-prune")
    assert said.code == 0
    assert said.err.count("trial ") == 3 and "finished" in said.err
    assert "Best: trial " in said.out and f"--set {RATE}=0.001" in said.out


def test_json_and_going_on(studio: Command, run_yaml: Path) -> None:
    told = studio(
        "sweep", run_yaml, "--vary", f"{RATE}=1e-3,1e-5", "--trials", 2, "--set", "adapter.r=2", "--json"
    ).json
    assert told["status"] == "finished" and [trial["outcome"] for trial in told["trials"]] == ["finished"] * 2
    assert told["best"]["value"] == min(trial["value"] for trial in told["trials"])
    again = studio("sweep", told["id"], "--json").json
    assert again["trials"] == told["trials"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "nothing to vary"),
        (("--vary", "training.learning_rat=1e-3,1e-5"), "learning_rate"),
        (("--vary", f"{RATE}=1e-3"), "two different values"),
        (("--vary", "adapter.r=2,4", "--set", "dataset.validation_split=0"), "no trial is better"),
    ],
)
def test_what_can_t_be_searched_is_refused(
    studio: Command, run_yaml: Path, arguments: tuple[str, ...], words: str
) -> None:
    said = studio("sweep", run_yaml, *arguments)
    assert said.code == 2 and words in said.err and said.err.count("\n") == 1


def test_a_rate_is_looked_for_in_a_run_of_its_own(studio: Command, run_yaml: Path, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 result:suggested=0.003 end:finished"
    said = studio("find-rate", run_yaml, "--steps", 30)
    assert (said.code, said.out) == (0, "training.learning_rate=0.003\n")
    workers.script = "sign start step:1 result:suggested=null end:finished"
    none = studio("find-rate", run_yaml)
    assert none.code == 1 and "fell at no rate" in none.out
    (run, _) = sorted(runs_dir().iterdir())
    config = load_config(run / "run.yaml")
    assert config.training.find_learning_rate and config.training.max_steps == 30
    workers.script = "sign start end:failed exit:1"
    assert studio("find-rate", run_yaml).code == 1
