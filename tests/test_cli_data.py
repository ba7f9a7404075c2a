"""`studio data ...`: JSON with the promised keys, tables for people, one sentence where something is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Command, Said, runner
from tests.tiny import make_tiny_llama

GOOD = [{"prompt": f"Question {n}?", "completion": f"Answer number {n}."} for n in range(40)]
LINES = [json.dumps(row) for row in GOOD]
LINES[6] = '{"prompt": "torn'
LINES[16] = json.dumps({"prompt": "What?", "completion": ""})
LINES[29] = LINES[3]
LINES[33] = json.dumps({"prompt": "Who?", "completion": "write to jane.doe@example.org"})


@pytest.fixture
def studio(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs `studio data ARGS` in this process."""

    return runner(monkeypatch, capfd, "data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_tiny_llama(folder)
    return folder


def found(said: Said) -> dict[str, list[Any]]:
    return {problem["kind"]: problem["lines"] for problem in said.json["problems"]}


def test_check_names_every_problem_with_its_lines(studio: Command, file: Path, tiny: Path) -> None:
    said = studio("check", file, "--model", tiny, "--json")
    assert said.code == 0, said.err
    assert {"format", "type", "rows", "usable", "problems", "tokens"} <= set(said.json)
    assert (said.json["format"], said.json["type"]) == ("prompt_completion", "prompt_completion")
    assert (said.json["rows"], said.json["usable"]) == (40, 38)
    problems = found(said)
    assert {kind: problems[kind] for kind in ("unreadable", "empty_answer", "duplicate", "pii_email")} == {
        "unreadable": [7],
        "empty_answer": [17],
        "duplicate": [30],
        "pii_email": [34],
    }
    assert said.json["tokens"]["counted"] and said.json["tokens"]["total"] > said.json["tokens"]["loss"] > 0
    assert all({"kind", "count", "lines", "example"} <= set(problem) for problem in said.json["problems"])


def test_check_without_a_model_counts_no_tokens_and_says_so(studio: Command, file: Path) -> None:
    said = studio("check", file, "--model", "none", "--json")
    assert said.json["tokens"]["counted"] is False
    assert found(said)["unreadable"] == [7]


def test_check_tells_people_in_words(studio: Command, file: Path, tiny: Path) -> None:
    said = studio("check", file, "--model", tiny, "--max-length", 16)
    assert "38 of 40 rows can be learned from" in said.out
    assert "line 7" in said.out and "line 17" in said.out
    assert "carry loss" in said.out


def test_check_finds_rows_that_stand_in_both(studio: Command, file: Path, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text(LINES[20] + "\n", encoding="utf-8")
    said = studio("check", file, "--model", "none", "--validation", held, "--no-near", "--json")
    assert found(said)["leak"] == [21]


def test_show_gives_the_row_as_trained_on(studio: Command, file: Path, tiny: Path) -> None:
    said = studio("show", file, "--model", tiny, "--row", 5, "--json")
    assert {"messages", "text", "tokens", "ids", "loss"} <= set(said.json)
    assert len(said.json["ids"]) == len(said.json["loss"]) == len(said.json["tokens"])
    assert said.json["line"] == 6
    learnt = [token for token, loss in zip(said.json["tokens"], said.json["loss"], strict=True) if loss]
    assert "".join(learnt).startswith("Answer number 5.")
    assert "line 6, prompt_completion" in studio("show", file, "--model", tiny, "--row", 5).out


@pytest.mark.parametrize("row", [40, -1, 10**9])
def test_show_refuses_a_row_that_there_is_not(studio: Command, file: Path, tiny: Path, row: int) -> None:
    said = studio("show", file, "--model", tiny, "--row", row)
    assert said.code == 2
    assert f"no row {row}" in said.err
    assert "Traceback" not in said.err


def test_stats_count_lengths_and_suggest_one(studio: Command, file: Path, tiny: Path) -> None:
    said = studio("stats", file, "--model", tiny, "--json")
    assert said.json["usable"] == 38
    assert said.json["tokens"]["suggested"]["max_length"] % 64 == 0
    assert said.json["epoch"]["steps"] > 0
    told = studio("stats", file, "--model", tiny).out
    assert "Suggested" in told and "languages" in told
    assert "characters" in studio("stats", file, "--model", "none").out


def test_convert_writes_a_new_dataset_and_leaves_the_old_one(studio: Command, file: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    said = studio("convert", file, "--to", "messages", "--out", tmp_path / "out", "--json")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in Path(said.json["path"]).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == said.json["rows"] == 38
    assert rows[0]["messages"][-1] == {"role": "assistant", "content": "Answer number 0."}
    assert (tmp_path / "out" / "recipe.yaml").exists()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before
    again = studio("convert", file, "--to", "messages", "--out", tmp_path / "out")
    assert again.code == 1 and "isn't empty" in again.err


def test_convert_takes_a_recipe(studio: Command, file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("steps: [{do: sample, rows: 7}]", encoding="utf-8")
    said = studio("convert", file, "--recipe", recipe, "--as", "parquet", "--out", tmp_path / "out", "--json")
    assert said.json["rows"] == 7
    assert Path(said.json["path"]).suffix == ".parquet"
    recipe.write_text("steps: [{do: simple}]", encoding="utf-8")
    assert studio("convert", file, "--recipe", recipe, "--out", tmp_path / "new").code == 2


def test_split_shares_the_usable_rows_out(studio: Command, file: Path, tmp_path: Path) -> None:
    said = studio("split", file, "--out", tmp_path / "out", "--validation-split", 5, "--test-split", 0.1, "--json")
    assert said.code == 0, said.err
    parts = {name: said.json[name]["rows"] for name in ("train", "validation", "test")}
    assert (parts["validation"], parts["test"], sum(parts.values())) == (5, 4, 38)
    for name, count in parts.items():
        assert len(Path(said.json[name]["path"]).read_text(encoding="utf-8").splitlines()) == count


@pytest.mark.parametrize("command", ["check", "stats"])
def test_what_is_no_dataset_is_refused_in_one_sentence(studio: Command, tmp_path: Path, command: str) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n", encoding="utf-8")
    for path in (tmp_path / "empty.jsonl", tmp_path / "nothing", "quickstart-sft/../nothing"):
        said = studio(command, path, "--model", "none")
        assert said.code == 2, said.out
        assert said.err.strip().count("\n") <= 1 and "Traceback" not in said.err


def test_the_starter_is_only_a_default_where_it_cannot_be_had(
    studio: Command, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.core.errors import ModelError
    from studio.worker import models

    def refuse(*_: object) -> None:
        raise ModelError("The starter can't be fetched.", "Connect to the network.")

    monkeypatch.setattr(models, "fetch", refuse)
    said = studio("check", file, "--json")
    assert said.code == 0
    assert said.json["tokens"]["counted"] is False
    assert "Tokens are not counted" in said.err
