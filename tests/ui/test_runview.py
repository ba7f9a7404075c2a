"""A run as the page asks for it: by offset, whole lines only, nothing lost and nothing twice."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from studio.core.configfile import config_to_yaml, parse_config
from studio.core.events import CheckpointSaved, Note, Stage
from studio.ui import runview
from studio.workspace.runs import Runs
from tests.ui.made_runs import add, ended, make_run, metrics


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_the_first_question_gets_the_curves_and_later_ones_only_what_is_new(runs: Runs) -> None:
    folder = make_run(runs.folder, "run-1", metrics(1), metrics(2), alive=True)
    first = runview.news(runs, "run-1", 0)
    assert first["series"]["loss"] == {"steps": [1, 2], "values": [2.99, 2.98]}
    assert first["events"] == []
    assert first["offset"] == (folder / "events.jsonl").stat().st_size

    nothing = runview.news(runs, "run-1", first["offset"])
    assert (nothing["series"], nothing["events"], nothing["offset"]) == (None, [], first["offset"])

    add(folder, metrics(3), CheckpointSaved(3, "checkpoints/3"), Note("info", "not for the curves"))
    later = runview.news(runs, "run-1", first["offset"])
    assert later["series"] is None
    assert [event["event"] for event in later["events"]] == ["metrics", "checkpoint"]
    assert later["events"][0]["values"] == {"loss": 2.97}
    assert (later["step"], later["status"]) == (3, "running")


def test_F55_a_line_still_being_written_is_held_back(runs: Runs) -> None:
    folder = make_run(runs.folder, "run-1", metrics(1), alive=True)
    before = runview.news(runs, "run-1", 0)
    line = json.dumps({"event": "metrics", "step": 2, "max_steps": 9, "epoch": 1, "elapsed": 4, "values": {"loss": 1}})
    with (folder / "events.jsonl").open("a") as file:
        file.write(line[:25])
    torn = runview.news(runs, "run-1", before["offset"])
    assert (torn["events"], torn["offset"], torn["step"]) == ([], before["offset"], 1)
    assert runview.news(runs, "run-1", 0)["offset"] == before["offset"]
    with (folder / "events.jsonl").open("a") as file:
        file.write(line[25:] + "\n")
    whole = runview.news(runs, "run-1", torn["offset"])
    assert [event["step"] for event in whole["events"]] == [2]
    assert runview.news(runs, "run-1", whole["offset"])["events"] == []


def test_F41_numbers_that_are_none_keep_their_step(runs: Runs) -> None:
    folder = make_run(runs.folder, "run-1", metrics(1), metrics(2, loss=math.nan), metrics(3, loss=math.inf))
    told = runview.news(runs, "run-1", 0)
    assert told["series"]["loss"] == {"steps": [1, 2, 3], "values": [2.99, None, None]}
    add(folder, metrics(4, loss=math.nan))
    later = runview.news(runs, "run-1", told["offset"])
    assert later["events"][0]["values"] == {"loss": "NaN"}


@pytest.mark.parametrize("offset", [10**9, -5])
def test_a_foreign_offset_gets_everything_anew(runs: Runs, offset: int) -> None:
    make_run(runs.folder, "run-1", metrics(1))
    told = runview.news(runs, "run-1", offset)
    assert told["series"]["loss"]["steps"] == [1]


def test_a_page_far_behind_gets_the_curves_thinned_out(runs: Runs) -> None:
    folder = make_run(runs.folder, "run-1", metrics(1))
    offset = runview.news(runs, "run-1", 0)["offset"]
    add(folder, *(metrics(step) for step in range(2, 9000)))
    told = runview.news(runs, "run-1", offset)
    assert told["events"] == []
    assert len(told["series"]["loss"]["steps"]) <= 2000
    assert told["offset"] == (folder / "events.jsonl").stat().st_size


def test_a_resumed_run_s_curves_come_anew(runs: Runs) -> None:
    folder = make_run(runs.folder, "run-1", metrics(1), metrics(2), metrics(3))
    offset = runview.news(runs, "run-1", 0)["offset"]
    add(folder, Stage("starting", "Starting", attempt=2, from_step=1), metrics(2, loss=0.5))
    told = runview.news(runs, "run-1", offset)
    assert told["series"]["loss"] == {"steps": [1, 2], "values": [2.99, 0.5]}
    assert told["attempt"] == 2


def test_what_can_be_done_follows_from_the_state(runs: Runs) -> None:
    make_run(runs.folder, "live", metrics(1), alive=True)
    make_run(runs.folder, "lost", metrics(1))
    done = make_run(runs.folder, "done", metrics(1), ended())
    (done / "adapter").mkdir()
    (done / "adapter" / "adapter_config.json").write_text("{}")
    can = {run: {verb for verb, yes in runview.news(runs, run, 0)["can"].items() if yes} for run in runs.ids()}
    assert can == {"live": {"stop"}, "lost": {"resume", "delete"}, "done": {"delete", "chat", "export"}}


def test_the_log_comes_in_whole_lines_and_from_near_its_end_first(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert runview.log_since(log, -1) == ("", 0)
    log.write_bytes(b"one\ntwo\nthr")
    assert runview.log_since(log, -1) == ("one\ntwo\n", 8)
    assert runview.log_since(log, 4) == ("two\n", 8)
    assert runview.log_since(log, 8) == ("", 8)
    log.write_bytes(b"x" * 99 + b"\n" * 1 + b"line\n" * 50_000)
    text, offset = runview.log_since(log, 0)
    assert len(text) <= runview.LOG_BYTES and offset == log.stat().st_size
    assert runview.log_since(log, 10**9)[1] == offset, "a log that was cut short is begun anew"


def test_F54_control_characters_and_overwritten_progress_are_left_out_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_bytes(b"\x1b[31mred\x1b[0m\x07 \xff<img src=x>\n 1/9\r 5/9\r 9/9\r\nend\n")
    assert runview.log_since(log, -1)[0] == "red \N{REPLACEMENT CHARACTER}<img src=x>\n 9/9\nend\n"


def test_whole_bytes_looks_behind_a_long_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"{}\n" + b"x" * 200_000)
    assert runview.whole_bytes(path) == 3
    path.write_bytes(b"x" * 200_000)
    assert runview.whole_bytes(path) == 0


def test_details_hold_the_settings_and_the_command_that_repeats_them(runs: Runs) -> None:
    folder = make_run(runs.folder, "run-1", Note("warning", "3 rows were cut."), metrics(1), label="Näme <b>")
    told = runview.details(runs.get("run-1"))
    assert told["yaml"] == (folder / "run.yaml").read_text()
    assert told["command"] == f"studio train {folder / 'run.yaml'}"
    assert told["notes"] == [{"level": "warning", "text": "3 rows were cut."}]
    assert told["name"] == "Näme <b>"


def test_a_run_that_finds_a_rate_says_so_and_leaves_nothing_to_use(runs: Runs) -> None:
    folder = make_run(runs.folder, "finder", metrics(1, loss=2.0), ended("stopped"))
    config = parse_config({"training": {"find_learning_rate": True}})
    (folder / "run.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    told = runview.news(runs, "finder", 0)
    assert told["finder"] and [verb for verb, can in told["can"].items() if can] == ["delete"]
