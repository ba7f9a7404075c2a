"""Shaping: each step keeps what it should, counts what goes, and never touches the original."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from studio.core.config import DatasetSection
from studio.core.configfile import read_yaml
from studio.core.errors import ConfigError, DataError, TargetError
from studio.core.formats import FORMATS, Layout, to_example
from studio.core.inputs import DatasetInput
from studio.core.recipe import parse_recipe
from studio.worker.data import steps as steps_module
from studio.worker.data.findings import Found, find
from studio.worker.data.shape import preview_op, shape, shape_op
from studio.worker.data.source import Cancelled, Source, open_source
from studio.worker.data.steps import key
from studio.worker.encode import Encoder
from tests.tiny import make_tiny_llama, tiny_rows, tiny_tokenizer, write_rows

Row = dict[str, Any]
Shape = Callable[..., tuple[list[Row], dict[str, Any]]]


def source_of(folder: Path, rows: list[Row]) -> Source:
    return open_source(DatasetInput("made", str(write_rows(folder / "rows.jsonl", rows))))


@pytest.fixture
def shaped(tmp_path: Path) -> Shape:
    """Rows through steps: what comes out, and the answer."""
    numbers = iter(range(100))

    def run(rows: list[Row], *steps: Row, **options: Any) -> tuple[list[Row], dict[str, Any]]:
        number = next(numbers)
        source = source_of(tmp_path / f"in-{number}", rows)
        section = options.pop("section", DatasetSection())
        out = tmp_path / f"out-{number}"
        answer = shape(source, section, parse_recipe({"steps": list(steps)}), out, **options)
        assert Path(answer["path"]).parent == out
        kept = [json.loads(line) for line in (out / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(kept) == answer["rows"]
        check_counts(answer, len(rows))
        return kept, answer

    return run


def check_counts(answer: dict[str, Any], rows: int) -> None:
    """Each row that went into a step came out of it, or is counted with a reason."""
    assert answer["steps"][0]["rows_in"] == rows
    for before, step in zip([None, *answer["steps"]], answer["steps"], strict=False):
        assert step["rows_in"] == step["rows_out"] + sum(step["left_out"].values())
        assert before is None or before["rows_out"] == step["rows_in"]
    assert answer["steps"][-1]["rows_out"] == answer["rows"]


def pairs(count: int) -> list[Row]:
    return [{"prompt": f"question {n}", "completion": f"answer {n}", "id": n} for n in range(count)]


def ids(rows: list[Row]) -> list[int]:
    return [row["id"] for row in rows]


# -- the steps --------------------------------------------------------------------------------------------------------


def test_no_steps_copy_what_can_be_used(shaped: Shape) -> None:
    rows = pairs(5)
    rows[2]["completion"] = None
    kept, answer = shaped(rows)
    assert kept == [rows[0], rows[1], rows[3], rows[4]]
    assert answer["steps"][0]["left_out"] == {"null": 1}
    assert (answer["format"], answer["columns"], answer["tags"]) == ("prompt_completion", {}, {})


@pytest.mark.parametrize("part", ["prompt", "answer", "whole"])
def test_lengths_in_characters_include_their_ends(shaped: Shape, part: str) -> None:
    rows = [{"prompt": "p" * n, "completion": "c" * 3, "id": n} for n in range(1, 30)]
    lengths = {"prompt": lambda n: n, "answer": lambda n: 3, "whole": lambda n: n + 3}[part]
    least = 3 if part == "answer" else 5
    kept, answer = shaped(rows, {"do": "length", "part": part, "least": least, "most": 20})
    assert ids(kept) == [n for n in range(1, 30) if least <= lengths(n) <= 20]
    reasons = answer["steps"][1]["left_out"]
    assert reasons.get("too short", 0) == sum(lengths(n) < least for n in range(1, 30))
    assert reasons.get("too long", 0) == sum(lengths(n) > 20 for n in range(1, 30))


def test_lengths_in_tokens_are_those_of_training(shaped: Shape) -> None:
    rows = tiny_rows(60)
    encoder = Encoder(tiny_tokenizer(), "assistant")
    lengths = [len(encoder.encode(to_example(row, Layout(FORMATS["messages"]))).ids) for row in rows]
    limit = sorted(lengths)[30]
    step = {"do": "length", "unit": "tokens", "most": limit}
    kept, _ = shaped(rows, step, tokenizer=tiny_tokenizer())
    assert kept == [row for row, length in zip(rows, lengths, strict=True) if length <= limit]
    with pytest.raises(ConfigError, match="need a model") as caught:
        shaped(rows, step)
    assert caught.value.field == "steps.0.unit"


def test_languages_and_scripts_are_kept_by_name(shaped: Shape) -> None:
    said = [
        "Where can I find a good restaurant in this town tonight?",
        "Wo finde ich heute Abend ein gutes Restaurant in dieser Stadt?",
        "Где сегодня вечером можно найти хороший ресторан в этом городе?",
        "x = 1",
    ]
    rows = [{"text": text, "id": n} for n, text in enumerate(said)]
    kept, answer = shaped(rows, {"do": "language", "keep": ["de", "unknown"]})
    assert ids(kept) == [1, 3]
    assert answer["steps"][1]["left_out"] == {"language en": 1, "language ru": 1}
    kept, answer = shaped(rows, {"do": "script", "keep": ["cyrillic"]})
    assert ids(kept) == [2] and answer["steps"][1]["left_out"] == {"script Latin": 3}
    with pytest.raises(ConfigError, match="'german'") as caught:
        shaped(rows, {"do": "language", "keep": ["en", "german"]})
    assert caught.value.field == "steps.0.keep.1" and "de" in caught.value.hint


def test_a_pattern_is_found_in_the_part_it_names(shaped: Shape) -> None:
    rows = [
        {"prompt": "What colour?", "completion": "Blue.", "id": 0},
        {"prompt": "What?", "completion": "The Color is blue.", "id": 1},
        {"prompt": "What?", "completion": "Nothing.", "id": 2},
    ]
    step = {"do": "pattern", "pattern": r"\bcolou?r\b"}
    assert ids(shaped(rows, step)[0]) == [0]
    assert ids(shaped(rows, {**step, "ignore_case": True})[0]) == [0, 1]
    assert ids(shaped(rows, {**step, "ignore_case": True, "part": "answer"})[0]) == [1]
    kept, answer = shaped(rows, {**step, "keep": "others"})
    assert ids(kept) == [1, 2] and answer["steps"][1]["left_out"] == {"matches": 1}


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "a{2,1}", "(?P<n>a)(?P=m)"])
def test_what_is_no_pattern_is_refused_before_a_row_is_read(tmp_path: Path, pattern: str) -> None:
    source = source_of(tmp_path, pairs(3))
    recipe = parse_recipe({"steps": [{"do": "sample", "rows": 1}, {"do": "pattern", "pattern": pattern}]})
    with pytest.raises(ConfigError) as caught:
        shape(source, DatasetSection(), recipe, tmp_path / "out", progress=lambda *_: pytest.fail("rows were read"))
    assert caught.value.field == "steps.1.pattern"


def test_a_pattern_that_explodes_is_given_up_on_and_counted(shaped: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_module, "PATIENCE", 0.05)
    evil = [{"text": "a" * 40 + "!", "id": n} for n in range(3)]
    kept, answer = shaped([*evil, {"text": "aaab", "id": 3}], {"do": "pattern", "pattern": r"^(a|aa|a|aaa)+b$"})
    assert ids(kept) == [3]
    assert answer["steps"][1]["left_out"] == {"the pattern took over 0.05 s": 3}
    monkeypatch.setattr(steps_module, "FORGIVEN", 2)
    with pytest.raises(ConfigError, match="takes over") as caught:
        shaped(evil, {"do": "pattern", "pattern": r"^(a|aa|a|aaa)+b$"})
    assert caught.value.field == "steps.0.pattern"


def test_scores_are_read_as_numbers(shaped: Shape) -> None:
    scores = [0, 1, 2.5, "3", "high", None, True, "nan", 4]
    rows = [{"text": "some text", "id": n, "score": score} for n, score in enumerate(scores)]
    rows.append({"text": "none at all", "id": 9})
    kept, answer = shaped(rows, {"do": "score", "column": "score", "least": 1, "most": 3})
    assert ids(kept) == [1, 2, 3]
    assert answer["steps"][1]["left_out"] == {"no number in score": 5, "too low": 1, "too high": 1}


def test_a_sample_is_drawn_in_order_and_the_same_each_time(shaped: Shape) -> None:
    rows = pairs(500)
    first, answer = shaped(rows, {"do": "sample", "rows": 50})
    assert len(first) == 50 and ids(first) == sorted(ids(first))
    assert answer["steps"][1]["left_out"] == {"not drawn": 450}
    assert shaped(rows, {"do": "sample", "rows": 50})[0] == first
    other, _ = shaped(rows, {"do": "sample", "rows": 50, "seed": 7})
    assert other != first
    everything, _ = shaped(rows, {"do": "sample", "rows": 1000})
    assert everything == rows


def test_a_sample_is_drawn_from_what_the_steps_before_it_leave(shaped: Shape) -> None:
    rows = pairs(300)
    even = {"do": "pattern", "pattern": "[02468]$"}
    kept, answer = shaped(rows, even, {"do": "sample", "rows": 40}, {"do": "sample", "rows": 30, "seed": 1})
    assert len(kept) == 30 and all(n % 2 == 0 for n in ids(kept))
    assert [step["rows_out"] for step in answer["steps"]] == [300, 150, 40, 30, 30]


def test_every_row_is_as_likely_to_be_drawn() -> None:
    """Chi-squared over ten stretches of 100,000 positions, at 300 seeds; 99.9 % of fair draws stay below 27.9."""
    draws = np.zeros(10)
    for seed in range(300):
        keys = np.array([key(position, seed) for position in range(1000)], np.uint64)
        assert len(set(keys.tolist())) == 1000
        draws += np.bincount(np.argsort(keys)[:100] // 100, minlength=10)
    expected = draws.sum() / 10
    assert ((draws - expected) ** 2 / expected).sum() < 27.9


def test_rows_are_left_out_by_position_and_by_problem(shaped: Shape, tmp_path: Path) -> None:
    rows = pairs(10)
    rows[4] = {**rows[3], "id": 4}
    rows[6]["completion"] = "write to ann@example.org"
    source = source_of(tmp_path / "found", rows)
    steps = [{"do": "rows", "positions": [0, 9]}, {"do": "problems", "kinds": ["duplicate", "pii_email"]}]
    kept, answer = shaped(rows, *steps, find=lambda kinds: find(source, DatasetSection(), kinds))
    assert ids(kept) == [1, 2, 3, 5, 7, 8]
    assert answer["steps"][1]["left_out"] == {"left out by hand": 2}
    assert answer["steps"][2]["left_out"] == {"duplicate": 1, "pii_email": 1}


def test_an_edited_row_replaces_the_one_that_was_read_even_where_that_could_not_be(shaped: Shape) -> None:
    rows = pairs(4)
    rows[1]["completion"] = None
    edits = {"1": {"prompt": "q", "completion": "mended", "id": 1}, "3": {"prompt": "q", "completion": "", "id": 3}}
    found = Found({"duplicate": np.array([1, 2])})
    steps = [{"do": "edit", "rows": edits}, {"do": "problems", "kinds": ["duplicate"]}]
    kept, answer = shaped(rows, *steps, find=lambda _: found)
    assert kept == [rows[0], edits["1"]], "row 2 is a duplicate, row 1 is no longer what was found"
    assert answer["steps"][0]["left_out"] == {"empty_answer": 1}
    assert answer["steps"][1]["changed"] == 1


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"do": "edit", "rows": {"5": {"prompt": "a", "completion": "b"}}}, "steps.0.rows"),
        ({"do": "rows", "positions": [0, 7]}, "steps.0.positions"),
    ],
)
def test_a_position_beyond_the_end_is_refused(tmp_path: Path, step: Row, field: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="no row") as caught:
        shape(source_of(tmp_path, pairs(5)), DatasetSection(), parse_recipe({"steps": [step]}), out)
    assert caught.value.field == field
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


# -- changes ----------------------------------------------------------------------------------------------------------


def test_a_system_prompt_goes_before_conversations_that_have_none(shaped: Shape) -> None:
    rows = [{**row, "source": "web"} for row in tiny_rows(6)]
    kept, answer = shaped(rows, {"do": "system", "text": "Be brief."})
    for before, after in zip(rows, kept, strict=True):
        bare = before["messages"][0]["role"] != "system"
        expected = [{"role": "system", "content": "Be brief."}] * bare + before["messages"]
        assert after == {"source": "web", "messages": expected}
    assert answer["steps"][1]["changed"] == 3
    assert answer["format"] == "messages"


@pytest.mark.parametrize("target", ["messages", "sharegpt", "alpaca"])
def test_a_converted_row_says_the_same(shaped: Shape, target: str) -> None:
    rows = [{**row, "score": n} for n, row in enumerate(tiny_rows(8, turns=2))]
    kept, answer = shaped(rows, {"do": "convert", "format": target})
    assert answer["format"] == target
    for before, after in zip(rows, kept, strict=True):
        assert after["score"] == before["score"], "columns that no layout reads go along"
        same = to_example(after, Layout(FORMATS[target])) == to_example(before, Layout(FORMATS["messages"]))
        assert same, target
    if target != "messages":
        assert "messages" not in kept[0]


def test_steps_after_a_conversion_still_count(shaped: Shape) -> None:
    rows = [{"question": f"q{n}", "answer": f"a{n}", "id": n, "text": "spare"} for n in range(6)]
    section = DatasetSection(format="alpaca", columns={"instruction": "question", "output": "answer"})
    steps = [
        {"do": "convert", "format": "messages"},
        {"do": "system", "text": "S."},
        {"do": "score", "column": "id", "least": 4},
    ]
    kept, answer = shaped(rows, *steps, section=section)
    said = [{"role": "system", "content": "S."}]
    assert [row["messages"] for row in kept] == [
        [*said, {"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}] for n in (4, 5)
    ]
    assert (answer["format"], answer["columns"]) == ("messages", {})
    assert answer["columns_lost"] == ["text"], "it would make the rows ambiguous, and it is told"
    assert ids(kept) == [4, 5]


def test_a_mapping_goes_along_where_rows_stay_as_they_were(shaped: Shape) -> None:
    rows = [{"question": "q", "answer": "a"}] * 2
    section = DatasetSection(format="alpaca", columns={"instruction": "question", "output": "answer"})
    kept, answer = shaped(rows, section=section)
    assert kept == rows
    assert (answer["format"], answer["columns"]) == ("alpaca", dict(section.columns))


def test_rows_that_the_new_layout_cannot_say_are_counted(shaped: Shape) -> None:
    called = {"type": "function", "function": {"name": "now", "arguments": "{}"}}
    talk = [
        {"role": "user", "content": "time?"},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": "12"},
        {"role": "assistant", "content": "noon"},
    ]
    rows = [*tiny_rows(3), {"messages": talk}]
    kept, answer = shaped(rows, {"do": "convert", "format": "alpaca"})
    assert len(kept) == 3
    assert sum(answer["steps"][1]["left_out"].values()) == 1


def test_a_conversion_that_no_row_could_follow_is_refused(shaped: Shape) -> None:
    with pytest.raises(ConfigError, match="can't be written as preference") as caught:
        shaped(pairs(3), {"do": "convert", "format": "preference"})
    assert caught.value.field == "steps.0.format" and "messages" in caught.value.hint


def test_parts_that_are_laid_out_differently_have_to_be_converted(tmp_path: Path) -> None:
    parts = tuple(
        DatasetInput(name, str(write_rows(tmp_path / f"{name}.jsonl", rows)))
        for name, rows in (("one", pairs(3)), ("two", tiny_rows(3)))
    )
    source = open_source(DatasetInput("both", kind="mix", parts=parts))
    with pytest.raises(ConfigError, match="laid out differently"):
        shape(source, DatasetSection(), parse_recipe({}), tmp_path / "out")
    recipe = parse_recipe({"steps": [{"do": "convert", "format": "messages"}]})
    answer = shape(source, DatasetSection(), recipe, tmp_path / "out")
    check_counts(answer, 6)
    assert answer["rows"] == 6


# -- files ------------------------------------------------------------------------------------------------------------


def test_the_recipe_tells_where_rows_came_from_and_makes_the_same_again(tmp_path: Path) -> None:
    source = source_of(tmp_path, pairs(100))
    digest = hashlib.sha256((tmp_path / "rows.jsonl").read_bytes()).hexdigest()
    steps = [{"do": "length", "least": 12}, {"do": "sample", "rows": 20}]
    answer = shape(source, DatasetSection(), parse_recipe({"steps": steps}), tmp_path / "one", name="made")
    told = read_yaml(Path(answer["recipe"]))
    assert told["source"]["name"] == "made" and told["source"]["sha256"] == digest
    assert told["source"]["files"] == [str(tmp_path / "rows.jsonl")]
    assert told["counts"] == answer["steps"]
    assert told["result"]["rows"] == 20
    again = shape(source, DatasetSection(), parse_recipe({"steps": told["steps"]}), tmp_path / "two")
    assert Path(again["path"]).read_bytes() == Path(answer["path"]).read_bytes()


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    rows = tiny_rows(30)
    answer = shape(source_of(tmp_path, rows), DatasetSection(), parse_recipe({}), tmp_path / "out", "parquet")
    assert pq.read_table(answer["path"]).to_pylist() == rows
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["recipe.yaml", "rows.parquet"]
    assert [line.row for line in open_source(DatasetInput("made", answer["path"])).iterate()] == rows


def test_the_original_is_never_touched(tmp_path: Path) -> None:
    source = source_of(tmp_path / "in", pairs(50))
    path = tmp_path / "in" / "rows.jsonl"
    before = (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir()))
    recipe = parse_recipe({"steps": [{"do": "rows", "positions": [1]}, {"do": "convert", "format": "messages"}]})
    shape(source, DatasetSection(), recipe, tmp_path / "out", "parquet")
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


@pytest.mark.parametrize("taken", ["file", "folder", "link"])
def test_a_target_that_is_there_is_refused_and_stays(tmp_path: Path, taken: str) -> None:
    out = tmp_path / "out"
    if taken == "file":
        out.write_text("mine", encoding="utf-8")
    elif taken == "folder":
        write_rows(out / "mine.jsonl", pairs(1))
    else:
        out.symlink_to(tmp_path / "elsewhere")
    source = source_of(tmp_path / "in", pairs(3))
    with pytest.raises(TargetError, match="already"):
        shape(source, DatasetSection(), parse_recipe({}), out)
    assert not list(tmp_path.glob(".out*"))
    assert out.is_symlink() or out.is_file() or [path.name for path in out.iterdir()] == ["mine.jsonl"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    answer = shape(source_of(tmp_path, pairs(3)), DatasetSection(), parse_recipe({}), tmp_path / "out")
    assert Path(answer["path"]).is_file()


def test_where_no_row_is_left_the_step_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    recipe = parse_recipe({"steps": [{"do": "length", "least": 1}, {"do": "pattern", "pattern": "xyzzy"}]})
    with pytest.raises(DataError, match=r"step 2 \(pattern\).*doesn't match: 5"):
        shape(source_of(tmp_path, pairs(5)), DatasetSection(), recipe, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        shape(source_of(tmp_path, pairs(5)), DatasetSection(), parse_recipe({}), tmp_path / "out", stopped=lambda: True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl"]


def test_data_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    source = source_of(tmp_path, pairs(5))
    size = (tmp_path / "rows.jsonl").stat().st_size

    def progress(text: str, done: int | None, total: int | None) -> None:
        if text == "Hashing" and (tmp_path / "rows.jsonl").stat().st_size == size:
            with (tmp_path / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(pairs(1)[0]) + "\n")

    with pytest.raises(DataError, match="changed"):
        shape(source, DatasetSection(), parse_recipe({}), tmp_path / "out", progress=progress)
    assert not (tmp_path / "out").exists()


KILLED = """
import os, sys, time
from pathlib import Path
from studio.core.config import DatasetSection
from studio.core.inputs import DatasetInput
from studio.core.recipe import parse_recipe
from studio.worker.data.shape import shape
from studio.worker.data.source import open_source
def progress(text, done, total):
    if done:
        print(text, flush=True)
        time.sleep(60)
shape(open_source(DatasetInput("made", sys.argv[1])), DatasetSection(), parse_recipe({}), Path(sys.argv[2]),
      progress=progress)
"""


def test_a_kill_in_the_middle_leaves_no_target_and_the_next_try_cleans_up(tmp_path: Path) -> None:
    source = source_of(tmp_path, pairs(3000))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "rows.jsonl"), str(out)],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip(), "it ended before it was killed"
    left = list(tmp_path.glob(".out.partial-*"))
    assert left and not out.exists()
    process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    shape(source, DatasetSection(), parse_recipe({}), out)
    assert not list(tmp_path.glob(".out.partial-*"))
    assert len((out / "rows.jsonl").read_bytes().splitlines()) == 3000


# -- the op -----------------------------------------------------------------------------------------------------------


def test_the_op_finds_what_is_to_be_left_out_by_itself(tmp_path: Path) -> None:
    rows = tiny_rows(20)
    rows[7] = rows[2]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    folder = make_tiny_llama(tmp_path / "model")
    heard: list[dict[str, Any]] = []
    request = {
        "dataset": {"name": "made", "path": str(path)},
        "section": {"max_samples": 3, "system_prompt": "Not the recipe's business."},
        "recipe": {"steps": [{"do": "problems", "kinds": ["duplicate", "too_long"]}]},
        "out": str(tmp_path / "out"),
        "format": "jsonl",
        "model": {"kind": "folder", "name": "tiny", "path": str(folder)},
        "max_length": 1000,
    }
    answer = shape_op(request, heard.append)
    check_counts(answer, 20)
    assert answer["steps"][1]["left_out"] == {"duplicate": 1}
    kept = [json.loads(line) for line in Path(answer["path"]).read_text(encoding="utf-8").splitlines()]
    assert kept == [row for n, row in enumerate(rows) if n != 7]
    assert heard and set(heard[0]) == {"text", "done", "total"}


@pytest.mark.parametrize(("kind", "told"), [("too_long", "model"), ("leak", "validation")])
def test_the_op_says_what_a_kind_of_problem_needs(tmp_path: Path, kind: str, told: str) -> None:
    request = {
        "dataset": {"name": "made", "path": str(write_rows(tmp_path / "rows.jsonl", pairs(3)))},
        "section": {},
        "recipe": {"steps": [{"do": "sample", "rows": 3}, {"do": "problems", "kinds": [kind]}]},
        "out": str(tmp_path / "out"),
        "format": "jsonl",
    }
    with pytest.raises(ConfigError, match=told) as caught:
        shape_op(request, lambda _: None)
    assert caught.value.field == "steps.1.kinds"
    with pytest.raises(ConfigError, match="jsonl or parquet"):
        shape_op({**request, "format": "csv"}, lambda _: None)


def test_leaks_into_validation_rows_are_left_out(tmp_path: Path) -> None:
    held = write_rows(tmp_path / "held.jsonl", pairs(10)[:4])
    request = {
        "dataset": {"name": "made", "path": str(write_rows(tmp_path / "rows.jsonl", pairs(10)))},
        "section": {},
        "recipe": {"steps": [{"do": "problems", "kinds": ["leak"]}]},
        "out": str(tmp_path / "out"),
        "validation": {"name": "held", "path": str(held)},
    }
    answer = shape_op(request, lambda _: None)
    assert answer["rows"] == 6 and answer["steps"][1]["left_out"] == {"leak": 4}


def test_random_recipes_account_for_every_row(shaped: Shape) -> None:
    """Whatever the steps are, each row comes out or is counted; positions are those of the rows as read."""
    chance = random.Random(5)
    possible: list[Row] = [
        {"do": "length", "most": 17},
        {"do": "length", "part": "answer", "least": 9},
        {"do": "sample", "rows": 60},
        {"do": "rows", "positions": list(range(0, 90, 7))},
        {"do": "pattern", "pattern": "[1-5]", "keep": "others"},
        {"do": "score", "column": "id", "least": 20},
        {"do": "convert", "format": "messages"},
        {"do": "system", "text": "S."},
    ]
    for _ in range(8):
        steps = chance.sample(possible, chance.randint(1, 4))
        try:
            kept, _ = shaped(pairs(90), *steps)
        except DataError as error:
            assert "No row is left" in error.message
            continue
        assert ids(kept) == sorted(set(ids(kept)))
        if {"do": "rows", "positions": list(range(0, 90, 7))} in steps:
            assert not any(n % 7 == 0 for n in ids(kept))


def test_a_preview_counts_what_shaping_would_write(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps({"text": "word " * n}) + "\n" for n in range(1, 41)), encoding="utf-8")
    request = {
        "dataset": dataclasses.asdict(DatasetInput("some", str(path))),
        "section": DatasetSection(path=str(path)).model_dump(mode="json"),
        "recipe": {"steps": [{"do": "length", "least": 50, "most": 150}, {"do": "sample", "rows": 7}]},
    }
    told = preview_op(request, lambda _: None)
    made = shape_op({**request, "out": str(tmp_path / "out")}, lambda _: None)
    assert told == {"rows": 7, "steps": made["steps"]}
    assert told["rows"] == made["rows"]
