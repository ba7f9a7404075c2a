"""Runs on a base held in 4 or 8 bits: merged into the base as published, or into what its weights stand for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.integrations.bitsandbytes import dequantize_bnb_weight

from studio.core.config import ModelSection
from studio.core.job import JobFolder
from studio.worker.export.merge import write_merged
from studio.worker.export.source import Source
from studio.workspace import exportplan
from tests.worker.export.made import files_of, laid_over, logits, make_adapter, merge
from tests.worker.export.test_jobs import MakeJob, end_of, make_job
from tests.workspace.test_exportplan import material

__all__ = ["make_job"]
Base = Callable[..., Path]
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]
WAYS = {
    "nf4": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    ),
    "fp4": BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="fp4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    ),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}


def config(kind: str) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=kind == "gpt2"
    )


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("way", WAYS)
def test_the_dequantized_base_is_what_bitsandbytes_computes_with(
    base: Base, tmp_path: Path, kind: str, way: str
) -> None:
    adapter = make_adapter(base(kind), tmp_path / "adapter", config(kind))
    (tmp_path / "out").mkdir()
    section = ModelSection(quantization=way, dtype="float32")  # type: ignore[arg-type]
    source = Source(base(kind), adapter, "auto", lambda text, done, total: None, quantized=section)
    write_merged(source, tmp_path / "out")
    found = files_of(tmp_path / "out")
    quantized = AutoModelForCausalLM.from_pretrained(base(kind), quantization_config=WAYS[way], dtype=torch.float32)
    exact = laid_over(base(kind), adapter)
    deltas = {
        path: module.get_delta_weight("default")
        for path, module in exact.get_base_model().named_modules()
        if hasattr(module, "get_delta_weight")
    }
    original = files_of(base(kind))
    checked = 0
    for path, module in quantized.named_modules():
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
            stands_for = dequantize_bnb_weight(module.weight, getattr(module, "state", None)).float()
            stands_for = stands_for.T if kind == "gpt2" else stands_for
            assert not torch.equal(stands_for, original[f"{path}.weight"])
            torch.testing.assert_close(found[f"{path}.weight"], stands_for + deltas[path], rtol=1e-6, atol=1e-6)
            checked += 1
    assert checked == (14 if kind == "llama" else 8)
    head = "lm_head.weight" if kind == "llama" else "transformer.wte.weight"
    assert torch.equal(found[head], original[head]), "what isn't quantized stays"


def test_it_says_what_was_tested_and_the_original_says_something_else(base: Base, tmp_path: Path) -> None:
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config("llama"))
    (tmp_path / "out").mkdir()
    section = ModelSection(quantization="nf4", dtype="float32")
    write_merged(Source(base("llama"), adapter, "auto", lambda *words: None, quantized=section), tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(base("llama"), quantization_config=WAYS["nf4"], dtype=torch.float32)
    tested = logits(PeftModel.from_pretrained(loaded, str(adapter)))
    near = (logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out")) - tested).abs().max()
    other = merge(base("llama"), adapter, tmp_path / "other")
    far = (logits(AutoModelForCausalLM.from_pretrained(other)) - tested).abs().max()
    assert near < 0.1 * far


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes"])
def test_F48_a_base_that_is_stored_quantized_is_refused(base: Base, tmp_path: Path, method: str) -> None:
    import json

    from studio.core.errors import ModelError

    adapter = make_adapter(base("llama"), tmp_path / "adapter", config("llama"))
    stored = Path(shutil.copytree(base("llama"), tmp_path / "stored"))
    settings = json.loads((stored / "config.json").read_text())
    (stored / "config.json").write_text(json.dumps({**settings, "quantization_config": {"quant_method": method}}))
    with pytest.raises(ModelError, match="stored quantized") as raised:
        merge(stored, adapter, tmp_path / "out")
    assert "16-bit original" in raised.value.hint


@pytest.fixture(scope="module")
def stored(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as bitsandbytes keeps it in four bits, the way the hub has them."""
    folder = tmp_path_factory.mktemp("stored") / "base"
    AutoModelForCausalLM.from_pretrained(base("llama"), quantization_config=WAYS["nf4"]).save_pretrained(folder)
    for path in base("llama").glob("*token*"):
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.mark.usefixtures("compared_here")
def test_F48_nothing_is_merged_into_a_base_that_bitsandbytes_has_stored(
    base: Base, stored: Path, make_job: MakeJob, in_process: Callable[[JobFolder], int], tmp_path: Path
) -> None:
    """The worker says it, and the window before it, for each format alike; the adapter alone can still be had, and
    compared, for PEFT and for llama.cpp.
    """
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config("llama"))
    found, out = material(stored, adapter), tmp_path / "place"
    for format in ("merged", "gguf", "ollama", "bnb"):
        job = make_job(stored, adapter, name=format, format=format)
        assert in_process(job) == 1
        assert "stored quantized" in end_of(job).cause
        assert "16-bit original" in end_of(job).hint and "adapter alone" in end_of(job).hint
        assert not list(out.iterdir())
        assert exportplan.obstacle(found, format) == ("stored", {"kind": "bitsandbytes"})
    for format in ("adapter", "gguf-lora"):
        job = make_job(stored, adapter, name=format, format=format, parity=True, out=str(out / format))
        assert in_process(job) == 0
        assert end_of(job).result["parity"]["same"] is True, end_of(job).result
        assert exportplan.obstacle(found, format) is None
