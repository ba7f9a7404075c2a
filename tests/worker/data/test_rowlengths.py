"""Row lengths are those that a run trains on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from studio.core.config import DatasetSection
from studio.core.errors import ModelError
from studio.core.inputs import DatasetInput, ModelInput
from studio.core.rowlengths import RowLengths
from studio.worker.data.prepare import prepare
from studio.worker.data.rowlengths import lengths_op
from studio.worker.encode import Encoder
from studio.worker.models import load_tokenizer
from tests.tiny import tiny_rows, write_rows


def ask(dataset: DatasetInput, model: Path, told: list[Any] | None = None, **section: Any) -> dict[str, Any]:
    knobs = DatasetSection(path="rows", **section).model_dump(mode="json")
    given = dataclasses.asdict(ModelInput("folder", "tiny", str(model)))
    request = {"dataset": dataclasses.asdict(dataset), "section": knobs, "model": given}
    return lengths_op(request, (told if told is not None else []).append)


def test_lengths_are_those_of_the_rows_that_a_run_prepares(tiny_model: Path, tmp_path: Path) -> None:
    rows = tiny_rows(60, longest=40)
    dataset = DatasetInput("rows", str(write_rows(tmp_path / "rows.jsonl", rows)))
    told: list[Any] = []
    answer = ask(dataset, tiny_model, told)
    section = DatasetSection(path="rows", validation_split=0.0, group_duplicates="off")
    prepared = prepare(section, dataset, Encoder(load_tokenizer(tiny_model), "assistant"), max_length=4096, seed=0)
    found = RowLengths(dict(answer["counts"]))
    assert list(found) == sorted((len(ids) for ids in prepared.train["input_ids"]), reverse=True)
    assert answer["rows"] == 60 and answer["tokens"] == found.total()
    assert answer["loss"] == sum(label != -100 for labels in prepared.train["labels"] for label in labels)
    assert told and told[-1]["text"] == "Counting tokens"


def test_rows_that_cant_be_used_or_are_left_out_dont_count(tiny_model: Path, tmp_path: Path) -> None:
    rows = [*tiny_rows(4), {"messages": []}, *tiny_rows(3, seed=1)]
    dataset = DatasetInput("rows", str(write_rows(tmp_path / "rows.jsonl", rows)))
    assert ask(dataset, tiny_model)["rows"] == 7
    assert ask(dataset, tiny_model, exclude_rows=[0, 6])["rows"] == 5
    assert ask(dataset, tiny_model, max_samples=3)["rows"] == 3


def test_of_a_pair_the_longer_answer_counts(tiny_model: Path, tmp_path: Path) -> None:
    pair = {"prompt": "what is your name", "chosen": "one", "rejected": "one two three four five six seven eight"}
    dataset = DatasetInput("rows", str(write_rows(tmp_path / "rows.jsonl", [pair])))
    swapped = DatasetInput("rows", str(write_rows(tmp_path / "other.jsonl", [
        {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}])))  # fmt: skip
    assert ask(dataset, tiny_model)["counts"] == ask(swapped, tiny_model)["counts"]
    encoder = Encoder(load_tokenizer(tiny_model), "assistant")
    whole = len(encoder.tokenizer(pair["prompt"] + pair["rejected"])["input_ids"])
    assert ask(dataset, tiny_model)["counts"][0][0] >= whole


def test_weights_are_never_fetched_to_count_tokens(tmp_path: Path) -> None:
    dataset = DatasetInput("rows", str(write_rows(tmp_path / "rows.jsonl", tiny_rows(2))))
    with pytest.raises(ModelError, match="tokenizer"):
        ask(dataset, tmp_path)
