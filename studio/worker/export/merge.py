"""Base + adapter as one model, tensor by tensor.

In: a Source. Out: safetensors shards with their index, config, tokenizer. Each weight is read, given its change in
float32, cast and written; no more than a shard is ever held. W' = W + (lora_alpha / r) B A (Hu et al. 2021,
arXiv:2106.09685, section 4.1). The base is always read from its own files, never from weights that were quantized for
training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from studio.core.errors import ModelError
from studio.core.job import read_json
from studio.worker.export.source import BYTES, Source

SHARD_BYTES = 2 * 10**9
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LowRank:
    """One layer's change: `a` (r, in), `b` (out, r)."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def delta(self, transposed: bool) -> torch.Tensor:
        """The change of the weight in float32: (out, in), or (in, out) for a weight that is stored so."""
        change = self.scale * (self.b.float() @ self.a.float())
        return change.T if transposed else change


def write_merged(source: Source, target: Path) -> None:
    """Write the merged model. Raises ModelError where the adapter can't be laid over the base's files."""
    config = source.config()
    if config.get("quantization_config") and source.is_adapter:
        raise ModelError(
            "The base is stored quantized, and merging into quantized weights would lose what was learnt.",
            "Train on the model's 16-bit original, or export the adapter alone.",
        )
    changes: dict[str, LowRank] = {}
    transposed = False
    if source.is_adapter:
        transposed = bool(_adapter_config(source.output).get("fan_in_fan_out"))
        changes = fit(read_adapter(source.output), shapes(source.weights), transposed)
    writer = ShardWriter(target, source)
    dtype = getattr(torch, source.dtype())
    with torch.inference_mode():
        for name, tensor in tensors(source.weights):
            change = changes.get(name)
            if change is not None:
                tensor = tensor.float() + change.delta(transposed)
            writer.add(name, tensor.to(dtype) if tensor.is_floating_point() else tensor)
    writer.finish()
    source.copy_small_files(target)


def _adapter_config(folder: Path) -> dict[str, Any]:
    return read_json(folder / "adapter_config.json") or {}


def read_adapter(folder: Path) -> dict[str, LowRank]:
    """Base weight's name -> its change. Raises ModelError for an adapter of a kind that adds more than B A."""
    config = _adapter_config(folder)
    unknown = [
        name
        for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "trainable_token_indices")
        if config.get(name)
    ]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or unknown:
        kind = ", ".join(unknown) or config.get("peft_type")
        raise ModelError(
            f"Adapters with {kind} can't be merged here.", "Export the adapter alone and merge it with PEFT."
        )
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
            layer, _, side = key.removesuffix(".weight").rpartition(".lora_")
            if side not in ("A", "B") or not key.startswith(_PREFIX):
                raise ModelError(f"The adapter holds {key}, which is no LoRA weight.", "Export the adapter alone.")
            pairs.setdefault(f"{layer.removeprefix(_PREFIX)}.weight", {})[side] = file.get_tensor(key)
    return {name: LowRank(sides["A"], sides["B"], scale) for name, sides in pairs.items()}


def fit(changes: dict[str, LowRank], base: dict[str, tuple[int, ...]], transposed: bool) -> dict[str, LowRank]:
    """The changes under the names that the base's files use: some of those (GPT-2's) leave out the model's own prefix.

    Raises ModelError for a change that has no place there, or another shape.
    """
    fitted, left = {}, []
    for name, change in changes.items():
        place = name if name in base else name.partition(".")[2]
        if place not in base:
            left.append(name)
            continue
        shape = (change.b.shape[0], change.a.shape[1])
        if base[place] != (shape[::-1] if transposed else shape):
            raise ModelError(
                f"The adapter was trained on another base: {name} is {shape} there, and {base[place]} in this one.",
                "Export it with the base that it was trained on.",
            )
        fitted[place] = change
    if left:
        raise ModelError(
            f"The adapter changes {sorted(left)[0]}, which the base's files don't hold ({len(left)} such weights).",
            "Export the adapter alone.",
        )
    return fitted


def shard_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would read, in the order of their index."""
    whole = folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    index = read_json(folder / "model.safetensors.index.json")
    if index:
        return [folder / name for name in dict.fromkeys(index["weight_map"].values())]
    return sorted(folder.glob("*.safetensors"))


def tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model, one at a time."""
    for path in shard_files(folder):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                yield name, file.get_tensor(name)


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a model, from its files' headers."""
    found: dict[str, tuple[int, ...]] = {}
    for path in shard_files(folder):
        with safe_open(str(path), framework="pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


def tensor_count(folder: Path) -> int:
    """How many numbers a model's files hold."""
    return sum(math.prod(shape) for shape in shapes(folder).values())


class ShardWriter:
    """Gathers tensors into shards of at most SHARD_BYTES (or one tensor) and names them as transformers does."""

    def __init__(self, target: Path, source: Source) -> None:
        self.target = target
        self.report = source.report
        self.total = tensor_count(source.weights) * BYTES[source.dtype()]
        self.done = 0
        self.shards: list[list[str]] = []
        self._open: dict[str, torch.Tensor] = {}
        self._size = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._open and self._size + size > SHARD_BYTES:
            self._write()
        self._open[name] = tensor.contiguous()
        self._size += size
        self.report("Merging", min(self.done + self._size, self.total), self.total)

    def finish(self) -> None:
        """Write what is left and give the files their names."""
        if self._open:
            self._write()
        count = len(self.shards)
        if count == 1:
            self._part(0).rename(self.target / "model.safetensors")
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self.shards):
            file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            self._part(number).rename(self.target / file)
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self.done}, "weight_map": weight_map}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (self.target / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    def _part(self, number: int) -> Path:
        return self.target / f"part-{number}.safetensors"

    def _write(self) -> None:
        save_file(self._open, str(self._part(len(self.shards))), metadata={"format": "pt"})
        self.shards.append(list(self._open))
        self.done += self._size
        self._open, self._size = {}, 0
