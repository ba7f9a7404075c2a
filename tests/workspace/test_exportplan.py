"""What an export is said to take, held against what the writers know, write and refuse."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import peft
import pytest
from peft import LoraConfig

from studio.core.config import ExportConfig, RunConfig
from studio.core.configfile import config_to_yaml
from studio.core.inputs import DatasetInput, Inputs, ModelInput
from studio.core.llamacpp import QUANTIZED
from studio.core.sections.adapter import LoraAdapter
from studio.core.shapes import from_folder
from studio.worker.export.adapterfile import STREAMED
from studio.worker.export.bnb import write_bnb
from studio.worker.export.gguf.architectures import ARCHITECTURES
from studio.worker.export.source import Source
from studio.workspace import exportplan
from studio.workspace.exportplan import Material
from studio.workspace.home import models_dir, runs_dir
from studio.workspace.runs import Runs
from tests.tiny import make_tiny_llama
from tests.worker.export.made import make_adapter, merge

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]
LLAMA = {"model_type": "llama", "hidden_size": 64, "dtype": "bfloat16"}


def write_header(
    folder: Path, tensors: dict[str, tuple[int, ...]], config: dict[str, Any], dtype: str = "BF16"
) -> Path:
    """A model's folder whose weights are as large as they say and take no room: a file with a hole."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    width, place, header = {"BF16": 2, "F32": 4, "U8": 1}[dtype], 0, {}
    for name, shape in tensors.items():
        size = width
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + place)
    return folder


def llama(layers: int, hidden: int = 64, vocabulary: int = 1000) -> dict[str, tuple[int, ...]]:
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = (hidden, hidden)
        tensors[f"model.layers.{layer}.mlp.up_proj.weight"] = (4 * hidden, hidden)
        tensors[f"model.layers.{layer}.input_layernorm.weight"] = (hidden,)
    return tensors


def material(base: ModelInput | Path, adapter: dict[str, Any] | Path | None, quantization: str = "none") -> Material:
    """A run of that base which trained that adapter (None: the whole model)."""
    run_id = f"20260101-1200-run-{len(list(runs_dir().iterdir()))}"
    folder = runs_dir() / run_id
    folder.mkdir()
    section = {"quantization": quantization}
    (folder / "run.yaml").write_text(config_to_yaml(RunConfig.model_validate({"model": section})), encoding="utf-8")
    model = base if isinstance(base, ModelInput) else ModelInput("folder", "base", str(base))
    inputs = Inputs("a run", model, DatasetInput("rows", "rows.jsonl"))
    (folder / "inputs.json").write_text(inputs.to_json(), encoding="utf-8")
    if isinstance(adapter, Path):
        shutil.copytree(adapter, folder / "adapter")
    elif adapter is not None:
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text(json.dumps(adapter), encoding="utf-8")
    else:
        assert isinstance(base, Path)
        shutil.copytree(base, folder / "model")
    return exportplan.material(Runs().get(run_id))


def config(format: str, **more: Any) -> ExportConfig:
    return ExportConfig.model_validate({"run": "a-run", "out": "/somewhere", "format": format, **more})


# -- its tables are the writers' --------------------------------------------------------------------------------------


def test_it_knows_the_architectures_and_adapters_that_the_writers_know() -> None:
    assert tuple(ARCHITECTURES) == exportplan.GGUF_ARCHITECTURES
    assert exportplan.STREAMED == STREAMED


def test_it_knows_every_adapter_that_is_no_change_of_weights() -> None:
    prompts = set()
    for kind, config_class in peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING.items():
        made = config_class.__new__(config_class)
        made.peft_type = kind
        if made.is_prompt_learning or made.is_adaption_prompt:
            prompts.add(kind.value)
    assert prompts <= exportplan.PROMPTS


# -- what it says is what comes out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["auto", "bfloat16", "float32"])
def test_a_merged_model_is_as_large_as_was_said(tmp_path: Path, dtype: str) -> None:
    base = make_tiny_llama(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    said = exportplan.needs(material(base, adapter), config("merged", dtype=dtype))
    out = merge(base, adapter, tmp_path / "out", dtype=dtype)
    weights = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    whole = sum(path.stat().st_size for path in out.iterdir())
    assert said.size is not None
    assert weights < said.size < 1.1 * whole
    assert said.size > 0.9 * whole


@pytest.mark.parametrize(
    ("format", "kind"), [("merged", "auto"), ("gguf", "f32"), ("gguf", "q4_0"), ("gguf", "q4_k_m"), ("bnb", "nf4")]
)
def test_the_disk_it_asks_for_is_no_less_than_what_the_worker_asks_for(tmp_path: Path, format: str, kind: str) -> None:
    """And what llama.cpp's quantizer is given lies beside what it makes."""
    base = make_tiny_llama(tmp_path / "base", hidden_size=256, intermediate_size=512, tied=False)
    found = material(base, {"peft_type": "LORA"})
    said = exportplan.needs(found, config(format, quantization=kind)).disk
    source = Source(base, found.output, "auto", lambda *_: None)
    asked = source.bytes_to_write(format, kind, "f16")
    assert said is not None
    assert asked <= said <= 1.3 * asked
    assert format != "gguf" or kind == "f32" or said > 2.4 * found.shape.numel  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_bitsandbytes_checkpoint_is_as_large_as_was_said(tmp_path: Path, kind: str) -> None:
    """Also of a tiny model, where what lies beside each matrix is most of it."""
    base = make_tiny_llama(tmp_path / "base", tied=False)
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    said = exportplan.needs(material(base, adapter), config("bnb", quantization=kind)).size
    (tmp_path / "out").mkdir()
    task = SimpleNamespace(source=Source(base, adapter, "auto", lambda *words: None), combine=None, bnb_type=kind)
    write_bnb(task, tmp_path / "out")  # type: ignore[arg-type]
    assert said == pytest.approx(sum(path.stat().st_size for path in (tmp_path / "out").iterdir()), rel=0.1)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_what_llama_cpp_makes_is_as_large_as_its_own_tables_say(tmp_path: Path, kind: str) -> None:
    """Llama 3.1 8B, by the sizes in GiB that `llama-quantize --help` and its README name."""
    named = {
        "q6_k": 6.14, "q5_k_m": 5.33, "q5_k_s": 5.21, "q4_k_m": 4.58, "q4_k_s": 4.36, "q4_0": 4.34, "q3_k_l": 4.02,
        "q3_k_m": 3.74, "q3_k_s": 3.41, "q2_k": 2.95,
    }  # fmt: skip
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (128256, 4096),
        "lm_head.weight": (128256, 4096),
    }
    for layer in range(32):
        for name, rows, columns in (("q", 4096, 4096), ("k", 1024, 4096), ("v", 1024, 4096), ("o", 4096, 4096)):
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.weight"] = (rows, columns)
        for name, rows, columns in (("gate", 14336, 4096), ("up", 14336, 4096), ("down", 4096, 14336)):
            tensors[f"model.layers.{layer}.mlp.{name}_proj.weight"] = (rows, columns)
    found = material(write_header(tmp_path / "base", tensors, LLAMA), {"peft_type": "LORA"})
    said = exportplan.needs(found, config("gguf", quantization=kind))
    assert said.size is not None and said.disk is not None
    assert said.size / 2**30 == pytest.approx(named[kind], rel=0.08)
    assert said.disk == pytest.approx(said.size + 2 * 8.03e9, rel=0.01), "what it is made from lies beside it"


def test_fewer_bits_are_less_and_norms_stay_exact(tmp_path: Path) -> None:
    found = material(write_header(tmp_path / "base", llama(4), LLAMA), {"peft_type": "LORA"})
    beside = exportplan.needs(found, config("merged")).size
    sizes = [exportplan.needs(found, config("gguf", quantization=kind)).size for kind in ("f32", "bf16", "q8_0")]
    assert beside is not None
    assert sizes == sorted(sizes, key=lambda size: -(size or 0))
    assert sizes[1] is not None
    assert sizes[1] - beside == 2 * 4 * 64, "four norms of 64 numbers in 4 bytes, not 2"
    nf4, int8 = (exportplan.needs(found, config("bnb", quantization=kind)).size for kind in ("nf4", "int8"))
    assert nf4 is not None
    assert int8 is not None
    assert nf4 < int8


def test_memory_is_that_of_a_tensor_not_of_the_model(tmp_path: Path) -> None:
    few, many = (
        material(write_header(tmp_path / str(layers), llama(layers, 4096), LLAMA), {"peft_type": "LORA"})
        for layers in (2, 64)
    )
    small, large = (exportplan.needs(found, config("merged")) for found in (few, many))
    assert large.size is not None
    assert small.size is not None
    assert large.size > 9e9 > small.size
    assert large.memory == small.memory
    assert large.memory is not None
    assert large.memory < 1e9 + 8 * 4 * 4096**2
    assert large.compare is not None
    assert large.compare > 4 * large.size / 2, "comparing holds the whole model in float32"


def test_what_is_merged_whole_takes_the_whole_model(tmp_path: Path) -> None:
    base = write_header(tmp_path / "base", llama(64, 4096), LLAMA)
    whole = exportplan.needs(material(base, {"peft_type": "SOMETHING_NEW"}), config("merged"))
    assert whole.streamed is False
    assert whole.memory is not None
    assert whole.memory > 4 * 5.4e9
    embedded = exportplan.needs(
        material(base, {"peft_type": "LORA", "modules_to_save": ["embed_tokens"]}), config("merged")
    )
    plain = exportplan.needs(material(base, {"peft_type": "LORA"}), config("merged"))
    assert embedded.streamed is True
    assert (embedded.memory or 0) <= (plain.memory or 0), "this embedding is the smaller one"


def test_a_base_that_is_not_here_is_not_guessed_at() -> None:
    hub = ModelInput("hub", "someone/something")
    found = material(hub, {"peft_type": "LORA"})
    assert exportplan.needs(found, config("merged")) == exportplan.Needs(None, None, None, None)
    assert exportplan.needs(found, config("adapter")).size is not None
    assert exportplan.obstacle(found, "gguf") is None
    assert exportplan.merge_of(hub, LoraAdapter()) is None


def test_a_base_in_the_hub_s_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, file_download

    for module in (constants, file_download.constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path))
    repo = tmp_path / "models--someone--something"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc", encoding="utf-8")
    folder = write_header(repo / "snapshots" / "abc", llama(1), LLAMA)
    assert exportplan.base_folder(ModelInput("hub", "someone/something")) == folder
    assert exportplan.base_folder(ModelInput("hub", "someone/something", revision="other")) is None


# -- what stands against it -------------------------------------------------------------------------------------------

LORA: dict[str, Any] = {"peft_type": "LORA"}


@pytest.mark.parametrize(
    ("base", "adapter", "format", "key"),
    [
        (LLAMA, LORA, "merged", ""),
        (LLAMA, LORA, "gguf", ""),
        (LLAMA, LORA, "gguf-lora", ""),
        (LLAMA, None, "adapter", "whole"),
        (LLAMA, None, "gguf-lora", "whole"),
        (LLAMA, None, "gguf", ""),
        (LLAMA, {"peft_type": "PREFIX_TUNING"}, "merged", "prompt"),
        (LLAMA, {"peft_type": "PREFIX_TUNING"}, "adapter", ""),
        (LLAMA | {"quantization_config": {"quant_method": "bitsandbytes"}}, LORA, "merged", "stored"),
        (LLAMA | {"quantization_config": {"quant_method": "bitsandbytes"}}, LORA, "adapter", ""),
        (LLAMA | {"quantization_config": {"quant_method": "bitsandbytes"}}, LORA, "gguf-lora", ""),
        (LLAMA | {"model_type": "mamba"}, LORA, "gguf", "gguf_kind"),
        (LLAMA | {"model_type": "mamba"}, LORA, "merged", ""),
        (LLAMA | {"rope_scaling": {"rope_type": "yarn"}}, LORA, "ollama", "gguf_rope"),
        (LLAMA | {"rope_scaling": {"rope_type": "llama3"}}, LORA, "ollama", ""),
        (LLAMA | {"attention_bias": True}, LORA, "gguf", "gguf_bias"),
        (LLAMA, LORA | {"use_dora": True}, "gguf-lora", "not_lora"),
        (LLAMA, LORA | {"modules_to_save": ["lm_head"]}, "gguf-lora", "not_lora"),
        (LLAMA, LORA | {"init_lora_weights": "pissa"}, "gguf-lora", "not_lora"),
        (LLAMA, LORA | {"target_modules": ["q_proj", "embed_tokens"]}, "gguf-lora", "not_lora"),
        (LLAMA, {"peft_type": "LOHA"}, "gguf-lora", "not_lora"),
        (LLAMA, LORA | {"target_modules": ["q_proj", "lm_head"]}, "gguf-lora", "tied_head"),
        (LLAMA, LORA | {"target_modules": "lm_head|.*q_proj"}, "gguf-lora", "tied_head"),
        (LLAMA, LORA | {"target_modules": ["q_proj", "lm_head"]}, "gguf", ""),
    ],
)
def test_what_can_t_be_written_is_known_before(
    tmp_path: Path, base: dict[str, Any], adapter: dict[str, Any] | None, format: str, key: str
) -> None:
    found = material(write_header(tmp_path / "base", llama(1), base), adapter)
    stands = exportplan.obstacle(found, format)
    assert (stands[0] if stands else "") == key


def test_llama_cpp_lays_an_adapter_over_a_head_of_its_own(tmp_path: Path) -> None:
    tensors = llama(1) | {"lm_head.weight": (1000, 64)}
    found = material(write_header(tmp_path / "base", tensors, LLAMA), LORA | {"target_modules": ["lm_head"]})
    assert exportplan.obstacle(found, "gguf-lora") is None


def test_a_tokenizer_of_another_kind_and_a_base_that_is_gone(tmp_path: Path) -> None:
    base = write_header(tmp_path / "base", llama(1), LLAMA)
    (base / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}), encoding="utf-8")
    found = material(base, LORA)
    assert exportplan.obstacle(found, "gguf") == ("gguf_tokenizer", {"kind": "Unigram"})
    assert exportplan.obstacle(found, "merged") is None
    shutil.rmtree(base)
    gone = material(base, LORA)
    assert exportplan.obstacle(gone, "merged") == ("gone", {"path": str(base)})
    assert exportplan.obstacle(gone, "adapter") is None


def test_a_run_on_a_quantized_base_has_two_to_merge_into(tmp_path: Path) -> None:
    base = write_header(tmp_path / "base", llama(1), LLAMA)
    assert material(base, LORA, "nf4").trained_quantized is True
    assert material(base, LORA).trained_quantized is False


# -- before training --------------------------------------------------------------------------------------------------


def test_before_training_the_merge_is_known_too() -> None:
    base = write_header(models_dir() / "base", llama(4, 1024), LLAMA)
    found = exportplan.merge_of(ModelInput("folder", "base", str(base)), LoraAdapter())
    assert found is not None
    assert found.disk == 2 * sum(1024 * 1024 + 4 * 1024 * 1024 + 1024 for _ in range(4)) + 2 * 1000 * 1024
    assert found.memory > 8 * 4 * 1024 * 1024
    assert (found.download, found.stored) == (0, "")


def test_of_a_base_on_the_hub_what_its_headers_say_is_known(tmp_path: Path) -> None:
    """And the files win, once they are here."""
    shape = from_folder(write_header(tmp_path / "there", llama(4, 1024), LLAMA))
    found = exportplan.merge_of(ModelInput("hub", "someone/something"), LoraAdapter(), shape)
    assert found is not None
    assert found.disk == found.download == shape.bytes
    here = ModelInput("folder", "base", str(write_header(tmp_path / "here", llama(1), LLAMA)))
    other = exportplan.merge_of(here, LoraAdapter(), shape)
    assert other is not None
    assert (other.download, other.disk < shape.bytes) == (0, True)
