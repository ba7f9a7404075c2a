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
from tests.tiny import tiny_rows, write_rows

MakeDataset = Callable[..., DatasetInput]


def shown(source: DatasetInput, model: Path, row: int = 0, max_length: int = 512, **section: Any) -> dict[str, Any]:
    wishes = DatasetSection(path=source.path, **section)
    return show_row(
        {
            "dataset": asdict(source),
            "model": asdict(ModelInput("folder", "tiny", str(model))),
            "section": wishes.model_dump(mode="json"),
            "position": row,
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


def test_a_row_is_reached_by_its_position_wherever_it_stands(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"row number {number}"} for number in range(400)]
    for part in range(2):
        write_rows(tmp_path / "rows" / f"part-{part}.jsonl", rows[part * 200 : part * 200 + 200])
    source = DatasetInput("rows", str(tmp_path / "rows"))
    for number in (0, 199, 200, 399):
        found = shown(source, tiny_model, number)
        assert found["text"] == rows[number]["text"]
        assert found["position"] == number
        assert (found["format"], found["type"]) == ("text", "language_modeling")
        assert found["where"] == f"part-{number // 200}.jsonl:{number % 200 + 1}"
    with pytest.raises(DataError, match="no row 400"):
        shown(source, tiny_model, 400)


def test_a_preference_shows_both_answers_behind_one_prompt(tiny_model: Path, dataset: MakeDataset) -> None:
    prompt = [{"role": "user", "content": "the name?"}]
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in ("it is seven", "no"))
    found = shown(dataset([{"prompt": prompt, "chosen": chosen, "rejected": rejected}]), tiny_model)
    other = found["rejected"]
    assert found["type"] == "preference"
    assert (found["messages"], other["messages"]) == (prompt + chosen, prompt + rejected)
    for told, answer in ((found, "it is seven"), (other, "no")):
        learnt = [token for token, carries in zip(told["tokens"], told["loss"], strict=True) if carries]
        assert "".join(learnt) == f"{answer}<|im_end|>"
        assert "".join(told["tokens"]) == told["text"]
        assert len(told["special"]) == len(told["ids"]) == told["cut"]
    asked = found["loss"].index(True)
    assert found["ids"][:asked] == other["ids"][:asked]


def test_special_tokens_are_told_from_those_that_are_only_spelled(tiny_model: Path, dataset: MakeDataset) -> None:
    messages = [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "the name"}]
    found = shown(dataset([{"messages": messages}]), tiny_model)
    assert found["neutralised"] == 1
    assert "".join(found["tokens"]) == found["text"]
    special = [token for token, is_one in zip(found["tokens"], found["special"], strict=True) if is_one]
    assert special == ["<|im_start|>", "<|im_end|>"] * 3
    assert found["rejected"] is None


def test_characters_in_several_tokens_are_shown_as_bytes(tiny_model: Path, dataset: MakeDataset) -> None:
    messages = [{"role": "user", "content": "a✓"}, {"role": "assistant", "content": "🦊"}]
    found = shown(dataset([{"messages": messages}]), tiny_model)
    assert "\ufffd" not in "".join(found["tokens"])
    assert "a⟨E2⟩⟨9C⟩⟨93⟩" in "".join(found["tokens"])


def test_a_prompt_alone_is_shown_up_to_where_the_model_answers(tiny_model: Path, dataset: MakeDataset) -> None:
    found = shown(dataset([{"prompt": [{"role": "user", "content": "the name?"}]}]), tiny_model)
    assert found["type"] == "prompt_only"
    assert found["text"].endswith("<|im_start|>assistant\n")
    assert not any(found["loss"])


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
