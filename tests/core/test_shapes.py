"""ModelShape against transformers' own models, published checkpoints and damaged files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio.core.architectures import DEFAULTS, TENSORS
from studio.core.errors import ModelError
from studio.core.shapes import from_config, from_folder, parse_header, read_header
from tests.core.published import TOTAL_SIZES, tiny

# The first Qwen isn't in transformers. Every other row of the table is.
KINDS = sorted(set(TENSORS) - {"qwen"})


def built(folder: Path, config: dict[str, Any]) -> Path:
    """The real model of a config, saved as transformers saves it."""
    settings = AutoConfig.for_model(**config)
    model = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "phi"])
def test_a_config_gives_the_tensors_that_the_checkpoint_has(kind: str, tied: bool, tmp_path: Path) -> None:
    folder = built(tmp_path, tiny(kind, tie_word_embeddings=tied))
    from_headers = from_folder(folder)
    described = from_config(json.loads((folder / "config.json").read_text()))
    assert {t.name: t.shape for t in described.tensors} == {t.name: t.shape for t in from_headers.tensors}
    assert described.bytes == from_headers.bytes
    assert described.layers == from_headers.layers
    assert (described.vocabulary, described.hidden) == (from_headers.vocabulary, from_headers.hidden)


def test_phi_has_a_bias_at_its_head(tmp_path: Path) -> None:
    folder = built(tmp_path, tiny("phi"))
    described = from_config(json.loads((folder / "config.json").read_text()))
    assert {t.name: t.shape for t in described.tensors} == {t.name: t.shape for t in from_folder(folder).tensors}


@pytest.mark.parametrize("biased", ["llama", "qwen3", "granite", "olmo2", "gemma2"])
def test_biases_are_there_where_the_config_asks_for_them(biased: str, tmp_path: Path) -> None:
    folder = built(tmp_path, tiny(biased, attention_bias=True, mlp_bias=biased in ("llama", "granite")))
    described = from_config(json.loads((folder / "config.json").read_text()))
    assert {t.name: t.shape for t in described.tensors} == {t.name: t.shape for t in from_folder(folder).tensors}


@pytest.mark.parametrize("name", TOTAL_SIZES)
def test_published_models_weigh_what_their_index_says(name: str) -> None:
    config, size = TOTAL_SIZES[name]
    assert from_config(config).bytes == size


def test_equal_layers_are_found_and_experts_counted() -> None:
    shape = from_config(tiny("qwen3_moe"))
    assert [layer == shape.layers[0] for layer in shape.layers] == [True, False, True]
    gate = shape.layers[0].find("experts.gate_proj")
    assert gate is not None
    assert (gate.out, gate.inp, gate.count) == (32, 64, 4)


def test_the_language_part_of_a_model_with_eyes_is_taken() -> None:
    text = tiny("gemma3_text", head_dim=16)
    shape = from_config({"model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16"})
    assert shape.bytes == from_config(text).bytes


@pytest.mark.parametrize("pooled", [True, False])
def test_a_model_with_eyes_has_the_tensors_of_its_checkpoint(pooled: bool, tmp_path: Path) -> None:
    eyes = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "vision_use_head": pooled}  # fmt: skip
    text = tiny("gemma3_text", head_dim=16)
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": eyes, "mm_tokens_per_image": 4}
    folder = built(tmp_path, whole)
    from_headers = from_folder(folder)
    described = from_config(json.loads((folder / "config.json").read_text()))
    bare = {t.name.removeprefix("language_model."): t.shape for t in from_headers.tensors}
    assert {t.name: t.shape for t in described.tensors} == bare
    assert described.bytes == from_headers.bytes
    assert described.layers == from_headers.layers


def test_what_gemma_3_leaves_to_its_config_class_is_filled_in() -> None:
    settings = AutoConfig.for_model("gemma3_text")
    assert {name: getattr(settings, name) for name in DEFAULTS["gemma3_text"]} == DEFAULTS["gemma3_text"]


def test_an_unknown_architecture_needs_its_tensors() -> None:
    with pytest.raises(ModelError, match="architecture wonder"):
        from_config({"model_type": "wonder"})
    with pytest.raises(ModelError, match="lacks"):
        from_config({"model_type": "llama", "hidden_size": 64})


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 4, struct.pack("<Q", 2**40), struct.pack("<Q", 20) + b"{", struct.pack("<Q", 2) + b"[]",
     struct.pack("<Q", 12) + b'{"a": {"b":1'],
    ids=["empty", "short", "huge", "cut", "list", "no json"],
)  # fmt: skip
def test_a_damaged_header_is_a_model_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny("llama")))
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="can't be read"):
        from_folder(tmp_path)


def test_a_header_may_come_without_its_file(tmp_path: Path) -> None:
    folder = built(tmp_path, tiny("llama"))
    file = next(folder.glob("*.safetensors"))
    length = struct.unpack("<Q", file.read_bytes()[:8])[0]
    assert parse_header(file.read_bytes()[8 : 8 + length]) == read_header(file)
