"""Training the last layers as they are, the rest frozen.

In: a model, the freeze section. Out: which parameters have gradients. The model stays itself, and is saved whole.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from studio.core.errors import ConfigError
from studio.core.sections.adapter import FreezeAdapter


def decoder_layers(model: Any) -> nn.ModuleList:
    """The list of layers that a model goes through. Raises ConfigError where there is none to be found."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for found in lists:
        if len(found) == count:
            return found
    raise ConfigError("adapter.type", "this model's layers can't be told apart.", "Choose lora.")


def freeze(model: Any, section: FreezeAdapter) -> None:
    """Leave gradients to the last `trained_layers`, with `train_head` to what is behind them too. Raises ConfigError.

    A head that is one matrix with the embedding takes that along. What is trained is held in float32: the updates of a
    step are smaller than 16 bits resolve.
    """
    layers = decoder_layers(model)
    if section.trained_layers > len(layers):
        raise ConfigError(
            "adapter.trained_layers",
            f"the model has {len(layers)} layers, not {section.trained_layers}.",
            "Give fewer; without an adapter (adapter: null) the whole model is trained.",
        )
    model.requires_grad_(False)
    for layer in layers[len(layers) - section.trained_layers :]:
        layer.requires_grad_(True)
    if section.train_head:
        for module in _behind(model, layers):
            module.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _behind(model: Any, layers: nn.ModuleList) -> list[nn.Module]:
    """The last norm and the head."""
    inside = {id(module) for module in layers.modules()}
    found: list[nn.Module] = []
    owner = next(module for module in model.modules() if any(child is layers for child in module.children()))
    for child in owner.children():
        if id(child) not in inside and "norm" in type(child).__name__.lower():
            found.append(child)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found += [module for module in (head, getattr(model, "score", None)) if module is not None]
    return found
