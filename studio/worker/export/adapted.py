"""Adapters laid over a hollow model by PEFT itself, so that what is merged is PEFT's own arithmetic, a layer at a time.

In: a HollowModel, adapter folders. Out: `Unit`s, each a layer that the adapter changes: it is given its real weights in
float32, merged by PEFT, and emptied again. Every kind of adapter that PEFT merges layer by layer comes out as PEFT
means it; plain LoRA on a linear layer is computed in blocks of rows besides, which is faster and needs less memory.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora.layer import Embedding as LoraEmbedding
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from studio.core.errors import ModelError
from studio.worker.export.adapterfile import STREAMED, kind_of, read_config, take_out_start
from studio.worker.export.hollow import HollowModel
from studio.worker.export.shards import TensorFiles, Unstreamable

NAME = "default"


@dataclass(frozen=True)
class Unit:
    """A layer that is changed: `path` in the base model, the names of the base's parameters in it."""

    path: str
    module: nn.Module
    names: tuple[str, ...]

    def tensors(self) -> set[int]:
        """What tells that two units (of tied layers) are changed by the very same adapter."""
        return {tensor.data_ptr() for tensor in self.module.state_dict().values() if tensor.stride() != (0, 0)}


class Adapted:
    """An adapter over a hollow model. Raises Unstreamable where only PEFT's merge of the whole model can do it.

    `combine` may put several loaded adapters together: it is given the PeftModel and returns the name of the result.
    """

    def __init__(self, hollow: HollowModel, adapters: list[Path], combine: Callable[[Any], str] | None = None) -> None:
        self.hollow = hollow
        configs = [read_config(folder) for folder in adapters]
        for config in configs:
            if kind_of(config) not in STREAMED:
                raise Unstreamable(f"adapters of kind {kind_of(config)} change the model as a whole")
        if len(configs) > 1 and {kind_of(config) for config in configs} != {"LORA"}:
            kinds = ", ".join(sorted({kind_of(config) for config in configs}))
            raise ModelError(f"Only LoRA adapters can be put together; these are {kinds}.", "Merge one of them.")
        self._residual = take_out_start(configs[0])
        if len(configs) > 1 and any(take_out_start(config) for config in configs[1:]):
            raise ModelError(
                "Adapters that took their start out of the base (PiSSA, OLoRA) can't be combined.", "Merge one alone."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT warns of (ties, saved embeddings) is dealt with here
            self.model = self._lay_over(configs, adapters)
            self.name = combine(self.model) if combine else NAME
            if combine:
                self.model.base_model.set_adapter(self.name)
        self.units, self.replaced = self._find_changes()
        for folder in adapters:
            self._check_all_used(folder)

    def _lay_over(self, configs: list[Any], adapters: list[Path]) -> Any:
        options = {"low_cpu_mem_usage": True, "autocast_adapter_dtype": False, "torch_device": "cpu"}
        names = [NAME, *(f"adapter{number}" for number in range(1, len(adapters)))]
        try:
            model = PeftModel.from_pretrained(
                self.hollow.model, str(adapters[0]), adapter_name=NAME, config=configs[0], **options
            )
            for name, folder in zip(names[1:], adapters[1:], strict=True):
                model.load_adapter(str(folder), adapter_name=name, **options)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"The adapter doesn't fit this base ({' '.join(str(error).split())[:300]}).",
                "It was trained on another base, or one of another shape: merge it into that one.",
            ) from None
        meta = [name for name, p in model.named_parameters() if p.device.type == "meta"]
        if meta:
            raise ModelError(
                f"The adapter's file lacks {len(meta)} of its weights, {meta[0]} first.",
                "It was trained on another base, or its saving was cut off.",
            )
        return model

    def _find_changes(self) -> tuple[list[Unit], dict[str, torch.Tensor]]:
        """The layers that are changed, and parameters outside them that the adapter brings whole (biases, say)."""
        units: list[Unit] = []
        base = self.model.get_base_model()
        inside: list[str] = []
        for path, module in base.named_modules():
            if any(path.startswith(outer) for outer in inside):
                continue
            if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
                inside.append(f"{path}.")
                units.append(Unit(path, module, tuple(n for n in self.hollow.shapes if n.startswith(f"{path}."))))
        replaced = {}
        for name, parameter in base.named_parameters(remove_duplicate=False):
            if id(parameter) not in self.hollow.names and not any(name.startswith(outer) for outer in inside):
                if self.hollow.shapes.get(name) != tuple(parameter.shape):
                    raise Unstreamable(f"the adapter brings {name}, which has no place in the base")
                replaced[name] = parameter.data
        return units, replaced

    @property
    def is_residual(self) -> bool:
        """Whether the adapter belongs onto what its start has left of the base."""
        return bool(self._residual)

    @property
    def brought(self) -> set[str]:
        """Parameters whose value the adapter brings whole, whatever the base's is."""
        inside = {
            name
            for unit in self.units
            for name in unit.names
            if not any(id(p) in self.hollow.names for p in unit.module.parameters())
            or isinstance(unit.module, ModulesToSaveWrapper)
        }
        return inside | set(self.replaced)

    def factors(self, unit: Unit) -> tuple[torch.Tensor, ...] | None:
        """Scale, left and right of a plain LoRA on an embedding or a head, both as the head has them; None for others.

        What PEFT trains as one for tied embeddings it saves twice, turned.
        """
        module: Any = unit.module
        if not isinstance(module, LoraLayer) or self.name in module.lora_variant or self._residual:
            return None
        if isinstance(module, LoraEmbedding):
            left, right = module.lora_embedding_A[self.name].T, module.lora_embedding_B[self.name].T
        elif self._is_plain(module, saved_too=True):
            left, right = module.lora_B[self.name].weight, module.lora_A[self.name].weight
        else:
            return None
        return torch.tensor(module.scaling[self.name]), left.data, right.data

    def base_weight(self, name: str) -> torch.Tensor | None:
        """The weight under an adapter that was saved together with it: that of embeddings with more tokens."""
        for unit in self.units:
            if name in unit.names and isinstance(unit.module, BaseTunerLayer):
                weight: torch.Tensor = unit.module.get_base_layer().weight.data
                return weight if weight.stride() != (0, 0) else None
        return None

    def _check_all_used(self, folder: Path) -> None:
        """PEFT passes over tensors that have no place in the model; a merge must not."""
        if any(origin.converter is not None for origin in self.hollow.origins.values()):
            return  # such adapters may be stored in the files' old layout
        known = (*(f"{unit.path}." for unit in self.units), *self.replaced)
        for key in TensorFiles([folder / "adapter_model.safetensors"]).places:
            name = key.removeprefix("base_model.model.")
            if name != key and not name.startswith(known):
                raise ModelError(
                    f"The adapter changes {name}, which this base doesn't have.",
                    "It was trained on another base: merge it into that one.",
                )

    def merge(self, unit: Unit) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        """A layer's parameters after the merge: name, and its value in blocks of rows (which may be one)."""
        if self._is_plain(unit.module):
            yield from self._merge_rows(unit)
            return
        with self._filled(unit):
            module: Any = unit.module
            if self._residual and isinstance(module, LoraLinear):
                self._take_start_from_base(module)
            if hasattr(module, "unload_and_optionally_merge_module"):
                merged = module.unload_and_optionally_merge_module(
                    merge=True, safe_merge=False, adapter_names=[self.name]
                )
            else:
                module.merge(safe_merge=False, adapter_names=[self.name])
                merged = module.get_base_layer()
            found = {f"{unit.path}.{name}": p.data for name, p in merged.named_parameters()}
            if not set(found) <= set(self.hollow.shapes):
                raise Unstreamable(f"merging {unit.path} leaves weights that the base doesn't know")
            for name, value in found.items():
                yield name, [value]

    def _is_plain(self, module: nn.Module, saved_too: bool = False) -> bool:
        """Whether a layer's merge is W + scale B A and nothing else; W the base's, or `saved_too` with the adapter."""
        if type(module) is not LoraLinear or self._residual:
            return False
        if not saved_too and id(module.get_base_layer().weight) not in self.hollow.names:
            return False
        return self.name in module.lora_A and self.name not in module.lora_variant and not module.lora_bias[self.name]

    def _merge_rows(self, unit: Unit) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        module: Any = unit.module
        layer = module.get_base_layer()
        a = module.lora_A[self.name].weight.data.float()
        b = module.lora_B[self.name].weight.data.float()
        left, right = (a.T, b.T) if isinstance(layer, Conv1D) else (b, a)  # Conv1D keeps its weight as (in, out)
        scale = module.scaling[self.name]
        for local, parameter in layer.named_parameters():
            name = f"{unit.path}.{local}"
            if id(parameter) not in self.hollow.names:  # a trained bias: bias="lora_only"
                yield name, [parameter.data]
            elif local == "weight":
                yield name, self._rows(name, left, right, scale)

    def _rows(self, name: str, left: torch.Tensor, right: torch.Tensor, scale: float) -> Iterator[torch.Tensor]:
        origin = self.hollow.origin(name)
        if origin.converter is not None or self.hollow.alters(name):
            whole = self.hollow.read(name)
            yield whole.addmm_(left, right, alpha=scale)
            return
        first = 0
        for block in self.hollow.files.blocks(origin.names[0]):
            rows = left[first : first + len(block)]
            first += len(block)
            yield block.float().addmm_(rows, right, alpha=scale)

    @contextlib.contextmanager
    def _filled(self, unit: Unit) -> Iterator[None]:
        """The unit with its real weights in float32; stand-ins again afterwards."""
        real: dict[int, nn.Parameter] = {}
        places: list[tuple[nn.Module, str, nn.Parameter]] = []
        for module in unit.module.modules():
            for local, parameter in list(module._parameters.items()):
                if parameter is None:
                    continue
                if id(parameter) in self.hollow.names:
                    if id(parameter) not in real:
                        name = self._own_name(unit, id(parameter))
                        real[id(parameter)] = nn.Parameter(self._read(name), requires_grad=False)
                    places.append((module, local, parameter))
                    module._parameters[local] = real[id(parameter)]
                elif parameter.is_floating_point():
                    parameter.data = parameter.data.float()
        try:
            yield
        finally:
            for module, local, stand in places:
                module._parameters[local] = stand

    def _own_name(self, unit: Unit, stand: int) -> str:
        names = self.hollow.names[stand]
        return next((name for name in names if name in unit.names), names[0])

    def _read(self, name: str) -> torch.Tensor:
        value = self.hollow.read(name)
        if tuple(value.shape) != self.hollow.shapes[name]:
            raise ModelError(
                f"The adapter was trained on another base: {name} is {self.hollow.shapes[name]} there, and "
                f"{tuple(value.shape)} in this one.",
                "Export it with the base that it was trained on.",
            )
        return value

    def _take_start_from_base(self, module: Any) -> None:
        """Leave in the base what the initialisation left in it: it is computed anew, as PEFT does at each load."""
        kept = [module.lora_A[self.name].weight.data, module.lora_B[self.name].weight.data]
        if self._residual.startswith("pissa"):
            module.pissa_init(self.name, self._residual)
        else:
            module.olora_init(self.name)
        module.lora_A[self.name].weight.data, module.lora_B[self.name].weight.data = kept


def is_tokens(unit: Unit) -> bool:
    """Whether a unit trains single tokens, which PEFT ties by itself where the embeddings are tied."""
    return isinstance(unit.module, TrainableTokensWrapper)
