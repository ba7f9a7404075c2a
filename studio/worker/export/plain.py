"""The commonest merge, W + scale B A, by the names in the files alone: without a model, transformers or PEFT.

In: a Source. Out: a stream of tensors like any other merge's, or None where the adapter is anything more. What is
spared is 200 MB and the time to import the libraries; `adapted` computes the same by PEFT's own layers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from studio.core.errors import ModelError
from studio.core.job import read_json
from studio.worker.export.shards import TensorFiles, shard_files
from studio.worker.export.source import Source

_PREFIX = "base_model.model."
# What a plain LoRA's config may say beside its rank and scale, since it only shaped the training or says nothing new.
_INNOCENT = {
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version", "inference_mode",
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora", "fan_in_fan_out",
    "layers_to_transform", "layers_pattern", "megatron_core", "runtime_config", "rank_pattern",
    "qalora_group_size",
}  # fmt: skip
_OFF: tuple[Any, ...] = (None, False, [], {}, "none")


def plain_stream(source: Source) -> PlainMerge | None:
    """None where this isn't a plain LoRA on linear layers, whose changes have their places in the files by name."""
    config = read_json(source.output / "adapter_config.json")
    if config is None or source.others or source.quantized is not None or not _is_plain(config):
        return None
    file = source.output / "adapter_model.safetensors"
    if not file.is_file():
        return None
    factors, base = TensorFiles([file]), TensorFiles(shard_files(source.base))
    places = _places(factors, base)
    return PlainMerge(source, config, factors, base, places) if places else None


def _is_plain(config: dict[str, Any]) -> bool:
    if config.get("peft_type") != "LORA":
        return False
    if config.get("init_lora_weights", True) not in (True, False, "gaussian", "eva", "orthogonal"):
        return False
    return all(value in _OFF for key, value in config.items() if key not in (*_INNOCENT, "init_lora_weights"))


def _places(factors: TensorFiles, base: TensorFiles) -> dict[str, str]:
    """The base's tensors -> the layer in the adapter that changes it; empty where some have no place."""
    found: dict[str, str] = {}
    layers = {key.removesuffix(".weight").rpartition(".lora_")[0] for key in factors.places}
    for layer in layers:
        if {f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"} - set(factors.places):
            return {}
        name = f"{layer.removeprefix(_PREFIX)}.weight"
        place = name if name in base else name.partition(".")[2]  # GPT-2's files leave out the model's own prefix
        if place not in base or not re.search(r"\.\d+\.", f".{place}") or len(base.places[place].shape) != 2:
            return {}
        found[place] = layer
    return found if len(factors.places) == 2 * len(found) else {}


class PlainMerge:
    """A stream of tensors, by the names in the base's files."""

    def __init__(
        self, source: Source, config: dict[str, Any], factors: TensorFiles, base: TensorFiles, places: dict[str, str]
    ) -> None:
        self._config, self._factors, self._base, self._places = config, factors, base, places
        self._turned = bool(config.get("fan_in_fan_out"))
        self.changes: dict[str, Any] = {}
        self.plan = {name: (source.cast(place.dtype), place.shape) for name, place in base.places.items()}
        for place, layer in places.items():
            self._check(place, layer)

    def _check(self, place: str, layer: str) -> None:
        a, b = (self._factors.places[f"{layer}.lora_{side}.weight"].shape for side in "AB")
        shape = (a[1], b[0]) if self._turned else (b[0], a[1])
        if self._base.places[place].shape != shape or a[0] != b[1]:
            raise ModelError(
                f"The adapter doesn't fit this base: it changes {place} as {shape}, and that is "
                f"{self._base.places[place].shape}.",
                "It was trained on another base, or one of another shape: merge it into that one.",
            )

    def tensors(self) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        """Every tensor once, in the order of the base's files."""
        for name in self.plan:
            layer = self._places.get(name)
            yield name, self._base.blocks(name) if layer is None else self._changed(name, layer)

    def _changed(self, name: str, layer: str) -> Iterator[torch.Tensor]:
        a, b = (self._factors.read(f"{layer}.lora_{side}.weight").float() for side in "AB")
        rank, alpha = a.shape[0], float(self._config["lora_alpha"])
        scale = alpha / math.sqrt(rank) if self._config.get("use_rslora") else alpha / rank
        left, right = (a.T, b.T) if self._turned else (b, a)
        first = 0
        for block in self._base.blocks(name):
            rows = left[first : first + len(block)]
            first += len(block)
            yield block.float().addmm_(rows, right, alpha=scale)
