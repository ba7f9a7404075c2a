"""The comparison after an export: silent about what the format explains, red about anything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from studio.worker.export import parity
from studio.worker.export.parity import Parity, compare
from tests.worker.export.made import files_of, make_adapter, merge

Base = Callable[..., Path]
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.usefixtures("short_replies")]


@pytest.fixture
def adapter(base: Base, tmp_path: Path) -> Path:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear")
    return make_adapter(base("llama"), tmp_path / "adapter", config)


def judged(base: Path, adapter: Path, written: Path, quantization: str = "float32", format: str = "merged") -> Parity:
    ways: dict[str, Any] = {"combination": None, "weights": None, "density": None}
    fields = {"base": str(base), "adapters": [str(adapter)], "written": str(written), "format": format}
    dtype = quantization if format == "merged" else "float32"
    return compare({**fields, "quantization": quantization, "dtype": dtype, **ways})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_right_merge_is_the_same_model(base: Base, adapter: Path, tmp_path: Path, dtype: str) -> None:
    found = judged(base("llama"), adapter, merge(base("llama"), adapter, tmp_path / "out", dtype), dtype)
    assert found.same is True, found.problems
    assert found.max_logit_diff is not None and found.explained is not None and found.greedy_match is not None
    assert found.moved is not None and found.moved > 0.5
    assert found.greedy_match > 0.8
    assert found.max_logit_diff < (1e-3 if dtype == "float32" else 0.1 * found.moved)
    assert len(found.replies) == len(parity.PROMPTS)
    assert dtype != "float32" or all(each["before"] == each["after"] for each in found.replies)


@pytest.mark.parametrize("tied", [["q_proj", "embed_tokens"], ["q_proj", "lm_head"]])
def test_untied_embeddings_are_the_same_model(base: Base, tmp_path: Path, tied: list[str]) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=tied)
    adapter = make_adapter(base("tied"), tmp_path / "adapter", config)
    found = judged(base("tied"), adapter, merge(base("tied"), adapter, tmp_path / "out", "bfloat16"), "bfloat16")
    assert found.same is True, found.problems


def test_the_base_without_the_adapter_is_told_from_the_merged_model(base: Base, adapter: Path) -> None:
    found = judged(base("llama"), adapter, base("llama"))
    assert found.same is False
    assert "differs from base + adapter" in found.problems[0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_weight_that_is_wrong_is_found(base: Base, adapter: Path, tmp_path: Path, dtype: str) -> None:
    out = merge(base("llama"), adapter, tmp_path / "out", dtype)
    tensors = files_of(out)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = files_of(base("llama"))[name].to(tensors[name].dtype)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    assert judged(base("llama"), adapter, out, dtype).same is False


def test_numbers_that_are_none_are_found(base: Base, adapter: Path, tmp_path: Path) -> None:
    out = merge(base("llama"), adapter, tmp_path / "out")
    tensors = files_of(out)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    assert "NaN" in judged(base("llama"), adapter, out).problems[0]


def test_a_format_that_rounds_the_training_away_is_told(base: Base, tmp_path: Path) -> None:
    """A bfloat16 keeps eight bits: changes far below a weight's last place are lost."""
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=0.02, target_modules="all-linear")
    adapter = make_adapter(base("llama", "bfloat16"), tmp_path / "adapter", config)
    out = merge(base("llama", "bfloat16"), adapter, tmp_path / "out")
    found = judged(base("llama", "bfloat16"), adapter, out, "bfloat16")
    assert found.same is False
    assert "more exact" in found.problems[0]
    exact = merge(base("llama", "bfloat16"), adapter, tmp_path / "exact", "float32")
    assert judged(base("llama", "bfloat16"), adapter, exact).same is True


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("chat_template.jinja", lambda text: "{{ messages[0]['content'] }}", "chat template"),
        ("generation_config.json", lambda text: json.dumps({**json.loads(text), "eos_token_id": 7}), "ends its turns"),
        ("tokenizer_config.json", lambda text: text.replace("<|im_end|>", "<|endoftext|>"), "special tokens"),
    ],
)
def test_what_travels_with_the_weights_is_compared_too(
    base: Base, adapter: Path, tmp_path: Path, file: str, change: Callable[[str], str], said: str
) -> None:
    out = merge(base("llama"), adapter, tmp_path / "out")
    before = (out / file).read_text()
    (out / file).write_text(change(before))
    assert (out / file).read_text() != before
    assert any(said in problem for problem in judged(base("llama"), adapter, out).problems)


def test_an_adapter_is_compared_laid_over_its_base(base: Base, adapter: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(adapter, tmp_path / "copy"))
    assert judged(base("llama"), adapter, copy, format="adapter").same is True
    tensors = files_of(copy)
    save_file({key: torch.zeros_like(value) for key, value in tensors.items()}, copy / "adapter_model.safetensors")
    assert judged(base("llama"), adapter, copy, format="adapter").same is False


def test_too_little_memory_is_said_and_nothing_is_loaded(
    base: Base, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(parity, "load_reference", lambda *words: pytest.fail("something was loaded"))
    found = judged(base("llama"), adapter, base("llama"))
    assert found.same is None
    assert "memory" in found.skipped
