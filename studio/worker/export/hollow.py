"""A model without its weights: its modules as transformers builds them, each weight a stand-in of four bytes.

In: a base's folder. Out: the module tree, and for each of its parameters where the base's files keep it, which may be
under another name or in several parts (experts that were stored one by one). Weights are read one at a time by whoever
asks. Knows nothing of adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.core.errors import ModelError
from studio.worker.export.shards import TensorFiles, Unstreamable, shard_files


@dataclass(frozen=True)
class Origin:
    """How the files keep a parameter: under `names`, and the conversion that makes one of several, if there is one."""

    names: tuple[str, ...]
    converter: Any = None
    patterns: tuple[str, ...] = ()


class HollowModel:
    """`model`: a transformers model whose parameters are stand-ins; `files`: the base's tensors; `origins` by name."""

    def __init__(self, folder: Path, widen: Callable[[Any], int | None] | None = None) -> None:
        """`widen` may look at the bare model and say how many tokens it is to have, where that isn't as many as now."""
        from transformers import AutoConfig, AutoModelForCausalLM

        self.files = TensorFiles(shard_files(folder))
        if not self.files.places:
            raise ModelError(f"{folder} has no safetensors weights.", "Choose a model that has them.")
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        self.vocabulary = widen(self.model) if widen else None
        if self.vocabulary is not None:
            with torch.device("meta"):
                self.model.resize_token_embeddings(self.vocabulary, mean_resizing=False)
        self.model.eval()
        self.names: dict[int, list[str]] = {}
        self._hollow_out()
        # Where the base isn't taken as it is stored: a weight's name and value -> the value, and which names it alters.
        self.alter: Any = None
        self.shapes = {name: tuple(p.shape) for name, p in self.model.named_parameters(remove_duplicate=False)}
        self.origins = self._locate()
        self.owner = {key: name for name, origin in self.origins.items() for key in origin.names}

    def _hollow_out(self) -> None:
        """Put stand-ins on the CPU for the parameters: PEFT asks them for a device and a dtype, never for a number."""
        made: dict[int, nn.Parameter] = {}
        for path, module in self.model.named_modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is None:
                    continue
                if id(parameter) not in made:
                    made[id(parameter)] = stand_in(tuple(parameter.shape))
                module._parameters[name] = made[id(parameter)]
                self.names.setdefault(id(made[id(parameter)]), []).append(f"{path}.{name}" if path else name)
        self._kept = list(made.values())  # an id means a stand-in as long as that lives

    def _locate(self) -> dict[str, Origin]:
        """Parameter -> where it is in the files, as transformers' own loading finds it."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        mapping = get_model_conversion_mapping(self.model)
        renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
        converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
        by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
        there = dict.fromkeys(self.shapes, True)
        prefix = self.model.base_model_prefix
        found: dict[str, list[tuple[str, str | None]]] = {}
        for key in sorted(self.files.places, key=_natural):
            name, pattern = rename_source_key(key, renamings, converters, prefix, there)
            if name not in there and key in there:
                name, pattern = rename_source_key(key, [], [], prefix, there)
            found.setdefault(name, []).append((key, pattern))
        origins = {}
        for name, parts in found.items():
            keys = tuple(key for key, _ in parts)
            if parts[0][1] is None:
                origins[name] = Origin(keys)
            else:
                origins[name] = Origin(keys, by_pattern[parts[0][1]], tuple(str(pattern) for _, pattern in parts))
        return origins

    def origin(self, name: str) -> Origin:
        """Raises Unstreamable for a parameter that the files don't hold in a way that can be turned round."""
        for known in self.aliases(name):
            origin = self.origins.get(known)
            if origin is not None and (origin.converter is not None or len(origin.names) == 1):
                return origin
        raise Unstreamable(f"the base's files don't hold {name} as one weight")

    def model_name(self, key: str) -> str:
        """What the model calls a tensor of the files; "" where it doesn't know it, or makes one of several."""
        name = self.owner.get(key, "")
        return name if name in self.shapes and self.origins[name].converter is None else ""

    def aliases(self, name: str) -> list[str]:
        """A parameter's names: tied ones have several."""
        for names in self.names.values():
            if name in names:
                return [name, *(other for other in names if other != name)]
        return [name]

    def read(self, name: str) -> torch.Tensor:
        """A parameter in float32, as the model would hold it."""
        origin = self.origin(name)
        if origin.converter is None:
            found = self.files.read(origin.names[0])
        else:
            converter = copy.deepcopy(origin.converter)
            for key, pattern in zip(origin.names, origin.patterns, strict=True):
                converter.add_tensor(name, key, pattern, self.files.read(key))
            made = converter.convert(name, model=self.model, config=self.model.config)
            if set(made) != {name}:
                raise Unstreamable(f"{name} is stored together with other weights")
            found = made[name][0] if isinstance(made[name], list) else made[name]
        if not found.is_floating_point():
            raise Unstreamable(f"{name} isn't stored as floating-point numbers")
        return self.alter(name, found.float()) if self.alters(name) else found.float()

    def alters(self, name: str) -> bool:
        return self.alter is not None and name in self.alter

    def parts(self, name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
        """A parameter's value as the files keep it: their names -> tensors. The way back from `read`."""
        origin = self.origin(name)
        if origin.converter is None:
            return {origin.names[0]: value}
        back = origin.converter.reverse_transform()
        renamed, pattern = back.rename_source_key(name)
        back.add_tensor(renamed, name, pattern, value)
        made = back.convert(renamed, model=self.model, config=self.model.config)
        made = {key: part[0] if isinstance(part, list) else part for key, part in made.items()}
        return made if set(made) == set(origin.names) else self._renamed(made, origin)

    def _renamed(self, made: dict[str, torch.Tensor], origin: Origin) -> dict[str, torch.Tensor]:
        """What other renamings of the model put between its names and the files'."""
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import PrefixChange, WeightRenaming, apply_renamings

        mapping = get_model_conversion_mapping(self.model, add_legacy=False)
        back = [m.reverse_transform() for m in mapping[::-1] if isinstance(m, WeightRenaming)]
        back = [m for m in back if not isinstance(m, PrefixChange)]
        named = {apply_renamings(key, back): part for key, part in made.items()}
        if set(named) != set(origin.names):
            raise Unstreamable(f"the parts of {origin.names[0]} can't be named back")
        return named


def stand_in(shape: tuple[int, ...]) -> nn.Parameter:
    """A parameter of this shape that takes four bytes."""
    return nn.Parameter(torch.zeros(()).expand(shape), requires_grad=False)


def _natural(key: str) -> list[Any]:
    from transformers.core_model_loading import dot_natural_key

    return list(dot_natural_key(key))
