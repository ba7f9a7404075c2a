"""What goes into the trainer, and the count of everything that doesn't."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.worker.data import Prepared, check_same_data, prepare
from studio.worker.encode import Encoder
from tests.tiny import tiny_rows, tiny_tokenizer, write_rows

MakeDataset = Callable[..., DatasetInput]
TOKENIZER = tiny_tokenizer()


def prepared(
    source: DatasetInput, *, max_length: int = 512, seed: int = 1, train_on: str = "assistant", **section: Any
) -> Prepared:
    wishes = DatasetSection(path=source.path, **{"validation_split": 0.0, **section})
    encoder = Encoder(TOKENIZER, train_on)
    return prepare(wishes, source, encoder, max_length=max_length, seed=seed, progress=lambda rows: None)


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


def test_unusable_rows_are_counted_by_reason_with_their_line_numbers(tmp_path: Path) -> None:
    good = json.dumps(asked("hello", "good night"))
    silent = json.dumps({"messages": [{"role": "user", "content": "hello"}]})
    lines = [good, "{broken", "", silent, good, *[silent] * 6, good]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    report = prepared(DatasetInput("rows", str(path))).report
    assert (report.rows, report.usable) == (11, 3)  # a blank line is no row
    (broken, told), (missing, counted) = report.unusable.items()
    assert "JSON" in broken
    assert told == {"count": 1, "lines": [2]}
    assert "no answer" in missing
    assert counted == {"count": 7, "lines": [4, 6, 7, 8, 9]}
    notes = list(report.notes(512))
    assert any("1 rows were left out" in note and "(line 2)" in note for note in notes)
    assert any("7 rows were left out" in note and "line 4, 6, 7, 8, 9…" in note for note in notes)


def test_F38_rows_that_are_too_long_are_cut_and_counted(dataset: MakeDataset) -> None:
    rows = [asked("hello", " ".join(["boats"] * words)) for words in (2, 30, 60)]
    whole = [template_ids(row) for row in rows]
    limit = len(whole[0]) + 5
    found = prepared(dataset(rows), max_length=limit)
    assert found.train["input_ids"][:] == [ids[:limit] for ids in whole]
    assert found.report.cut == 2
    assert found.report.tokens_lost == sum(len(ids) - limit for ids in whole[1:])
    note = next(iter(found.report.notes(limit)))
    assert f"2 rows have over {limit} tokens" in note
    assert f"{found.report.tokens_lost} tokens" in note


def test_F39_rows_whose_question_fills_the_length_are_left_out_and_counted(dataset: MakeDataset) -> None:
    rows = [asked("boats " * 80, "yes"), asked("hello", "good night"), asked("boats " * 90, "no")]
    limit = len(template_ids(rows[1]))
    found = prepared(dataset(rows), max_length=limit)
    assert found.train["input_ids"][:] == [template_ids(rows[1])]
    assert found.report.without_loss == 2
    assert any(note.startswith("2 rows were left out") for note in found.report.notes(limit))


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
