"""The check finds every kind of problem at its line, and says nothing of rows that are in order."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from studio.core.config import DatasetSection
from studio.core.errors import DataError, WorkerError
from studio.core.inputs import DatasetInput
from studio.core.problems import PROBLEMS
from studio.worker.data import judging
from studio.worker.data.check import CheckReport, check, check_op
from studio.worker.data.judge import Judge, Verdict, Wanted
from studio.worker.data.source import Cancelled, Source, layouts, open_source
from studio.worker.encode import Encoder
from tests import planted
from tests.tiny import tiny_rows, tiny_tokenizer, write_rows

MakeDataset = Callable[..., DatasetInput]
TOKENIZER = tiny_tokenizer()


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even for files with a line that is too big: starting others takes longer than a test."""
    monkeypatch.setattr(judging, "_MUCH", 2**60)


def opened(path: Path) -> Source:
    return open_source(DatasetInput(path.name, str(path)))


def checked(path: Path, **asked: Any) -> CheckReport:
    return check(opened(path), DatasetSection(path=str(path)), **asked)


def kinds(report: CheckReport) -> dict[str, list[Any]]:
    return {problem["kind"]: problem["lines"] for problem in report.to_dict()["problems"]}


# -- every kind -------------------------------------------------------------------------------------------------------


def every_kind(folder: Path, rows: int) -> None:
    """A file with one problem of every kind, and one more for each kind that needs another layout."""
    found, held = planted.plant(folder, rows)
    tokenizer = planted.planted_tokenizer()
    report = checked(found.path, tokenizer=tokenizer, max_length=planted.MAX_LENGTH, validation=opened(held.path))
    told = report.to_dict()
    assert {problem["kind"]: (problem["count"], problem["lines"]) for problem in told["problems"]} == {
        kind: (1, [line]) for kind, line in found.lines.items()
    }
    assert found.lines.keys() | {kind for kind, _, _ in planted.OTHERS.values()} == PROBLEMS.keys()
    # The blank line has no position.
    assert all(problem["positions"] == [problem["lines"][0] - 2] for problem in told["problems"])
    errors = [problem for problem in told["problems"] if problem["severity"] == "error"]
    assert (told["rows"], told["usable"]) == (rows, rows - len(errors))
    assert (told["format"], told["type"], told["conversational"]) == ("messages", "language_modeling", True)
    tokens = told["tokens"]
    assert (tokens["rows_cut"], tokens["rows_without_loss"]) == (1, 1)
    assert tokens["longest"] - tokens["tokens_lost"] == planted.MAX_LENGTH
    examples = {problem["kind"]: problem["example"] for problem in told["problems"]}
    assert all(0 < len(example) <= 200 for example in examples.values())
    for kind, value in (
        ("pii_email", "jane.doe@mail.example.org"),
        ("pii_key", "AKIAIOSFODNN7EXAMPLE"),
        ("special_tokens", "<|im_end|>"),
        ("answer_equals_prompt", "Polly wants a cracker."),
    ):
        assert examples[kind] == value
    assert "beep" in examples["unknown_role"]
    for layout, (kind, _, _) in planted.OTHERS.items():
        other = planted.plant_other(folder, layout, max(20, rows // 10))
        told = checked(other.path, tokenizer=tokenizer).to_dict()
        assert [(p["kind"], p["count"], p["lines"]) for p in told["problems"]] == [(kind, 1, [other.lines[kind]])]
        assert (told["format"], told["type"]) == (layout, layout)
        assert told["tokens"]["counted"]


def test_every_kind_of_problem_is_found_at_its_line(tmp_path: Path) -> None:
    every_kind(tmp_path, 5_000)


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_every_kind_of_problem_is_found_at_its_line_among_200_000_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_MUCH", 0)
    every_kind(tmp_path, 200_000)


def test_rows_in_order_have_no_problem(dataset: MakeDataset) -> None:
    told = checked(Path(dataset(tiny_rows(50, turns=2)).path), tokenizer=TOKENIZER).to_dict()
    assert told["problems"] == []
    assert (told["rows"], told["usable"]) == (50, 50)


def test_tokens_are_those_of_training(dataset: MakeDataset) -> None:
    rows = tiny_rows(40, turns=2, longest=20)
    source = dataset(rows)
    whole = [TOKENIZER.apply_chat_template(row["messages"], tokenize=True)["input_ids"] for row in rows]
    limit = sorted(map(len, whole))[30]
    tokens = checked(Path(source.path), tokenizer=TOKENIZER, max_length=limit).to_dict()["tokens"]
    assert tokens == {
        "counted": True,
        "total": sum(min(len(ids), limit) for ids in whole),
        "loss": tokens["loss"],
        "longest": max(map(len, whole)),
        "max_length": limit,
        "rows_cut": sum(len(ids) > limit for ids in whole),
        "tokens_lost": sum(max(0, len(ids) - limit) for ids in whole),
        "rows_without_loss": 0,
    }
    assert 0 < tokens["loss"] < tokens["total"]


def test_without_a_tokenizer_what_only_a_model_tells_is_not_counted(tmp_path: Path) -> None:
    found, _ = planted.plant(tmp_path, 200)
    report = checked(found.path)
    assert set(found.lines) - set(kinds(report)) == {
        "template",
        "prompt_fills_length",
        "special_tokens",
        "too_long",
        "leak",
    }
    assert not report.to_dict()["tokens"]["counted"]
    assert report.to_dict()["tokens"]["total"] == 0


def test_near_duplicates_are_looked_for_only_when_asked(tmp_path: Path) -> None:
    found, _ = planted.plant(tmp_path, 200)
    assert "near_duplicate" in kinds(checked(found.path))
    assert "near_duplicate" not in kinds(checked(found.path, near=False))


def test_only_the_first_rows_are_checked_where_only_they_are_used(dataset: MakeDataset) -> None:
    source = dataset([*tiny_rows(5), {"messages": []}])
    section = DatasetSection(path=source.path, max_samples=5)
    told = check(open_source(source), section).to_dict()
    assert (told["rows"], told["problems"]) == (5, [])


# -- F32: files with nothing in them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b""),
        ("rows.jsonl", b"\n\n \n"),
        ("rows.csv", b"instruction,output\n"),
        ("rows.json", b"[]"),
        ("rows.jsonl.gz", gzip.compress(b"\n")),
    ],
    ids=["empty", "blank lines", "header only", "empty array", "packed"],
)
@pytest.mark.parametrize("format", ["auto", "alpaca"])
def test_F32_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: bytes, format: Any) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match="has 0 rows"):
        check(opened(path), DatasetSection(path=str(path), format=format))


def test_a_file_of_nothing_but_bad_rows_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{bad\n[1]\n{worse\n", encoding="utf-8")
    report = checked(path)
    assert kinds(report) == {"unreadable": [1, 3], "not_an_object": [2]}
    assert report.usable == 0


def test_rows_whose_layout_is_a_question_are_not_checked(dataset: MakeDataset) -> None:
    rows = [{"messages": [], "text": "a"}]
    with pytest.raises(DataError, match="could be read as"):
        checked(Path(dataset(rows).path))


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "\\ud83d"}\n', encoding="utf-8")
    assert kinds(checked(path, tokenizer=TOKENIZER)) == {"encoding": [2]}


# -- duplicates -------------------------------------------------------------------------------------------------------


def test_the_first_of_equal_rows_stays(dataset: MakeDataset) -> None:
    one, two, three = tiny_rows(3)
    report = checked(Path(dataset([one, two, one, three, two, one]).path))
    assert kinds(report) == {"duplicate": [3, 5, 6]}


def test_rows_that_differ_only_in_spelling_are_equal(dataset: MakeDataset) -> None:
    rows = [{"text": text} for text in ("caf\u00e9 one\r\n", "  cafe\u0301 one", "Caf\u00e9 one")]
    assert kinds(checked(Path(dataset(rows).path), near=False)) == {"duplicate": [2]}


def test_an_exact_copy_is_no_near_duplicate_too(dataset: MakeDataset) -> None:
    words = "one two three four five six seven eight nine ten eleven twelve"
    rows = [{"text": text} for text in (words, words + " more", words, words + " more")]
    assert kinds(checked(Path(dataset(rows).path))) == {"duplicate": [3, 4], "near_duplicate": [2]}


def test_a_system_message_that_all_share_makes_no_near_duplicates(dataset: MakeDataset) -> None:
    source = dataset(tiny_rows(30))
    section = DatasetSection(path=source.path, system_prompt="You are " + "very, " * 3 + "kind and patient. " * 60)
    assert check(open_source(source), section).to_dict()["problems"] == []


def test_a_conversation_leaks_into_one_that_is_laid_out_otherwise(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", [{"instruction": f"Count to {n}.", "output": f"{n}!"} for n in range(9)])
    held = [{"role": "user", "content": "Count to 4."}, {"role": "assistant", "content": "4!"}]
    for number, row in enumerate(({"messages": held}, {"prompt": held[:1], "completion": held[1:]})):
        path = write_rows(tmp_path / f"held-{number}.jsonl", [row])
        assert kinds(checked(rows, validation=opened(path))) == {"leak": [5]}


# -- the findings -----------------------------------------------------------------------------------------------------


def test_positions_are_kept_for_the_preview(tmp_path: Path, studio_home: Path) -> None:
    rows: list[Any] = tiny_rows(40)
    bad = [3, 8, 15, *range(20, 35)]
    for position in bad:
        rows[position] = {"messages": []}
    path = write_rows(tmp_path / "rows.jsonl", rows)
    report = checked(path)
    (problem,) = report.to_dict()["problems"]
    assert problem["count"] == len(bad)
    assert problem["positions"] == bad[:10]
    assert problem["lines"] == [position + 1 for position in bad[:10]]
    assert studio_home / "cache" / "data" in report.findings.parents
    kept = np.load(report.findings / f"{problem['kind']}.npy")
    assert kept.dtype == np.uint64
    assert kept.tolist() == bad
    assert checked(path).findings == report.findings
    assert checked(path, near=False).findings != report.findings


def test_lines_of_several_files_are_told_with_their_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "a.jsonl", tiny_rows(3))
    write_rows(tmp_path / "data" / "b.jsonl", [*tiny_rows(2, seed=4), {"messages": []}])
    report = checked(tmp_path / "data")
    assert kinds(report) == {"empty_prompt": ["b.jsonl:3"]}


def test_as_an_op(tmp_path: Path) -> None:
    planted.planted_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    found, held = planted.plant(tmp_path, 300)
    words: list[dict[str, Any]] = []
    answer = check_op(
        {
            "dataset": {"name": "rows", "path": str(found.path)},
            "section": {"path": "rows"},
            "model": {"kind": "folder", "name": "tiny", "path": str(tmp_path / "model")},
            "max_length": planted.MAX_LENGTH,
            "near": True,
            "validation": {"name": "held", "path": str(held.path)},
        },
        words.append,
    )
    json.dumps(answer)
    assert {problem["kind"]: problem["lines"] for problem in answer["problems"]} == {
        kind: [line] for kind, line in found.lines.items()
    }
    assert {path.stem for path in Path(answer["findings"]).iterdir()} == set(found.lines)
    assert {"text": "Checking the rows", "done": 300, "total": 300} in words


# -- stopping, and other processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_check_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, studio_home: Path, workers: int
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", tiny_rows(3000))
    monkeypatch.setattr(judging, "_MUCH", 0 if workers > 1 else 2**60)
    seen: list[int | None] = []

    def progress(text: str, done: int | None, total: int | None) -> None:
        if text == "Checking the rows":
            seen.append(done)

    before = set(children())
    with pytest.raises(Cancelled):
        checked(path, tokenizer=TOKENIZER, progress=progress, stopped=lambda: 400 in seen)
    assert seen[-1] == 400
    assert set(children()) <= before
    leftover = [path for path in (studio_home / "cache").rglob("*") if ".near" in str(path) or path.suffix == ".npy"]
    assert leftover == []


def test_a_check_can_be_stopped_before_its_processes_are_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "rows.jsonl", tiny_rows(3000))
    monkeypatch.setattr(judging, "_MUCH", 0)
    seen: list[int | None] = []
    with pytest.raises(Cancelled):
        checked(
            path, tokenizer=TOKENIZER, progress=lambda text, done, total: seen.append(done), stopped=lambda: bool(seen)
        )
    assert seen == [0]
    assert children() == []


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_process_that_is_killed_is_told(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", tiny_rows(3000))
    source = opened(path)
    judge = Judge(layouts(DatasetSection(path=str(path)), source), None, Wanted())
    verdicts = judging.judged(source.iterate(), judge, workers=2)
    assert next(verdicts).position == 0
    assert len(children()) == 2
    psutil.Process(children()[0]).kill()
    with pytest.raises(WorkerError, match="ended from outside"):
        list(verdicts)
    assert children() == []


def plainly(verdict: Verdict) -> dict[str, Any]:
    fields = vars(verdict)
    return {name: _listed(value) for name, value in fields.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, list):
        return [_listed(one) for one in value]
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_other_processes_come_to_the_same_verdicts(tmp_path: Path) -> None:
    found, _ = planted.plant(tmp_path, 300)
    source = opened(found.path)
    chosen = layouts(DatasetSection(path=str(found.path)), source)
    wanted = Wanted(max_length=planted.MAX_LENGTH, shingles=True, tokens=True)
    judge = Judge(chosen, Encoder(planted.planted_tokenizer(), "last_assistant"), wanted)
    here = [plainly(verdict) for verdict in judging.judged(source.iterate(), judge)]
    there = [plainly(verdict) for verdict in judging.judged(source.iterate(), judge, workers=2)]
    assert there == here
    assert len(here) == 300
    assert sum(bool(verdict["problems"]) for verdict in here) == len(found.lines) - 3  # without comparing rows


DIES = """
import os, sys
from studio.core.config import DatasetSection
from studio.core.inputs import DatasetInput
from studio.worker.data import judging
from studio.worker.data.judge import Judge, Wanted
from studio.worker.data.source import layouts, open_source
from studio.worker.encode import Encoder
from tests.tiny import tiny_tokenizer

def main():
    source = open_source(DatasetInput("rows", sys.argv[1]))
    chosen = layouts(DatasetSection(path=sys.argv[1]), source)
    verdicts = judging.judged(source.iterate(), Judge(chosen, Encoder(tiny_tokenizer()), Wanted()), 2)
    next(verdicts)
    import psutil
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    os._exit(9)

if __name__ == "__main__":
    main()
"""


def test_other_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", tiny_rows(3000))
    program = tmp_path / "dies.py"
    program.write_text(DIES, encoding="utf-8")
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, str(program), str(path)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 9, done.stderr
    started = [psutil.Process(int(pid)) for pid in done.stdout.split() if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
    assert len(done.stdout.split()) >= 2


def test_a_mix_that_repeats_its_rows_has_no_duplicates(tmp_path: Path) -> None:
    parts = []
    for number, rows in enumerate((tiny_rows(4), tiny_rows(60, seed=3))):
        path = write_rows(tmp_path / f"{number}.jsonl", rows)
        parts.append(DatasetInput(path.name, str(path), weight=0.5))
    mix = DatasetInput("mix", kind="mix", parts=tuple(parts), stopping="all_exhausted")
    source = open_source(mix)
    assert len(list(source.iterate())) > 64
    assert check(source, DatasetSection(path="mix")).to_dict()["problems"] == []
    doubled = replace(mix, parts=(parts[0], parts[1], parts[1]))
    (problem,) = check(open_source(doubled), DatasetSection(path="mix")).to_dict()["problems"]
    assert problem["kind"] == "duplicate"
