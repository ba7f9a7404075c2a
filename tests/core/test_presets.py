"""The shipped presets: each is valid, says for whom, and fits on the card that it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from studio.core.configfile import load_config
from studio.core.estimate import Device, estimate
from studio.core.shapes import from_config
from tests.core.published import LLAMA_8B, LLAMA_70B, QWEN_MOE, TOTAL_SIZES, _llama

PRESETS = sorted((Path(__file__).parents[2] / "presets").glob("*.yaml"))
SIZED = [path for path in PRESETS if re.search(r"-\d+gb$", path.stem)]


def _qwen3(hidden: int, inner: int, layers: int, heads: int, tied: bool = False) -> dict[str, Any]:
    return _llama("qwen3", hidden, inner, layers, heads, 8, 151936, head_dim=128, tie_word_embeddings=tied)


_LLAMA_1B = _llama("llama", 2048, 8192, 16, 32, 8, 128256, head_dim=64, tie_word_embeddings=True)
_CAPPED = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
# As their config.json on the hub says.
CONFIGS: dict[str, dict[str, Any]] = {
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _llama("llama", 2048, 8192, 24, 32, 32, 49152, tie_word_embeddings=True),
    "HuggingFaceTB/SmolLM3-3B": TOTAL_SIZES["HuggingFaceTB/SmolLM3-3B"][0],
    "Qwen/Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, tied=True),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, tied=True),
    "Qwen/Qwen3-4B": _qwen3(2560, 9728, 36, 32, tied=True),
    "Qwen/Qwen3-8B": TOTAL_SIZES["Qwen/Qwen3-8B"][0],
    "Qwen/Qwen3-14B": _qwen3(5120, 17408, 40, 40),
    "Qwen/Qwen3-32B": _qwen3(5120, 25600, 64, 64),
    "Qwen/Qwen3-30B-A3B": QWEN_MOE,
    "google/gemma-3-1b-it": _llama("gemma3_text", 1152, 6912, 26, 4, 1, 262144, head_dim=256, tie_word_embeddings=True),
    "google/gemma-2-9b-it": {**TOTAL_SIZES["google/gemma-2-9b"][0], **_CAPPED},
    "meta-llama/Llama-3.2-1B": _LLAMA_1B,
    "meta-llama/Llama-3.2-1B-Instruct": _LLAMA_1B,
    "meta-llama/Llama-3.2-3B-Instruct": TOTAL_SIZES["meta-llama/Llama-3.2-3B"][0],
    "meta-llama/Llama-3.1-8B": LLAMA_8B,
    "meta-llama/Llama-3.1-8B-Instruct": LLAMA_8B,
    "meta-llama/Llama-3.3-70B-Instruct": LLAMA_70B,
    "microsoft/Phi-4-mini-instruct": _llama("phi3", 3072, 8192, 32, 24, 8, 200064, tie_word_embeddings=True),
    "microsoft/phi-4": TOTAL_SIZES["microsoft/phi-4"][0],
    "mistralai/Mistral-7B-Instruct-v0.3": _llama("mistral", 4096, 14336, 32, 32, 8, 32768),
    "mistralai/Mistral-Small-24B-Instruct-2501": _llama("mistral", 5120, 32768, 40, 32, 8, 131072, head_dim=128),
}


def comments(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line[1:].strip() for line in lines if line.startswith("#")]


def test_there_are_presets_for_every_card_and_task() -> None:
    cards = {int(path.stem.rpartition("-")[2].removesuffix("gb")) for path in SIZED}
    assert cards >= {6, 8, 12, 16, 24, 48, 80}
    methods = {load_config(path).method.name for path in PRESETS}
    assert methods >= {"sft", "dpo", "kto", "grpo", "pretrain"}
    assert len(PRESETS) >= 20


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_valid_and_says_for_whom(path: Path) -> None:
    load_config(path)
    title = comments(path)[0]
    assert ": " in title and len(title) <= 120, "what it makes of what, and for whom"


@pytest.mark.parametrize("path", SIZED, ids=lambda path: path.stem)
def test_a_preset_fits_on_the_card_it_names(path: Path) -> None:
    said = re.fullmatch(r"Fits on (\d+) GB\.", comments(path)[1])
    assert said and path.stem.endswith(f"-{said[1]}gb")
    config = load_config(path)
    shape = from_config(CONFIGS[config.model.name_or_path])
    told = estimate(config, shape, device=Device("cuda"))
    assert told.device <= int(said[1]) * 10**9, "every row as long as max_length"
