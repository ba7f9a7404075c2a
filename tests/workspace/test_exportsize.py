"""Sizes of GGUF files beside what llama.cpp's own quantizer wrote: also where its blocks don't divide the rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.core.config import ExportConfig
from studio.core.shapes import ModelShape, from_folder
from studio.workspace.exportsize import between_bytes, gguf_bytes, gguf_type
from tests.tiny import make_tiny_llama
from tests.workspace.test_exportplan import write_header

# Bytes that llama-quantize wrote (llama.cpp as llama-cpp-python 0.3.36 brings it) of a Llama of 256 wide, two layers,
# 400 tokens, head untied; and of SmolLM2-135M, 576 wide, 49152 tokens, head tied.
WIDE = {"q6_k": 1151710, "q5_k_s": 981450, "q4_k_m": 863434, "q4_0": 821182, "q3_k_m": 720041, "q2_k": 567380}
SMOL = {"q6_k": 138382688, "q4_k_m": 105453920, "q2_k": 88201568}


def config(kind: str, dtype: str = "auto") -> ExportConfig:
    return ExportConfig.model_validate({"run": "a", "out": "b", "format": "gguf", "quantization": kind, "dtype": dtype})


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    folder = tmp_path_factory.mktemp("wide")
    return from_folder(make_tiny_llama(folder / "base", hidden_size=256, intermediate_size=512, tied=False))


@pytest.fixture
def smol(tmp_path: Path) -> ModelShape:
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (49152, 576)}
    for layer in range(30):
        head = f"model.layers.{layer}"
        for name, shape in (("q", (576, 576)), ("k", (192, 576)), ("v", (192, 576)), ("o", (576, 576))):
            tensors[f"{head}.self_attn.{name}_proj.weight"] = shape
        for name, shape in (("gate", (1536, 576)), ("up", (1536, 576)), ("down", (576, 1536))):
            tensors[f"{head}.mlp.{name}_proj.weight"] = shape
    return from_folder(
        write_header(tmp_path / "smol", tensors, {"model_type": "llama", "hidden_size": 576, "dtype": "bfloat16"})
    )


@pytest.mark.parametrize("kind", WIDE)
def test_what_llama_cpp_wrote_of_a_wide_model(wide: ModelShape, kind: str) -> None:
    assert gguf_bytes(wide, config(kind)) == pytest.approx(WIDE[kind], rel=0.06)


@pytest.mark.parametrize("kind", SMOL)
def test_what_it_wrote_where_its_blocks_don_t_divide_the_rows(smol: ModelShape, kind: str) -> None:
    """Without its tokenizer, some 2 MB."""
    assert gguf_bytes(smol, config(kind)) == pytest.approx(SMOL[kind] - 2e6, rel=0.05)


def test_what_it_is_given_lies_beside_what_it_makes(smol: ModelShape) -> None:
    assert between_bytes(smol, config("q8_0")) == 0
    assert between_bytes(smol, config("q4_0")) == pytest.approx(2 * smol.numel, rel=0.01)
    assert between_bytes(smol, config("q4_0", "float32")) == pytest.approx(4 * smol.numel, rel=0.01)
    assert gguf_type(smol, config("auto")) == "bf16" and gguf_type(None, config("auto")) == "f32"
