"""Which of a model's modules an adapter changes: their real names, whatever the architecture calls them.

In: a model, an adapter's section. Out: names for PEFT's `target_modules`, or a refusal that says which names there are.
Knows no weights.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from studio.core.errors import ConfigError

_INDEX = re.compile(r"\.(\d+)\.")
# As every architecture of transformers names its attention: self_attn, attn, attention, linear_attn, SelfAttention.
_ATTENTION = re.compile(r"(^|[._])(self_?|linear_?)?(attn|attention)([._]|$)", re.IGNORECASE)
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_out", "embed_in")


def linear_modules(model: Any) -> dict[str, nn.Module]:
    """The linear layers by path, without the head."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head and path.rpartition(".")[2] != "score"
    }


def targets(model: Any, adapter: Any) -> str | list[str]:
    """What PEFT is told. Raises ConfigError for names that the model doesn't have.

    `all-linear` stays PEFT's own word where it can; a list is made of it where layers are picked, or attention alone.
    """
    wish: str | list[str] = adapter.target_modules
    layers = adapter.layers_to_transform
    if model is None:
        assert wish != "attention", "attention's names are looked up in the model"
        return wish
    _check_layers(model, layers)
    if wish == "all-linear" and layers is None and adapter.type != "ia3":
        return wish
    found = chosen(model, adapter)
    if adapter.type == "ia3":  # its inner layers are compared by their spelling, and it knows no picking of layers
        return found
    return sorted({_short(path) for path in found}) if layers is not None or wish == "attention" else wish


def chosen(model: Any, adapter: Any) -> list[str]:
    """The paths of the modules that the adapter takes. Raises ConfigError where there are none."""
    wish = adapter.target_modules
    linear = linear_modules(model)
    if wish == "all-linear":
        found = list(linear)
    elif wish == "attention":
        found = [path for path in linear if _ATTENTION.search(path)]
    else:
        found = [path for path, _ in model.named_modules() if path and _fits(path, wish)]
        if isinstance(wish, list):
            _check_names(model, wish)
    if adapter.layers_to_transform is not None:
        found = [path for path in found if _layer_of(path) in adapter.layers_to_transform]
    if not found:
        raise ConfigError(
            "adapter.target_modules", f"{_told(wish)} fits no module of this model.", f"There are {names(model)}."
        )
    return found


def names(model: Any) -> str:
    """The last names of the linear layers, for a sentence."""
    return ", ".join(sorted({path.rpartition(".")[2] for path in linear_modules(model)}))


def _fits(path: str, wish: str | list[str]) -> bool:
    """As PEFT decides: a text is a regex for the whole path, a list holds paths or their ends."""
    if isinstance(wish, str):
        return re.fullmatch(wish, path) is not None
    return any(path == name or path.endswith(f".{name}") for name in wish)


def _check_names(model: Any, wish: list[str]) -> None:
    paths = [path for path, _ in model.named_modules()]
    for name in wish:
        if not any(_fits(path, [name]) for path in paths):
            raise ConfigError(
                "adapter.target_modules", f"the model has no module {name!r}.", f"There are {names(model)}."
            )


def _check_layers(model: Any, layers: list[int] | None) -> None:
    there = {_layer_of(path) for path in linear_modules(model)} - {None}
    for number in layers or []:
        if there and number not in there:
            raise ConfigError(
                "adapter.layers_to_transform",
                f"the model has no layer {number}.",
                f"Its layers are 0 to {max(n for n in there if n is not None)}.",
            )


def _layer_of(path: str) -> int | None:
    found = _INDEX.search(f".{path}.")
    return int(found[1]) if found else None


def _short(path: str) -> str:
    """A path inside its layer: what all layers have in common."""
    found = _INDEX.search(path)
    return path[found.end() :] if found else path


def _told(wish: str | list[str]) -> str:
    return repr(wish) if isinstance(wish, str) else ", ".join(wish)


def touches_embeddings(model: Any, adapter: Any) -> bool:
    """Whether an adapter changes an embedding or the head, which in many models are one matrix."""
    wish = getattr(adapter, "target_modules", [])
    named = {*getattr(adapter, "modules_to_save", ()), *(wish if isinstance(wish, list) else ())}
    return any(name.rpartition(".")[2] in _EMBEDDINGS for name in named)


def is_tied(model: Any) -> bool:
    """Whether embedding and head are one matrix."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head is not None and head.weight is model.get_input_embeddings().weight
