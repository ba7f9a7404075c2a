"""A LoRA adapter as GGUF, for llama.cpp's `--lora`: it is laid over the base's own GGUF file.

In: a base, an adapter. Out: a file with A and B of each layer. llama.cpp scales by alpha / rank and knows nothing else:
whatever another scale there is (rsLoRA, patterns) is multiplied into B. Other kinds of adapters are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from peft.tuners.lora.layer import Linear as LoraLinear

from studio.core.errors import ModelError
from studio.worker.export.adapted import NAME, Adapted
from studio.worker.export.adapterfile import wider_vocabulary
from studio.worker.export.gguf.architectures import architecture_of, names
from studio.worker.export.hollow import HollowModel
from studio.worker.export.shards import Unstreamable
from studio.worker.export.source import Source

_REFUSED = "Export it merged, as GGUF."


def write_lora(source: Source, path: Path) -> None:
    """Write the adapter. Raises ModelError for one that is more than A and B beside linear layers."""
    hollow = HollowModel(source.base, lambda model: wider_vocabulary(model, source.adapters))
    config = hollow.model.config
    architecture = architecture_of(config)
    try:
        adapted = Adapted(hollow, source.adapters)
    except Unstreamable:
        raise ModelError("llama.cpp lays only LoRA adapters over a model.", _REFUSED) from None
    name = names(architecture, config)
    if adapted.replaced or adapted.is_residual or hollow.vocabulary is not None:
        raise ModelError("llama.cpp adapters hold nothing but LoRA's A and B; this one brings more.", _REFUSED)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture.arch])
    alpha = None
    for unit in adapted.units:
        module: Any = unit.module
        if type(module) is not LoraLinear or NAME in module.lora_variant or module.lora_bias[NAME]:
            raise ModelError("llama.cpp adapters hold nothing but LoRA's A and B; this one brings more.", _REFUSED)
        a, b = (side[NAME].weight.data.float() for side in (module.lora_A, module.lora_B))
        alpha = float(module.lora_alpha[NAME]) if alpha is None else alpha
        weight = f"{unit.path}.weight"
        if name(weight) == "output.weight" and config.tie_word_embeddings:
            raise ModelError("The base's head is its embedding, and llama.cpp lays nothing over that.", _REFUSED)
        b = b * (module.scaling[NAME] * a.shape[0] / alpha)
        if ".c_" not in weight:  # GPT-2's weights are turned, its factors are not
            b = architecture.turn(config, weight, b)
        writer.add_tensor(f"{name(weight)}.lora_a", a.contiguous().numpy())
        writer.add_tensor(f"{name(weight)}.lora_b", b.contiguous().numpy())
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha or 1.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def lay_over(model: Any, path: Path) -> None:
    """Work a file's A and B into a transformers model: W + alpha / rank B A. Raises ModelError for one that isn't its.

    Rows that llama.cpp has in another order are put back into the model's.
    """
    reader = gguf.GGUFReader(path)
    alpha = reader.get_field(gguf.Keys.Adapter.LORA_ALPHA)
    factors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    architecture = architecture_of(model.config)
    table = gguf.get_tensor_name_map(architecture.arch, model.config.num_hidden_layers)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            name = table.get_name(key, try_suffixes=(".weight",))
            if parameter.dim() != 2 or f"{name}.lora_a" not in factors:
                continue
            a, b = (factors.pop(f"{name}.lora_{side}") for side in "ab")
            if ".c_" not in key:
                order = architecture.turn(model.config, key, torch.arange(b.shape[0], dtype=torch.float32)[:, None])
                b = b[order[:, 0].argsort()]
            change = float(alpha.contents() if alpha else 1.0) / a.shape[0] * (b @ a)
            parameter += change.T if ".c_" in key else change
    if factors:
        raise ModelError(f"{path.name} changes {sorted(factors)[0]}, which this model doesn't have.", _REFUSED)
