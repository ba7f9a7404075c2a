"""What the form offers is what there is: a model's own layers, rows of a type that their first line shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.core.config import DatasetSection
from studio.core.shapes import from_config
from studio.ui import offered

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 400, "tie_word_embeddings": False,
}  # fmt: skip


def test_a_llama_s_layers_are_its_seven_projections() -> None:
    found = offered.modules(from_config(LLAMA))
    assert sorted(found) == sorted(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    assert offered.modules(None) == []


def test_parameters_are_counted() -> None:
    attention = 64 * 64 * 2 + 64 * 32 * 2
    layer = attention + 3 * 64 * 128 + 2 * 64
    assert offered.parameters(from_config(LLAMA)) == 2 * layer + 2 * 400 * 64 + 64
    assert offered.parameters(None) is None


@pytest.mark.parametrize(
    ("text", "type"),
    [
        ('{"chosen": "a", "rejected": "b", "prompt": "c"}', "preference"),
        ('{"messages": []}', "language_modeling"),
        ('{"prompt": "a", "completion": "b", "label": true}', "unpaired_preference"),
        ('{"prompt": "a"}', "prompt_only"),
        ('{"foreign": 1}', ""),
        ("{", ""),
        ("[1]", ""),
        ("", ""),
    ],
)
def test_rows_show_their_type_by_the_first_line(tmp_path: Path, text: str, type: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(text + "\n", encoding="utf-8")
    assert offered.row_type(DatasetSection(path=str(file))) == type


def test_a_layout_that_is_named_needs_no_look_at_the_rows(tmp_path: Path) -> None:
    assert offered.row_type(DatasetSection(path="quickstart-preference")) == "preference"
    file = tmp_path / "rows.csv"
    file.write_text("a,b\n1,2\n", encoding="utf-8")
    assert offered.row_type(DatasetSection(path=str(file), format="alpaca")) == "language_modeling"
    assert offered.row_type(DatasetSection(path=str(file))) == ""
    assert offered.row_type(DatasetSection(path="there is none")) == ""
