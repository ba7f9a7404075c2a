"""The runs on disk, read as they grow."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml, parse_config
from studio.core.errors import ConfigError, RunError
from studio.core.events import CheckpointSaved, Ended, Event, Metrics, Stage, to_line
from studio.core.inputs import DatasetInput, Inputs, ModelInput
from studio.workspace.home import runs_dir
from studio.workspace.runs import Runs, summarise


def make_run(run_id: str, *events: Event, config: RunConfig | None = None, label: str = "A run") -> Path:
    folder = runs_dir() / run_id
    folder.mkdir()
    (folder / "run.yaml").write_text(config_to_yaml(config or RunConfig()), encoding="utf-8")
    inputs = Inputs(label, ModelInput("starter", "starter"), DatasetInput("quickstart-sft", "rows.jsonl"))
    (folder / "inputs.json").write_text(inputs.to_json(), encoding="utf-8")
    if events:
        (folder / "process.json").write_text('{"pid": 0, "create_time": 0, "attempt": 1}', encoding="utf-8")
        add(folder, Stage("starting", "Starting", attempt=1, t=100.0), *events)
    return folder


def add(folder: Path, *events: Event) -> None:
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(to_line(event) for event in events)


def at(step: int, **values: float) -> Metrics:
    return Metrics(step, 20, step / 10, 2.0 * step, values or {"loss": 3.0 - step / 10}, t=100.0 + step)


def test_there_are_no_runs_at_first() -> None:
    assert Runs().list() == []


def test_the_list_is_newest_first_and_paged() -> None:
    for number in range(5):
        make_run(f"20261122-141{number}-a")
    runs = Runs()
    assert [run.id[9:13] for run in runs.list()] == ["1414", "1413", "1412", "1411", "1410"]
    assert [run.id[9:13] for run in runs.list(first=1, most=2)] == ["1413", "1412"]
    assert runs.list(first=5) == []


def test_only_runs_are_runs(tmp_path: Path) -> None:
    make_run("20261122-1412-a")
    (runs_dir() / "20261122-1413-empty").mkdir()
    (runs_dir() / "notes.txt").write_text("", encoding="utf-8")
    make_run(".new-b-1")
    (runs_dir() / "20261122-1414-linked").symlink_to(runs_dir() / "20261122-1412-a")
    assert Runs().ids() == ["20261122-1412-a"]


def test_a_run_is_summed_up_in_a_line() -> None:
    config = parse_config({"training": {"seed": 3}, "adapter": None, "dataset": {"path": "mine"}})
    events = [at(1), at(2, loss=2.5, eval_loss=2.75), at(4, loss=2.0, eval_loss=3.0), Ended("finished", t=300.0)]
    make_run("20261122-1412-a", *events, config=config, label="My run")
    summary = summarise(Runs().get("20261122-1412-a"))
    assert (summary.id, summary.name, summary.status, summary.method) == (
        "20261122-1412-a",
        "My run",
        "finished",
        "sft",
    )
    assert (summary.model, summary.dataset, summary.adapter) == ("starter", "mine", "full")
    assert (summary.step, summary.max_steps, summary.elapsed, summary.started) == (4, 20, 8.0, 100.0)
    assert (summary.loss, summary.eval_loss, summary.best_eval_loss, summary.eta) == (2.0, 3.0, 2.75, None)


def test_a_run_that_nobody_has_taken_is_summed_up_too() -> None:
    make_run("20261122-1412-a")
    summary = summarise(Runs().get("20261122-1412-a"))
    assert (summary.status, summary.step, summary.loss, summary.started, summary.eta) == ("queued", 0, None, None, None)


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from studio.core import job

    folder = make_run("20261122-1412-a", *map(at, range(1, 11)))
    runs = Runs()
    runs.get(folder.name)
    lines: list[bytes] = []
    real = job.from_line
    monkeypatch.setattr(job, "from_line", lambda line: (lines.append(line), real(line))[1])
    assert runs.get(folder.name).progress.step == 10
    assert lines == []
    add(folder, at(11))
    assert runs.get(folder.name).progress.step == 11
    assert len(lines) == 1


def test_F55_a_line_that_is_being_written_changes_nothing_yet() -> None:
    folder = make_run("20261122-1412-a", at(1))
    runs = Runs()
    line = to_line(at(2)).encode()
    with (folder / "events.jsonl").open("ab") as file:
        file.write(line[:20])
        file.flush()
        assert runs.get(folder.name).progress.step == 1
        file.write(line[20:])
    assert runs.get(folder.name).progress.step == 2


def test_F57_damaged_runs_are_passed_over_in_the_list_and_told_when_asked_for() -> None:
    make_run("20261122-1412-a")
    damaged = make_run("20261122-1413-b")
    (damaged / "run.yaml").write_text("training: [", encoding="utf-8")
    runs = Runs()
    assert [run.id for run in runs.list()] == ["20261122-1412-a"]
    with pytest.raises(ConfigError, match=r"run\.yaml, line \d"):
        runs.get(damaged.name)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"label": 5}', "[" * 100_000])
def test_F57_a_run_without_its_inputs_is_called_by_its_id(content: str) -> None:
    folder = make_run("20261122-1412-a")
    (folder / "inputs.json").write_text(content, encoding="utf-8")
    run = Runs().get(folder.name)
    assert (run.label, run.inputs) == (folder.name, None)


def test_a_run_that_is_not_there_is_told_so() -> None:
    with pytest.raises(RunError, match="no run 'nothing'"):
        Runs().get("nothing")


def test_the_result_is_the_adapter_or_the_model_once_it_is_whole() -> None:
    for name, mark in (("adapter", "adapter_config.json"), ("model", "config.json")):
        folder = make_run(f"20261122-1412-{name}", at(1))
        (folder / name).mkdir()
        assert Runs().get(folder.name).output is None
        (folder / name / mark).write_text("{}", encoding="utf-8")
        assert Runs().get(folder.name).output == folder / name


def test_the_last_checkpoint_that_is_there_can_be_talked_to() -> None:
    saved = [CheckpointSaved(step, f"checkpoints/checkpoint-{step}") for step in (5, 10, 15)]
    folder = make_run("20261122-1412-a", at(5), *saved)
    assert Runs().get(folder.name).latest_adapter is None
    for step in (5, 10):
        (folder / f"checkpoints/checkpoint-{step}").mkdir(parents=True)
    assert Runs().get(folder.name).latest_adapter == folder / "checkpoints" / "checkpoint-10"
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert Runs().get(folder.name).latest_adapter == folder / "adapter"


def test_what_is_forgotten_is_read_anew() -> None:
    folder = make_run("20261122-1412-a", at(1), at(2))
    runs = Runs()
    assert runs.get(folder.name).progress.step == 2
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    runs.forget(folder.name)
    make_run("20261122-1412-a", at(1), config=parse_config({"training": {"seed": 7}}))
    run = runs.get(folder.name)
    assert (run.progress.step, run.config.training.seed) == (1, 7)
