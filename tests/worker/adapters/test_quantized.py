"""Adapters over a base in 4 or 8 bits: they learn, the base keeps every bit, and plain PEFT reads them back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from safetensors.torch import load_file

from studio.core.config import ModelSection
from studio.core.configfile import parse_config
from studio.worker.adapters import starts
from studio.worker.adapters.laying import lay_over
from studio.worker.device import resolve
from studio.worker.models import load_model
from tests.worker.adapters.test_adapters import InProcess, learn
from tests.worker.adapters.watched import watch
from tests.worker.conftest import MakeRun

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nf4": ({"quantization": "nf4"}, {}),
    "nf4-single": ({"quantization": "nf4", "double_quant": False}, {}),
    "fp4": ({"quantization": "fp4"}, {}),
    "int8": ({"quantization": "int8"}, {}),
    "nf4-float32-rest": ({"quantization": "nf4", "prepare_for_kbit": True}, {}),
    "nf4-dora": ({"quantization": "nf4"}, {"use_dora": True}),
    "nf4-loftq": ({"quantization": "nf4"}, {"init_lora_weights": "loftq"}),
    "nf4-head": ({"quantization": "nf4"}, {"modules_to_save": ["embed_tokens", "lm_head"]}),
}
KEPT: dict[str, tuple[str, str, str, torch.Tensor]] = {}


@pytest.mark.parametrize("name", CASES)
def test_lora_learns_over_a_quantized_base(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch, name: str, tiny_model: Path
) -> None:
    loading, adapter = CASES[name]
    seen = watch(monkeypatch)
    job = learn(make_run, in_process, seen, loading=loading, adapter={"type": "lora", **adapter})
    assert not seen.still
    kind = "Linear8bitLt" if loading["quantization"] == "int8" else "Linear4bit"
    assert sum(type(module).__name__ == kind for module in seen.trainer.model.modules()) >= 14
    single = "-single" if "single" in name else ""
    KEPT[name] = (str(tiny_model), str(job.adapter), loading["quantization"] + single, seen.logits)


def test_plain_peft_reads_them_over_the_same_base(fork: Callable[..., Any], tmp_path: Path) -> None:
    assert set(KEPT) == set(CASES)
    cases = {name: case[:3] for name, case in KEPT.items()}
    found = fork("tests.worker.adapters.fresh:reload", json.dumps(cases), tmp_path / "logits.safetensors")
    assert found.wait() == 0, found.log.read_text()
    said = load_file(tmp_path / "logits.safetensors")
    for name, (*_, logits) in KEPT.items():
        torch.testing.assert_close(
            said[name], logits, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def quantized(folder: Path, **adapter: Any) -> tuple[Any, Any]:
    wishes = parse_config(
        {
            "model": {"quantization": "nf4", "dtype": "float32"},
            "adapter": {"type": "lora", **adapter},
            "hardware": {"device": "cpu"},
        }
    )
    return wishes, load_model(folder, wishes.model, resolve(wishes))


def test_loftq_makes_good_some_of_what_4_bits_lose(tiny_model: Path, tmp_path: Path) -> None:
    """W_q + s B A is as near to W as rank 8 allows: what is left are the singular values behind the eighth."""
    wishes, model = quantized(tiny_model, init_lora_weights="loftq", r=8)
    original = {k: v.double() for k, v in load_file(tiny_model / "model.safetensors").items()}
    laid = lay_over(wishes, model, rows=None, base=tiny_model, kept=tmp_path)
    for path, layer in starts.layers(laid):
        weight = layer.get_base_layer().weight
        held = dequantize_4bit(weight.data, weight.quant_state).double()
        lost = original[f"{path}.weight"] - held
        b, a = layer.lora_B["default"].weight.double(), layer.lora_A["default"].weight.double()
        left = torch.linalg.norm(lost - layer.scaling["default"] * (b @ a)).item()
        assert left == pytest.approx(torch.linalg.svdvals(lost)[8:].square().sum().sqrt().item(), rel=1e-4)
        assert left < 0.9 * torch.linalg.norm(lost).item()


@pytest.mark.parametrize(("double", "bytes"), [(True, 0.5 + 1 / 64 + 4 / 64 / 256), (False, 0.5 + 4 / 64)])
def test_4_bits_take_the_memory_that_the_format_promises(tmp_path: Path, double: bool, bytes: float) -> None:
    """Half a byte a weight and a scale for each 64: 4 bytes, or 1 and 4 more for each 256 of them (arXiv:2305.14314,
    section 3): 0.5159 bytes a weight.
    """
    from tests.tiny import make_tiny_llama

    folder = make_tiny_llama(tmp_path / "wide", hidden_size=512, intermediate_size=1024)
    section = ModelSection(name_or_path=str(folder), quantization="nf4", double_quant=double, dtype="float32")
    wishes = parse_config({"model": section.model_dump(), "hardware": {"device": "cpu"}})
    model = load_model(folder, wishes.model, resolve(wishes))
    taken = numbers = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if (state := getattr(weight, "quant_state", None)) is not None:
            numbers += state.shape[0] * state.shape[1]
            parts = [weight.data, state.absmax, *([state.state2.absmax] if state.nested else [])]
            taken += sum(part.numel() * part.element_size() for part in parts)
    assert numbers == 2 * (2 * 512 * 512 + 2 * 512 * 256 + 3 * 512 * 1024)
    assert taken / numbers == pytest.approx(bytes, rel=1e-3)
    assert not double or bytes == pytest.approx(0.5159, abs=1e-4)
