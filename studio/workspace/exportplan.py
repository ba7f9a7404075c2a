"""What an export will take before it starts: its size, disk and memory, and whether a run can be written so at all.

In: a run, an ExportConfig. Out: Needs in bytes, the reasons that stand against it as keys (their words are the
window's). From the base only config.json, the tokenizer's kind and the safetensors' headers are read, so a 70 GB model
is answered as fast as a small one. Knows nothing of how an export is written; tests hold its tables against that.
"""

from __future__ import annotations

import functools
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.config import ExportConfig
from studio.core.errors import ModelError
from studio.core.inputs import ModelInput
from studio.core.job import read_json
from studio.core.shapes import ModelShape, from_folder
from studio.workspace.exportsize import between_bytes, bnb_bytes, gguf_bytes, merged_bytes
from studio.workspace.memory import ram
from studio.workspace.models import cached_snapshot
from studio.workspace.runs import Run

# What the writers know, as they have it in tables of their own.
GGUF_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2")
STREAMED = {
    "LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "VERA", "HRA", "LN_TUNING", "TRAINABLE_TOKENS",
    "FOURIERFT", "RANDLORA", "C3A", "MISS", "WAVEFT", "DELORA", "GRALORA", "SHIRA", "VBLORA", "ROAD",
}  # fmt: skip
PROMPTS = {
    "PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "CPT",
    "CARTRIDGE",
    "ADAPTION_PROMPT",
}
_EMBEDDINGS = ("embed_tokens", "wte")
_ROPES = ("default", "llama3")
_PROCESS = 0.6e9  # bytes that a worker takes with its libraries and the blocks it works in; measured: 0.46 to 0.58
_WHOLE = 1.15  # what PEFT's own merge takes beside the weights in float32
_COMPARED = 1.2  # the same for the comparison that follows


@dataclass(frozen=True)
class Material:
    """What an export of a run would read. `folder` and `shape` are None while the base has yet to be fetched."""

    run: Run
    output: Path
    folder: Path | None
    shape: ModelShape | None
    adapter: Mapping[str, Any]  # adapter_config.json; empty for a model that was trained whole

    @property
    def trained_quantized(self) -> bool:
        return bool(self.adapter) and self.run.config.model.quantization != "none"

    @property
    def kind(self) -> str:
        """PEFT's name for the kind of adapter."""
        return str(self.adapter.get("peft_type") or "LORA")


@dataclass(frozen=True)
class Needs:
    """In bytes; `size` is None where the base isn't here to be measured. `compare`: memory that comparing takes."""

    size: int | None
    disk: int | None
    memory: int | None
    compare: int | None
    streamed: bool = True


def material(run: Run) -> Material:
    """A run with an output, as an export would find it."""
    assert run.output is not None, "only a run with an output can be exported"
    adapter = read_json(run.output / "adapter_config.json") or {}
    if run.output != run.folder.adapter:
        return Material(run, run.output, run.output, _shape(run.output), {})
    folder = base_folder(run.inputs.model) if run.inputs else None
    return Material(run, run.output, folder, _shape(folder) if folder else None, adapter or {"peft_type": "LORA"})


def base_folder(model: ModelInput) -> Path | None:
    """Where a base's files lie on this machine; None for one that would have to be fetched, or is gone."""
    if model.kind == "hub":
        folder = cached_snapshot(model.name, model.revision)
    else:
        folder = Path(model.path) if model.path else None
    whole = folder is not None and (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    return folder if whole else None


def _shape(folder: Path) -> ModelShape | None:
    try:
        stamp = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(folder.glob("*.safetensors")))
        return _read_shape(folder, stamp) if stamp else None
    except (OSError, ModelError):
        return None


@functools.lru_cache(maxsize=16)
def _read_shape(folder: Path, _stamp: tuple[tuple[str, int], ...]) -> ModelShape:
    return from_folder(folder)


# -- whether it can be written ----------------------------------------------------------------------------------------


def obstacle(found: Material, format: str) -> tuple[str, dict[str, str]] | None:
    """Why a run can't be written so: a key and what belongs into its sentence; None where nothing is known against it.

    A base that isn't here yet is looked at when it has been fetched.
    """
    if format in ("adapter", "gguf-lora") and not found.adapter:
        return "whole", {}
    if format == "adapter":
        return None
    if found.kind in PROMPTS:
        return "prompt", {"kind": found.kind}
    if found.folder is None:
        model = found.run.inputs.model if found.run.inputs else None
        return ("gone", {"path": str(model.path)}) if model is not None and model.kind == "folder" else None
    config = read_json(found.folder / "config.json") or {}
    stored = config.get("quantization_config")
    if isinstance(stored, dict) and format != "gguf-lora":  # which merges nothing
        return "stored", {"kind": str(stored.get("quant_method", "quantized"))}
    if format in ("gguf", "ollama", "gguf-lora"):
        return _gguf_obstacle(found, config, format)
    return None


def _gguf_obstacle(found: Material, config: Mapping[str, Any], format: str) -> tuple[str, dict[str, str]] | None:
    kind = str(config.get("model_type", ""))
    if kind not in GGUF_ARCHITECTURES:
        return "gguf_kind", {"kind": kind, "known": ", ".join(GGUF_ARCHITECTURES)}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = rope.get("full_attention", rope)
    scaled = str(rope.get("rope_type") or rope.get("type") or "default")
    if scaled not in _ROPES:
        return "gguf_rope", {"kind": scaled}
    if config.get("attention_bias") and kind in ("llama", "mistral"):
        return "gguf_bias", {}
    if format == "gguf-lora":
        if not _is_plain_lora(found.adapter):
            return "not_lora", {"kind": found.kind}
        tied = found.shape is not None and found.shape.head is None
        return ("tied_head", {}) if tied and _targets(found.adapter, "lm_head") else None
    assert found.folder is not None, "its config.json was read"
    places = [folder / "tokenizer.json" for folder in (found.output, found.folder)]
    tokenizer = next((place for place in places if place.is_file()), None)
    split = _tokenizer_kind(tokenizer, tokenizer.stat().st_mtime_ns) if tokenizer else ""
    return ("gguf_tokenizer", {"kind": split}) if split not in ("BPE", "") else None


def _is_plain_lora(adapter: Mapping[str, Any]) -> bool:
    start = adapter.get("init_lora_weights", True)
    more = ("use_dora", "modules_to_save", "target_parameters", "trainable_token_indices", "lora_bias")
    taken = isinstance(start, str) and start.startswith(("pissa", "olora"))
    return (
        str(adapter.get("peft_type", "LORA")) == "LORA"
        and not taken
        and not any(adapter.get(name) for name in more)
        and adapter.get("bias", "none") == "none"
        and not any(_targets(adapter, name) for name in _EMBEDDINGS)
    )


def _targets(adapter: Mapping[str, Any], name: str) -> bool:
    """Whether an adapter names this module, or has a pattern that finds it."""
    named = adapter.get("target_modules") or ()
    if isinstance(named, str):
        return re.fullmatch(named, name) is not None
    return any(str(each).rpartition(".")[2] == name for each in named)


@functools.lru_cache(maxsize=16)
def _tokenizer_kind(path: Path, _changed: int) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["model"]["type"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


# -- what it takes ----------------------------------------------------------------------------------------------------


def needs(found: Material, config: ExportConfig) -> Needs:
    """What the export takes, as its writers will count it again."""
    own = _bytes(found.output)
    if config.format in ("adapter", "gguf-lora"):
        return Needs(own, own, int(_PROCESS), _compared(found) if config.parity else None)
    if found.shape is None:
        return Needs(None, None, None, None)
    tensors = found.shape.tensors
    numbers, largest = found.shape.numel, max((tensor.numel for tensor in tensors), default=0)
    changed = _largest_changed(found.shape, found.adapter)
    merged, between = merged_bytes(found.shape, config.dtype), 0
    if config.format == "merged":
        size = merged
    elif config.format == "bnb":
        size, between = bnb_bytes(found.shape, config), merged
    else:
        size, between = gguf_bytes(found.shape, config), between_bytes(found.shape, config)
    size += _beside(found)
    streamed = found.kind in STREAMED or not found.adapter
    memory = _PROCESS + (8 * changed if streamed else 4 * numbers * _WHOLE)
    if config.format == "bnb":
        memory = max(memory, _PROCESS + numbers + 4 * largest)
    disk = max(2 * merged, size + between) if config.format == "bnb" else size + between
    return Needs(size, disk, int(memory), _compared(found) if config.parity else None, streamed)


def _largest_changed(shape: ModelShape, adapter: Mapping[str, Any]) -> int:
    """Numbers in the largest tensor that the adapter changes; with its change it is held in float32, others in blocks.

    A model that was trained whole is only copied.
    """
    if not adapter:
        return 0
    targets = adapter.get("target_modules")
    named = " ".join([str(targets), *map(str, adapter.get("modules_to_save") or ())])
    if any(word in named for word in ("embed", "wte", "lm_head")):
        return max((tensor.numel for tensor in shape.tensors), default=0)
    return max((matrix.numel for layer in shape.layers for matrix in layer.matrices), default=0)


def _compared(found: Material) -> int | None:
    """Memory for one model in float32 at a time."""
    return int(_PROCESS + 4 * found.shape.numel * _COMPARED) if found.shape is not None else None


def _beside(found: Material) -> int:
    """Tokenizer and the like, which travel with the weights."""
    assert found.folder is not None, "looked at before"
    return _sizes(path for path in found.folder.glob("*") if path.suffix in (".json", ".jinja", ".txt", ".model"))


def _bytes(folder: Path) -> int:
    return _sizes(folder.glob("*"))


def _sizes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


# -- what there is ----------------------------------------------------------------------------------------------------


def disk_free(out: Path) -> int | None:
    """Free bytes where `out` is or would be; None where nobody says."""
    for place in (out, *out.parents):
        try:
            return shutil.disk_usage(place).free
        except (OSError, ValueError):
            continue
    return None


def memory_free() -> int | None:
    """Bytes that this process and its children may still take."""
    return ram(Path("/"))[2]


# -- before training --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Later:
    """What merging a run that is yet to be started will take, in bytes; `download`: of the base, 0 where it is here.

    `stored`: how the base is quantized in its own files, which nothing is merged into.
    """

    memory: int
    disk: int
    download: int
    stored: str = ""


def merge_of(model: ModelInput, section: Any, shape: ModelShape | None = None) -> Later | None:
    """For an adapter's section of a config. `shape`: the base's, where it is known without its files.

    None while nobody knows how large the base is.
    """
    folder = base_folder(model)
    own = _shape(folder) if folder is not None else None
    known = own or shape
    if known is None:
        return None
    names = ("target_modules", "modules_to_save")
    adapter = {"peft_type": section.type.upper(), **{name: getattr(section, name, None) for name in names}}
    memory = _PROCESS + 8 * _largest_changed(known, adapter)
    stored = str(known.quantization.get("quant_method", ""))
    return Later(int(memory), math.ceil(known.bytes), 0 if own else math.ceil(known.bytes), stored)
