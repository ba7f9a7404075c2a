"""The command line: exit codes, JSON on stdout and nothing else, one sentence where something is wrong."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml, load_config
from studio.workspace import follow, supervisor
from studio.workspace.home import bundled, runs_dir
from studio.workspace.runs import Runs, RunSummary
from tests.commands import Command, runner
from tests.fake_worker import FakeWorkers, until
from tests.workspace.test_runs import at, make_run

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], workers: FakeWorkers) -> Command:
    """Runs `studio ARGS` in this process, over fake workers."""
    monkeypatch.setattr(supervisor, "_POLL", 0.02)
    monkeypatch.setattr(follow, "_POLL", 0.02)

    return runner(monkeypatch, capfd)


@pytest.fixture
def run_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(config_to_yaml(RunConfig()), encoding="utf-8")
    return path


def only_run() -> str:
    (run_id,) = Runs().ids()
    return run_id


# -- training ---------------------------------------------------------------------------------------------------------


def test_a_run_is_followed_to_its_end_and_its_folder_is_the_last_line(
    studio: Command, run_yaml: Path, workers: FakeWorkers
) -> None:
    said = studio("train", run_yaml, "--name", "My run", "--set", "training.seed=7", "--set", "adapter.r=4")
    assert said.code == 0
    assert said.out == f"{runs_dir() / only_run()}\n"
    assert "step 2/10  loss 2.800" in said.err
    run = Runs().get(only_run())
    assert (run.state.status, run.label) == ("finished", "My run")
    assert run.config.training.seed == 7 and run.config.adapter is not None and run.config.adapter.r == 4
    workers.script = "sign start adapter end:finished"
    again = studio("train", run.folder.run_config)  # a run's own file replays it
    assert again.code == 0
    assert load_config(Path(again.out.strip()) / "run.yaml") == run.config


_SHIPPED = sorted(path.name for path in bundled("presets").glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in _SHIPPED if not name.startswith(("rlhf-2", "rlhf-3"))])
def test_a_shipped_preset_trains(studio: Command, name: str) -> None:
    assert studio("train", bundled("presets") / name).code == 0


@pytest.mark.parametrize("last", [name for name in _SHIPPED if name.startswith("rlhf-3")])
def test_the_presets_of_a_chain_train_one_after_the_other(studio: Command, last: str) -> None:
    names = ["rlhf-1-sft.yaml", "rlhf-2-reward.yaml", last]
    said = studio("train", *(bundled("presets") / name for name in names), "--set", "training.seed=7")
    assert said.code == 0
    first, second, third = (Runs().get(Path(line).name) for line in said.out.splitlines())
    assert second.config.model.name_or_path == third.config.model.name_or_path == f"run:{first.id}"
    assert third.config.method.rewards == [f"model:run:{second.id}"]  # type: ignore[union-attr]
    assert {run.config.training.seed for run in (first, second, third)} == {7}


def test_a_chain_ends_where_a_run_fails_and_begins_only_in_order(
    studio: Command, workers: FakeWorkers, tmp_path: Path
) -> None:
    presets = [bundled("presets") / name for name in ("rlhf-1-sft.yaml", "rlhf-2-reward.yaml")]
    said = studio("train", presets[1], presets[0])
    assert (said.code, said.out) == (2, "") and "no file before it" in said.err
    workers.scripts["mine 1"] = "sign start end:failed exit:1"
    said = studio("train", *presets, "--name", "mine")
    assert said.code == 1
    assert said.out == f"{runs_dir() / only_run()}\n"


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("sign start end:failed exit:1", 1, "The cause that the worker gave. And the hint."),
        ("sign start say:Boom exit:3", 1, "code 3: Boom"),
        ("exit:3", 1, "code 3"),
        ("sign start note:two_rows_cut end:stopped", 130, "two_rows_cut"),
    ],
)
def test_a_run_that_ends_otherwise_has_its_own_exit_code(
    studio: Command, run_yaml: Path, workers: FakeWorkers, script: str, code: int, words: str
) -> None:
    workers.script = script
    said = studio("train", run_yaml)
    assert said.code == code
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.out == f"{runs_dir() / only_run()}\n"


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        (None, [], "There is no file"),
        ("training: [", [], "run.yaml, line "),
        ("- a", [], "holds no settings"),
        ("training: {learning_rat: 1}", [], "Did you mean training.learning_rate?"),
        (
            "training: {learning_rate: 7}",
            [],
            "training.learning_rate: should be less than or equal to 1 ('7' was given).",
        ),
        ("", ["--set", "training.seed=-1"], "training.seed: should be greater than or equal to 0"),
        ("", ["--set", "trainng.seed=1"], "Did you mean training?"),
        ("", ["--set", "training.seed"], "Write it as --set"),
        ("dataset: {path: nothing}", [], "dataset.path: there is no dataset or file 'nothing'."),
        ("model: {name_or_path: nothing}", [], "model.name_or_path: there is no model 'nothing'."),
    ],
)
def test_a_bad_config_is_told_in_a_sentence_and_makes_no_run(
    studio: Command, tmp_path: Path, workers: FakeWorkers, text: str | None, arguments: list[str], words: str
) -> None:
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    said = studio("train", path, *arguments)
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert said.err.count("\n") == 1, "one sentence, no traceback"
    assert Runs().ids() == [] and workers.commands == []


def test_only_debug_shows_a_traceback(studio: Command, tmp_path: Path) -> None:
    said = studio("--debug", "train", tmp_path / "nowhere.yaml")
    assert said.code == 2
    assert said.err.startswith("Traceback") and "There is no file" in said.err.splitlines()[-1]


def test_unknown_commands_and_options_are_a_wrong_use(studio: Command) -> None:
    for arguments in (["dance"], ["train"], ["runs", "show"], ["train", "x.yaml", "--colour", "red"]):
        said = studio(*arguments)
        assert (said.code, said.out) == (2, "")
        assert "Traceback" not in said.err


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_lets_the_run_save_and_ends_with_130(run_yaml: Path) -> None:
    program = (
        "from tests.fake_worker import FakeWorkers; fakes = FakeWorkers(); fakes.install();"
        "fakes.script = 'sign start work end:stopped'; from studio.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "train", str(run_yaml)],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    runs = Runs()
    until(lambda: runs.list() and runs.list()[0].progress.step > 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to everything in the foreground
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    run = runs.get(only_run())
    assert (run.state.status, len(run.progress.checkpoints)) == ("stopped", 1)
    assert out == f"{run.folder.path}\n"
    assert "checkpoint is being saved" in err and "Traceback" not in err


# -- runs -------------------------------------------------------------------------------------------------------------


def test_no_runs_are_told_as_none(studio: Command) -> None:
    assert studio("runs", "list").out == "No runs yet.\n"
    assert studio("runs", "list", "--json").json == {"runs": []}


def test_runs_are_listed_newest_first(studio: Command) -> None:
    make_run("20261122-1412-a", at(1), label="Größe 🦙")
    make_run("20261122-1413-b")
    listed = studio("runs", "list", "--json").json["runs"]
    assert [run["id"] for run in listed] == ["20261122-1413-b", "20261122-1412-a"]
    assert all(set(run) == {field.name for field in fields(RunSummary)} for run in listed)
    assert (listed[1]["name"], listed[1]["status"], listed[1]["loss"]) == ("Größe 🦙", "interrupted", 2.9)
    text = studio("runs", "list").out.splitlines()
    assert text[0].split()[:2] == ["20261122-1413-b", "queued"]
    assert "Größe 🦙" in text[1]


def test_what_a_terminal_cannot_write_is_spelled_and_json_stays_json(
    studio: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("20261122-1412-a", at(1), label="Größe 🦙")
    for arguments in (["runs", "list"], ["runs", "list", "--json"], ["runs", "show", "20261122-1412-a"]):
        narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", narrow)
            assert studio(*arguments).code == 0
        out = narrow.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
        if "--json" in arguments:
            assert json.loads(out)["runs"][0]["name"] == "Größe 🦙"
        else:
            assert "Gr\\xf6\\xdfe" in out


def test_F41_a_loss_that_is_no_number_is_told_in_json_that_every_program_reads(studio: Command) -> None:
    make_run("20261122-1412-a", at(1, loss=math.nan, eval_loss=math.inf))
    (run,) = studio("runs", "list", "--json").json["runs"]
    assert (run["loss"], run["eval_loss"], run["best_eval_loss"]) == ("NaN", "Infinity", None)
    assert studio("runs", "list").out.split()[3] == "nan"


def test_a_run_is_shown_with_its_settings(studio: Command) -> None:
    folder = make_run("20261122-1412-a", at(1))
    shown = studio("runs", "show", folder.name, "--json").json
    expected = {field.name for field in fields(RunSummary)} | {"folder", "hint", "notes", "result", "config"}
    assert set(shown) == expected
    assert (shown["folder"], shown["status"]) == (str(folder), "interrupted")
    assert "Resume" in shown["hint"]
    assert shown["config"] == RunConfig().model_dump(mode="json")
    text = studio("runs", "show", folder.name).out
    assert "learning_rate: 0.0002" in text and "interrupted" in text


@pytest.mark.parametrize("command", ["show", "stop", "resume", "delete"])
@pytest.mark.parametrize("name", ["nothing", "../x", ""])
def test_a_run_that_is_not_there_is_told_so(studio: Command, command: str, name: str) -> None:
    said = studio("runs", command, name)
    assert (said.code, said.out) == (1, "")
    assert said.err == f"There is no run {name!r}. `studio runs list` shows them.\n"


def test_a_run_is_stopped_and_waited_for(studio: Command, workers: FakeWorkers) -> None:
    workers.script = "sign start work end:stopped"
    watching = supervisor.Supervisor()
    run_id = watching.submit(RunConfig())
    until(lambda: watching.runs.get(run_id).state.status == "running")
    said = studio("runs", "stop", run_id, "--json")
    assert said.code == 0
    assert said.json == {"id": run_id, "status": "stopped", "cause": ""}
    again = studio("runs", "stop", run_id)
    assert (again.code, again.out) == (1, "")
    assert "isn't running; it is stopped" in again.err
    watching.close()


def test_a_stopped_run_is_resumed_and_followed(studio: Command, run_yaml: Path, workers: FakeWorkers) -> None:
    workers.script = "sign start step:1 save:1 end:stopped"
    assert studio("train", run_yaml).code == 130
    workers.script = "sign start:1 step:2 adapter end:finished"
    said = studio("runs", "resume", only_run())
    assert (said.code, said.out) == (0, f"{runs_dir() / only_run()}\n")
    assert "step 2/10" in said.err and "step 1/10" not in said.err
    assert studio("runs", "resume", only_run()).code == 1


def test_a_run_is_deleted_only_with_a_yes(
    studio: Command, run_yaml: Path, monkeypatch: pytest.MonkeyPatch, workers: FakeWorkers
) -> None:
    studio("train", run_yaml)
    run_id = only_run()
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        said = studio("runs", "delete", run_id)
        assert (said.code, said.out.strip(), Runs().ids()) == (1, "", [run_id])
        assert str(runs_dir() / run_id) in said.err
    said = studio("runs", "delete", run_id, "--yes", "--json")
    assert said.json == {"id": run_id, "deleted": True}
    assert Runs().ids() == []


def test_a_live_run_is_not_deleted(studio: Command, workers: FakeWorkers) -> None:
    workers.script = "sign start work end:stopped"
    watching = supervisor.Supervisor()
    run_id = watching.submit(RunConfig())
    until(lambda: watching.runs.get(run_id).state.status == "running")
    said = studio("runs", "delete", run_id, "--yes")
    assert (said.code, Runs().ids()) == (1, [run_id])
    assert "Stop it before deleting it." in said.err
    watching.stop(run_id)
    until(lambda: not watching.runs.get(run_id).live)
    watching.close()


# -- models, exports, chat --------------------------------------------------------------------------------------------


def test_models_are_listed(studio: Command) -> None:
    listed = studio("models", "list", "--json").json["models"]
    assert [model["name"] for model in listed] == ["starter"]
    assert all(set(model) == {"name", "path", "bytes"} for model in listed)
    assert studio("models", "list").out.startswith("starter ")


def test_an_export_is_refused_before_it_starts(studio: Command, run_yaml: Path, tmp_path: Path) -> None:
    studio("train", run_yaml)
    run_id = only_run()
    for arguments, code, words in (
        (["nothing", "--out", tmp_path / "out"], 1, "There is no run 'nothing'."),
        ([run_id, "--out", tmp_path / "out", "--format", "zip"], 2, "format: "),
        ([run_id, "--out", run_yaml], 2, "is a file"),
        ([run_id, "--out", run_yaml.parent], 2, "isn't empty"),
    ):
        said = studio("export", *arguments)
        assert (said.code, said.out) == (code, "")
        assert words in said.err and said.err.count("\n") == 1


def test_an_export_that_fails_is_told_with_its_cause(
    studio: Command, run_yaml: Path, tmp_path: Path, workers: FakeWorkers
) -> None:
    studio("train", run_yaml)
    workers.script = "sign start end:failed exit:1"
    said = studio("export", only_run(), "--out", tmp_path / "out", "--json")
    assert (said.code, said.out) == (1, "")
    assert said.err.splitlines()[-1] == "The cause that the worker gave. And the hint."


def test_one_question_is_answered_by_both_sides(studio: Command, run_yaml: Path) -> None:
    studio("train", run_yaml)
    said = studio("chat", only_run(), "--prompt", "Hi", "--json")
    assert said.code == 0
    assert said.json == {
        "target": only_run(),
        "prompt": "Hi",
        "answers": {"base": "base heard Hi", "tuned": "tuned heard Hi"},
    }
    assert studio("chat", "starter", "--prompt", "Hi").out == "base heard Hi\n\n"
    assert studio("chat", "nothing", "--prompt", "Hi").code == 2


def test_a_question_may_come_from_a_pipe(studio: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi there"))
    assert studio("chat", "starter").out == "base heard Hi there\n\n"


@pytest.mark.parametrize("arguments", [["--format", "magic"], ["--train-on", "nobody"], ["--max-length", "1"]])
def test_a_row_is_shown_by_knobs_that_there_are(studio: Command, arguments: list[str]) -> None:
    said = studio("data", "show", "quickstart-sft", *arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1


def test_help_names_every_command(studio: Command) -> None:
    said = studio("--help")
    assert said.code == 0
    for command in ("ui", "train", "data", "models", "runs", "chat", "export"):
        assert f"\n  {command} " in said.out
    for group, commands in (("runs", ("list", "show", "stop", "resume", "delete")), ("models", ("list", "get"))):
        text = studio(group, "--help").out
        assert all(f"\n  {command} " in text for command in commands)
