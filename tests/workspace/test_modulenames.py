"""The names of a model's linear layers, from its files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from studio.core.shapes import from_folder
from studio.workspace.modulenames import module_names
from tests.tiny import make_tiny_model


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "phi"])
def test_the_names_are_those_of_the_model_when_it_is_loaded(kind: str, tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / kind, kind)
    model = AutoModelForCausalLM.from_pretrained(folder)
    head = model.get_output_embeddings()
    real: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head:
            real.setdefault(path.rpartition(".")[2], []).append(path)
    found = {each.name: each for each in module_names(from_folder(folder))}
    assert {name: each.layers for name, each in found.items()} == {name: len(paths) for name, paths in real.items()}
    if kind != "gpt2":  # whose attention and feed-forward part share a name
        assert {name for name, each in found.items() if each.attention} == {
            name for name, paths in real.items() if all("attn" in p or "attention" in p for p in paths)
        }
