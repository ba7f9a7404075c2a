"""A row as trained on: what the Data tab shows is computed by the functions that training calls.

That training gets exactly this is shown in test_train, on the trainer's own batches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.inputs import DatasetInput, ModelInput
from studio.worker.show import show_row
from tests.tiny import tiny_rows

MakeDataset = Callable[..., DatasetInput]


def shown(source: DatasetInput, model: Path, row: int = 0, max_length: int = 512, **section: Any) -> dict[str, Any]:
    wishes = DatasetSection(path=source.path, **section)
    return show_row(
        {
            "dataset": asdict(source),
            "model": asdict(ModelInput("folder", "tiny", str(model))),
            "section": wishes.model_dump(mode="json"),
            "row": row,
            "max_length": max_length,
        }
    )


def test_a_row_is_shown_as_the_tokenizer_writes_it(tiny_model: Path, dataset: MakeDataset) -> None:
    rows = tiny_rows(3, turns=2)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for number, row in enumerate(rows):
        found = shown(dataset(rows), tiny_model, number)
        assert found["messages"] == row["messages"]
        assert found["text"] == tokenizer.apply_chat_template(row["messages"], tokenize=False)
        assert found["ids"] == tokenizer.apply_chat_template(row["messages"], tokenize=True)["input_ids"]
        assert "".join(found["tokens"]) == found["text"]
        learnt = "".join(token for token, carries in zip(found["tokens"], found["loss"], strict=True) if carries)
        said = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
        assert learnt == "".join(f"{text}<|im_end|>" for text in said)
        assert (found["line"], found["format"], found["cut"]) == (number + 1, "messages", len(found["ids"]))


def test_F38_where_a_row_is_cut_is_shown(tiny_model: Path, dataset: MakeDataset) -> None:
    source = dataset(tiny_rows(1))
    whole = shown(source, tiny_model)
    cut = shown(source, tiny_model, max_length=20)
    assert cut["cut"] == 20 < len(cut["ids"])
    assert cut["ids"] == whole["ids"]


def test_what_carries_loss_follows_the_wish(tiny_model: Path, dataset: MakeDataset) -> None:
    source = dataset(tiny_rows(1, turns=3))
    every = shown(source, tiny_model)["loss"]
    last = shown(source, tiny_model, train_on="last_assistant")["loss"]
    assert all(shown(source, tiny_model, train_on="all")["loss"])
    assert 0 < sum(last) < sum(every)
    assert all(carries for carries, wanted in zip(every, last, strict=True) if wanted)


def test_a_line_that_cant_be_used_says_why(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": []}\n\n{broken\n', encoding="utf-8")
    source = DatasetInput("rows", str(path), format="messages")
    with pytest.raises(DataError, match="Line 1 can't be used as messages") as refused:
        shown(source, tiny_model, 0)
    assert refused.value.line == 1
    with pytest.raises(DataError, match="Line 3 can't be used: no valid JSON"):
        shown(source, tiny_model, 1)


@pytest.mark.parametrize("row", [2, 10**6, -1])
def test_a_row_that_there_isnt_says_so(tiny_model: Path, dataset: MakeDataset, row: int) -> None:
    with pytest.raises(DataError, match=f"no row {row}"):
        shown(dataset(tiny_rows(2)), tiny_model, row)
