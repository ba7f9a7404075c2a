"""What goes into the trainer, and the count of everything that doesn't."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.config import DatasetSection
from studio.core.errors import DataError, TemplateError
from studio.core.formats import FORMATS, Layout, to_example
from studio.core.inputs import DatasetInput
from studio.core.problems import PROBLEMS
from studio.worker.data import judging
from studio.worker.data import prepare as module
from studio.worker.data.check import check
from studio.worker.data.prepare import Prepared, has_changed, prepare
from studio.worker.data.report import check_same_data
from studio.worker.data.source import Cancelled, open_source
from studio.worker.data.split import read_split
from studio.worker.encode import Encoder
from tests import planted
from tests.tiny import tiny_rows, tiny_tokenizer, write_rows

MakeDataset = Callable[..., DatasetInput]
TOKENIZER = tiny_tokenizer()


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even for files with a line that is too big: starting others takes longer than a test."""
    monkeypatch.setattr(judging, "_MUCH", 2**60)


def prepared(
    source: DatasetInput,
    *,
    max_length: int = 512,
    seed: int = 1,
    train_on: str = "assistant",
    tokenizer: Any = TOKENIZER,
    validation: DatasetInput | None = None,
    folder: Path | None = None,
    **section: Any,
) -> Prepared:
    wishes = DatasetSection(path=source.path or "mix", **{"validation_split": 0.0, **section})
    encoder = Encoder(tokenizer, train_on)
    return prepare(wishes, source, encoder, max_length=max_length, seed=seed, validation=validation, folder=folder)


def template_ids(row: dict[str, Any]) -> list[int]:
    found: list[int] = TOKENIZER.apply_chat_template(row["messages"], tokenize=True)["input_ids"]
    return found


def asked(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_every_row_arrives_in_order_with_labels_only_where_there_is_loss(dataset: MakeDataset) -> None:
    rows = tiny_rows(12, turns=2)
    found = prepared(dataset(rows)).train
    assert found["input_ids"][:] == [template_ids(row) for row in rows]
    for ids, labels, length, row in zip(found["input_ids"], found["labels"], found["length"], rows, strict=True):
        assert length == len(ids) == len(labels)
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        said = "".join(m["content"] + "<|im_end|>" for m in row["messages"] if m["role"] == "assistant")
        assert TOKENIZER.decode([label for label in labels if label != -100]) == said


def test_the_report_counts_the_tokens_that_are_trained_on(dataset: MakeDataset) -> None:
    rows = tiny_rows(9)
    found = prepared(dataset(rows), validation_split=0.3)
    assert found.validation is not None
    report = found.report
    assert (report.rows, report.usable, report.train, report.validation) == (9, 9, 6, 3)
    assert report.tokens == sum(map(len, found.train["input_ids"]))
    assert report.loss_tokens == sum(label != -100 for labels in found.train["labels"] for label in labels)
    assert report.longest == max(len(template_ids(row)) for row in rows)
    assert report.format == "messages"


def test_unusable_rows_are_counted_by_kind_with_their_line_numbers(tmp_path: Path) -> None:
    good = json.dumps(asked("hello", "good night"))
    silent = json.dumps({"messages": [{"role": "user", "content": "hello"}]})
    lines = [good, "{broken", "", silent, good, *[silent] * 6, good]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = prepared(DatasetInput("rows", str(path))).report
    assert (report.rows, report.usable, report.train) == (11, 3, 3)  # a blank line is no row
    assert list(report.unusable) == ["unreadable", "no_assistant"]
    broken, silences = report.unusable.values()
    assert (broken["count"], broken["lines"]) == (1, [2])
    assert "JSON" in broken["reason"]
    assert (silences["count"], silences["lines"]) == (7, [4, 6, 7, 8, 9])
    notes = list(report.notes(512))
    assert any(note.startswith("1 row was left out (") and "; line 2)" in note for note in notes)
    assert any(note.startswith("7 rows were left out (") and "; line 4, 6, 7, 8, 9…)" in note for note in notes)


def test_F38_rows_that_are_too_long_are_cut_and_counted(dataset: MakeDataset) -> None:
    rows = [asked("hello", " ".join(["boats"] * words)) for words in (2, 30, 60)]
    whole = [template_ids(row) for row in rows]
    limit = len(whole[0]) + 5
    found = prepared(dataset(rows), max_length=limit)
    assert found.train["input_ids"][:] == [ids[:limit] for ids in whole]
    assert found.report.cut == 2
    assert found.report.tokens_lost == sum(len(ids) - limit for ids in whole[1:])
    (note,) = found.report.notes(limit)
    assert f"2 rows have over {limit} tokens" in note
    assert f"{found.report.tokens_lost} tokens" in note


def test_F39_rows_whose_question_fills_the_length_are_left_out_and_counted(dataset: MakeDataset) -> None:
    rows = [asked("boats " * 80, "yes"), asked("hello", "good night"), asked("boats " * 90, "no")]
    limit = len(template_ids(rows[1]))
    found = prepared(dataset(rows), max_length=limit)
    assert found.train["input_ids"][:] == [template_ids(rows[1])]
    assert found.report.without_loss == 2
    (note,) = found.report.notes(limit)
    assert note.startswith("2 rows were left out")
    assert f"fills all {limit} tokens" in note


def test_F39_where_every_question_fills_the_length_the_run_is_refused(dataset: MakeDataset) -> None:
    with pytest.raises(DataError, match="0 usable rows of 3") as refused:
        prepared(dataset([asked("boats " * 80, "yes")] * 3), max_length=40)
    assert "40 tokens" in refused.value.message


def test_where_no_row_can_be_used_the_first_bad_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + '{"text": 5}\n' * 3, encoding="utf-8")
    with pytest.raises(DataError, match=r"0 usable rows of 3\. Line 2: text should be text"):
        prepared(DatasetInput("rows", str(path)))


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        prepared(DatasetInput("rows", str(tmp_path / "nowhere.jsonl")))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.floats(0, 0.9), st.floats(0, 0.9), st.integers(0, 2**32 - 1))
def test_splits_are_disjoint_and_sum_up(
    tmp_path_factory: pytest.TempPathFactory, count: int, validation: float, test: float, seed: int
) -> None:
    if validation + test >= 1:
        validation, test = validation / 2, test / 2
    path = tmp_path_factory.mktemp("split") / "rows.jsonl"
    texts = [f"row number {number}" for number in range(count)]
    write_rows(path, [{"text": text} for text in texts])
    source = DatasetInput("rows", str(path))
    found = prepared(source, seed=seed, validation_split=validation, test_split=test)
    held = found.validation["input_ids"][:] if found.validation is not None else []
    kept, held = ({tuple(ids) for ids in part} for part in (found.train["input_ids"], held))
    every = {(*TOKENIZER(text)["input_ids"], TOKENIZER.eos_token_id) for text in texts}
    report = found.report
    assert not kept & held
    assert kept | held <= every
    assert (len(kept), len(held)) == (report.train, report.validation)
    assert report.train + report.validation + report.test == count
    assert report.train > 0
    if count > 1 and validation > 0 and test == 0:
        assert abs(report.validation - validation * count) <= 1
    again = prepared(source, seed=seed, validation_split=validation, test_split=test)
    assert again.train["input_ids"][:] == found.train["input_ids"][:]


def test_another_seed_holds_out_other_rows(dataset: MakeDataset) -> None:
    source = dataset(tiny_rows(40))
    splits = {
        json.dumps(prepared(source, seed=seed, validation_split=0.25).validation["input_ids"][:]) for seed in range(4)
    }
    assert len(splits) == 4


def test_only_the_first_rows_are_used_where_that_is_asked_for(dataset: MakeDataset) -> None:
    rows = tiny_rows(10)
    found = prepared(dataset(rows), max_samples=4)
    assert found.train["input_ids"][:] == [template_ids(row) for row in rows[:4]]
    assert found.report.rows == 4


def test_a_system_prompt_is_put_before_rows_that_have_none(dataset: MakeDataset) -> None:
    rows = tiny_rows(4)  # every other one has its own
    prompt = {"role": "system", "content": "Answer in one word."}
    expected = [[*([] if row["messages"][0]["role"] == "system" else [prompt]), *row["messages"]] for row in rows]
    found = prepared(dataset(rows), system_prompt=prompt["content"])
    assert found.train["input_ids"][:] == [template_ids({"messages": messages}) for messages in expected]


@pytest.mark.parametrize("rows", [tiny_rows(300), [{"text": f"row {n}"} for n in range(5)]], ids=["messages", "text"])
def test_parquet_is_read_as_jsonl_is(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    lines = write_rows(tmp_path / "rows.jsonl", rows)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    plain = prepared(DatasetInput("rows", str(lines)), validation_split=0.2)
    table = prepared(DatasetInput("rows", str(tmp_path / "rows.parquet")), validation_split=0.2)
    assert table.train.to_dict() == plain.train.to_dict()
    assert table.validation is not None and plain.validation is not None
    assert table.validation.to_dict() == plain.validation.to_dict()


def test_a_damaged_parquet_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(DataError, match="parquet"):
        prepared(DatasetInput("rows", str(path)))


def test_F28_a_resumed_run_refuses_other_data(tmp_path: Path, dataset: MakeDataset) -> None:
    rows = tiny_rows(8)
    first = prepared(dataset(rows)).report
    check_same_data(tmp_path, first)
    check_same_data(tmp_path, prepared(dataset(rows)).report)  # the same again may go on
    rows[3]["messages"][-1]["content"] += " morning"
    changed = prepared(dataset(rows)).report
    with pytest.raises(DataError) as refused:
        check_same_data(tmp_path, changed)
    assert f"tokens was {first.tokens}, is {changed.tokens}" in refused.value.message
    assert changed.sha256 in refused.value.message


def test_F28_an_edit_that_keeps_every_count_is_noticed_too(tmp_path: Path, dataset: MakeDataset) -> None:
    check_same_data(tmp_path, prepared(dataset([asked("hello", "good night")])).report)
    with pytest.raises(DataError, match="sha256"):
        check_same_data(tmp_path, prepared(dataset([asked("hello", "good light")])).report)


# -- what is left out -------------------------------------------------------------------------------------------------

PII = ["pii_email", "pii_phone", "pii_card", "pii_key"]
WARNINGS = ["answer_equals_prompt", "special_tokens", "too_long", "duplicate", "near_duplicate", "leak", *PII]


@pytest.fixture(scope="module")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetInput, DatasetInput]:
    """A dataset with a problem of every kind, and the one to validate on."""
    rows, held = planted.plant(tmp_path_factory.mktemp("planted"), 300, seed=5)
    return DatasetInput("rows", str(rows.path)), DatasetInput("held", str(held.path))


@pytest.mark.parametrize("kinds", [[], *([kind] for kind in WARNINGS), WARNINGS], ids=lambda kinds: "-".join(kinds[:2]))
def test_what_is_trained_on_is_what_the_check_calls_usable_less_what_is_excluded(
    all_kinds: tuple[DatasetInput, DatasetInput], kinds: list[str]
) -> None:
    rows, held = all_kinds
    tokenizer = planted.planted_tokenizer()
    wishes = {"exclude": kinds, "exclude_rows": [0, 7, 10_000]}
    section = DatasetSection(path=rows.path, **wishes)
    checked = check(
        open_source(rows),
        section,
        tokenizer=tokenizer,
        max_length=planted.MAX_LENGTH,
        validation=open_source(held),
    ).found
    expected = set(checked.usable.positions.tolist()) - {0, 7}
    for kind in kinds:
        assert checked.findings.count(kind) == 1
        expected -= set(checked.findings.positions(kind).tolist())
    wishes["test_split"] = 0.1
    found = prepared(rows, tokenizer=tokenizer, max_length=planted.MAX_LENGTH, validation=held, **wishes)
    report = found.report
    assert set(found.membership.positions.tolist()) == expected
    assert report.usable == len(checked.usable)
    assert report.usable - report.excluded_rows == report.train + report.test == len(expected)
    assert {kind: entry["count"] for kind, entry in report.excluded.items()} == {
        **dict.fromkeys(kinds, 1),
        "exclude_rows": 2,
    }
    errors = {kind for kind, problem in PROBLEMS.items() if problem.severity == "error"}
    assert set(report.unusable) == errors - {"chosen_equals_rejected", "label_not_boolean"}
    assert report.rows - report.usable == sum(entry["count"] for entry in report.unusable.values())
    told = " ".join(report.notes(planted.MAX_LENGTH))
    assert all(PROBLEMS[kind].title.lower() in told.lower() for kind in [*kinds, *report.unusable])
    encoder = Encoder(tokenizer)
    lines = {line.position: line for line in open_source(rows).iterate()}
    layout = Layout(FORMATS["messages"])
    trained = [
        encoder.encode(to_example(lines[position].row, layout)).ids[: planted.MAX_LENGTH]
        for position in found.membership.of(0).tolist()
    ]
    assert found.train["input_ids"][:] == trained


def test_where_everything_is_left_out_the_run_is_refused(dataset: MakeDataset) -> None:
    with pytest.raises(DataError, match="3 of 3 are left out"):
        prepared(dataset(tiny_rows(3)), exclude_rows=[0, 1, 2])


def test_a_template_that_can_say_no_row_is_told_with_its_remedy(dataset: MakeDataset) -> None:
    with pytest.raises(TemplateError, match="no chat template") as refused:
        prepared(dataset(tiny_rows(3)), tokenizer=tiny_tokenizer(None))
    assert "instruct" in refused.value.hint


# -- validation rows of their own -------------------------------------------------------------------------------------


def test_a_validation_dataset_is_used_whole_and_nothing_is_held_out(dataset: MakeDataset) -> None:
    rows, others = tiny_rows(20), tiny_rows(30, seed=9)
    held = dataset([*others[:9], {"messages": []}, rows[4], rows[7]], name="held.jsonl")
    found = prepared(dataset(rows), validation=held, validation_split=0.5, validation_path="held.jsonl")
    assert found.validation is not None
    assert found.validation["input_ids"][:] == [template_ids(row) for row in [*others[:9], rows[4], rows[7]]]
    assert found.train["input_ids"][:] == [template_ids(row) for row in rows]
    assert (found.report.train, found.report.validation, found.report.leaks) == (20, 11, 2)
    notes = list(found.report.notes(512))
    assert any("left out of the validation rows" in note and "line 10" in note for note in notes)
    assert any(note.startswith("2 rows stand in the validation rows too") for note in notes)


def test_rows_that_leak_can_be_left_out(dataset: MakeDataset) -> None:
    rows = tiny_rows(20)
    held = dataset([rows[4], rows[7]], name="held.jsonl")
    found = prepared(dataset(rows), validation=held, exclude=["leak"], validation_path="held.jsonl")
    assert found.train["input_ids"][:] == [template_ids(row) for n, row in enumerate(rows) if n not in (4, 7)]
    assert not any("flatters" in note for note in found.report.notes(512))


def test_a_validation_dataset_without_a_usable_row_is_refused(dataset: MakeDataset) -> None:
    held = dataset([{"messages": []}], name="held.jsonl")
    with pytest.raises(DataError, match="validation dataset has 0 usable rows of 1"):
        prepared(dataset(tiny_rows(4)), validation=held, validation_path="held.jsonl")


# -- rows that no method of the run learns from -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "next_step"),
    [
        ({"prompt": "Which?", "chosen": "This.", "rejected": "That."}, "studio data convert"),
        ({"prompt": "Which?", "completion": "This.", "label": True}, "studio data convert"),
        ({"prompt": "Which?"}, "dataset with answers"),
    ],
    ids=["preference", "unpaired", "prompt only"],
)
def test_rows_that_supervised_training_cant_learn_from_are_refused(
    dataset: MakeDataset, row: dict[str, Any], next_step: str
) -> None:
    with pytest.raises(DataError, match="sft learns from") as refused:
        prepared(dataset([row, row]))
    assert next_step in refused.value.hint


# -- loss -------------------------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["boats", "", " ", "fox jumps", "<|im_end|>", "\u00e9"]), max_size=12).map(" ".join)
TURNS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(TURNS, min_size=1, max_size=8), st.integers(8, 60), st.sampled_from(["assistant", "last_assistant"]))
def test_F40_every_row_that_is_trained_on_carries_loss(
    tmp_path_factory: pytest.TempPathFactory, conversations: list[Any], max_length: int, train_on: str
) -> None:
    rows = [
        {"messages": [message for question, answer in turns for message in asked(question, answer)["messages"]]}
        for turns in conversations
    ]
    path = write_rows(tmp_path_factory.mktemp("loss") / "rows.jsonl", [*rows, asked("hello", "yes")])
    source = DatasetInput("rows", str(path))
    try:
        found = prepared(source, max_length=max_length, train_on=train_on, validation_split=0.3)
    except DataError as refused:
        assert "0 usable rows" in refused.message  # they may all be too long
        return
    for part in (found.train, found.validation):
        for labels in part["labels"] if part is not None else ():
            assert any(label != -100 for label in labels[1:])  # the first token is never predicted
    assert found.report.train + found.report.validation == found.report.usable


# -- memory, and files that change ------------------------------------------------------------------------------------

MEASURED = """
import resource, sys
from pathlib import Path
from studio.core.config import DatasetSection
from studio.core.inputs import DatasetInput
from studio.worker.data.prepare import prepare
from studio.worker.encode import Encoded
from datasets import Dataset  # what is imported late would count as growth

class Endless:
    train_on = "all"
    class tokenizer:
        added_tokens_decoder, all_special_tokens = {}, ["<s>"]
    def encode(self, example):
        return Encoded(list(range(5000)), [True] * 5000, "")

folder = Path(sys.argv[1])
def run(rows):
    path = folder / f"{rows}.jsonl"
    path.write_text("".join('{"text": "row %d"}\\n' % n for n in range(rows)))
    section = DatasetSection(path=str(path), validation_split=0.25)
    data = DatasetInput("rows", str(path))
    found = prepare(section, data, Endless(), max_length=5000, seed=1, folder=folder / "rows")
    assert found.report.tokens == 5000 * found.report.train
    assert found.train[-1]["input_ids"][-1] == 4999
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

few, many = run(100), run(4000)
unit = 1 if sys.platform == "darwin" else 1024
print((many - few) * unit)
"""


def test_the_peak_of_memory_doesnt_grow_with_the_tokens(tmp_path: Path) -> None:
    """20 million tokens are 240 MB as they lie in the files."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "STUDIO_HOME": str(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60 * 2**20
    assert sum(path.stat().st_size for path in (tmp_path / "rows").iterdir()) > 200 * 2**20


def test_encoded_rows_lie_in_the_folder_and_are_the_same_as_in_memory(tmp_path: Path, dataset: MakeDataset) -> None:
    source = dataset(tiny_rows(30))
    there = prepared(source, validation_split=0.2, folder=tmp_path / "rows")
    here = prepared(source, validation_split=0.2)
    assert there.validation is not None and here.validation is not None
    assert there.train.to_dict() == here.train.to_dict()
    assert there.validation.to_dict() == here.validation.to_dict()
    assert {Path(file["filename"]).name for file in there.train.cache_files} == {"train.arrow"}
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == ["train.arrow", "validation.arrow"]


def test_the_parts_are_kept_beside_the_run(tmp_path: Path, dataset: MakeDataset) -> None:
    found = prepared(dataset(tiny_rows(20)), validation_split=0.2, test_split=0.25, exclude_rows=[3])
    found.membership.save(tmp_path)
    parts = read_split(tmp_path)
    assert parts is not None
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 11, "validation": 3, "test": 5}
    assert sorted(np.concatenate(list(parts.values())).tolist()) == [n for n in range(20) if n != 3]
    assert read_split(tmp_path / "elsewhere") is None


def test_a_stopped_preparation_leaves_no_half_written_rows(tmp_path: Path, dataset: MakeDataset) -> None:
    def stop(text: str, done: int | None, total: int | None) -> None:
        if text == module.READING and done:
            raise Cancelled

    source = dataset(tiny_rows(900))
    section = DatasetSection(path=source.path, group_duplicates="near")
    with pytest.raises(Cancelled):
        prepare(section, source, Encoder(TOKENIZER), max_length=99, seed=1, folder=tmp_path / "rows", progress=stop)
    assert list((tmp_path / "rows").iterdir()) == []


def test_F37_a_dataset_that_changes_while_it_is_read_is_refused(dataset: MakeDataset) -> None:
    source = dataset(tiny_rows(300))

    def append(text: str, done: int | None, total: int | None) -> None:
        if text == module.READING and done == 200:
            with Path(source.path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asked("hello", "late")) + "\n")

    with pytest.raises(DataError, match="changed while it was being read"):
        prepare(DatasetSection(path=source.path), source, Encoder(TOKENIZER), max_length=99, seed=1, progress=append)


def test_F37_a_dataset_that_changes_later_is_noticed(dataset: MakeDataset) -> None:
    source = dataset(tiny_rows(4))
    found = prepared(source)
    assert not has_changed(source, found.state)
    write_rows(Path(source.path), tiny_rows(5))
    assert has_changed(source, found.state)
    Path(source.path).unlink()
    assert has_changed(source, found.state)
