"""What a format's rounding does to a model: the same model, its weights rounded as that format rounds them.

In: base + adapter, a format, the dtypes that a merge is kept in. Out: the merged model in float32 with rounded weights:
what a right export says, to within sums in another order.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from studio.worker.export.bnb import section
from studio.worker.export.dequantize import Dequantized
from studio.worker.export.shards import TensorFiles, shard_files

StoredDtype = Callable[[str], torch.dtype]


def stored_dtype(request: dict[str, Any]) -> StoredDtype:
    """A weight's name -> the dtype that its merge is written in: one for all, or (`keeps_dtypes`) the base's own."""
    usual: torch.dtype = getattr(torch, request.get("dtype") or "float32")
    if not request.get("keeps_dtypes"):
        return lambda name: usual
    places = TensorFiles(shard_files(Path(request["base"]))).places

    def find(name: str) -> torch.dtype:
        place = places.get(name) or places.get(name.partition(".")[2])  # GPT-2's files leave out the model's own prefix
        return place.dtype if place is not None and place.dtype.is_floating_point else usual

    return find


def round_like(model: Any, format: str, quantization: str, stored: StoredDtype) -> Any:
    """Merge and round in place; returns the merged model. An adapter alone rounds nothing."""
    if format in ("adapter", "gguf-lora"):
        return model
    with torch.no_grad():
        model = _merged(model)
        as_quantized = Dequantized(model, section(quantization)) if format == "bnb" else None
        turned = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, Conv1D)}
        for name, parameter in model.named_parameters():
            if format != "gguf":
                parameter.data = parameter.data.to(stored(name)).float()
                if as_quantized is not None:
                    parameter.data = as_quantized(name, parameter.data)
            elif name in turned:  # rows are rounded together, and these are stored as columns
                parameter.data = _as_gguf(parameter.data.T, quantization).T
            else:
                parameter.data = _as_gguf(parameter.data, quantization)
    return model


def _merged(model: Any) -> Any:
    """The adapter in the weights; tied embeddings are untied first, since PEFT would change both."""
    if not hasattr(model, "merge_and_unload"):
        return model
    base = model.get_base_model()
    head = base.get_output_embeddings()
    layer = getattr(head, "base_layer", head)
    if isinstance(layer, torch.nn.Linear):
        layer.weight = torch.nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    return model.merge_and_unload()


def _as_gguf(weight: torch.Tensor, wished: str) -> torch.Tensor:
    """There and back by the gguf package's own arithmetic."""
    from gguf.quants import dequantize, quantize

    from studio.worker.export.gguf.file import type_for

    kind = type_for(tuple(weight.shape), wished)
    return torch.from_numpy(dequantize(quantize(weight.contiguous().numpy(), kind), kind).copy()).reshape(weight.shape)
