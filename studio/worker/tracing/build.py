"""The real model class in a few of its layers, quantized, with PEFT's adapter, on fake tensors.

In: a config.json, a `Run` of core.memory, which has every `auto` settled. Out: the model, and which of the real layers
each of its layers stands for. Knows no device.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import bitsandbytes as bnb
import torch
from torch import nn

from studio.core.memory.run import Run
from studio.core.memory.state import alike
from studio.core.sections.adapter import FreezeAdapter
from studio.core.shapes import Matrix
from studio.worker.adapters import peft_config
from studio.worker.adapters.freeze import freeze
from studio.worker.tracing import standins

_DTYPES = {2: torch.bfloat16, 4: torch.float32}
_NAME = "studio_traced"
_READ_BY_PEFT = {"compress_statistics": True, "quant_type": "nf4", "quant_storage": torch.uint8}


def shortened(config: dict[str, Any], run: Run) -> tuple[dict[str, Any], list[tuple[int, int, int]]]:
    """The config with at most three layers of each kind; for each layer how many it stands for, its row and place.

    Where layers alternate in a way that can't be shortened, all are kept.
    """
    rows = alike(run.shape.layers)
    dense = "first_k_dense_replace" in config and len(rows) == 2
    if len(rows) > 1 and not dense:
        return config, [(1, row, 0) for row, (_, count) in enumerate(rows) for _ in range(count)]
    shown = [min(count, 3) for _, count in rows]
    short = dict(config)
    for name in ("num_hidden_layers", "n_layer"):
        if name in short:
            short[name] = sum(shown)
    if dense:
        short["first_k_dense_replace"] = shown[0]
    for name in ("layer_types", "no_rope_layers"):
        if isinstance(short.get(name), list):
            short[name] = short[name][: sum(shown)]
    if "max_window_layers" in short:
        short["max_window_layers"] = min(short["max_window_layers"], sum(shown))
    cuts = []
    for row, (_, count) in enumerate(rows):
        cuts += [(count - 2 if place == 1 and count > 2 else 1, row, place) for place in range(shown[row])]
    return short, cuts


@contextlib.contextmanager
def patched(run: Run) -> Iterator[None]:
    """What has to be another for a while: attention, layer norm under autocast, and how parameters are replaced."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    from studio.core.memory.attention import Heads, copies

    flash = run.attention.startswith("flash")
    masked = run.practice.masked and not flash
    heads = Heads(run.shape.heads, run.shape.kv_heads, run.shape.head_dim, run.shape.head_dim)
    ALL_ATTENTION_FUNCTIONS.register(_NAME, standins.attention(copies(run, heads), masked, flash))
    ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, lambda *args, **kwargs: None)
    places = {
        (nn.Module, "_apply"): _replaced,
        (nn.functional, "layer_norm"): standins.layer_norm(nn.functional.layer_norm),
        (nn.functional, "dropout"): standins.dropout,
        (nn.functional, "grouped_mm"): standins.grouped,
    }
    before = {place: getattr(*place) for place in places}
    for (owner, name), other in places.items():
        setattr(owner, name, other)
    try:
        yield
    finally:
        for (owner, name), original in before.items():
            setattr(owner, name, original)


def _replaced(self: Any, convert: Any, recurse: bool = True) -> Any:
    """nn.Module._apply without swapping tensors, which fake ones refuse."""
    if recurse:
        for module in self.children():
            module._apply(convert)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                made = convert(parameter)
            self._parameters[name] = made if made is parameter else nn.Parameter(made, parameter.requires_grad)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = convert(buffer)
    return self


def build(config: dict[str, Any], run: Run) -> Any:
    """The model, ready to be trained: dtype, quantization, adapter, checkpointing."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    plain = {key: value for key, value in config.items() if key not in ("quantization_config", "dtype", "torch_dtype")}
    settings = AutoConfig.for_model(plain.pop("model_type"), **plain)
    eager = run.attention == "eager"
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(
            settings, dtype=_DTYPES[run.item], attn_implementation="eager" if eager else _NAME
        )
    model.tie_weights()
    model.config.use_cache = False
    if run.quant:
        _quantize(model, run)
    _recast(model, run)
    if isinstance(run.config.adapter, FreezeAdapter):
        freeze(model, run.config.adapter)
    elif run.config.adapter:
        import peft

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what PEFT says about a layout that it puts right by itself
            model = peft.get_peft_model(model, peft_config(run.config.adapter, model), autocast_adapter_dtype=False)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = parameter.data.to(_DTYPES[run.adapter_item])
    if run.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": run.reentrant})
        if run.config.adapter:
            model.enable_input_require_grads()
    elif run.quant:
        model.enable_input_require_grads()
    return model.train()


def _quantize(model: Any, run: Run) -> None:
    heads = {model.get_output_embeddings()}
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and child not in heads:
                path = f"{name}"
                matrix = Matrix(path, child.out_features, child.in_features)
                if run.quantizes(matrix):
                    setattr(module, name, _packed(child, run))
    if run.quant in ("nf4", "fp4"):
        model.is_loaded_in_4bit = True
    elif run.quant == "int8":
        model.is_loaded_in_8bit = True
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _recast(model: Any, run: Run) -> None:
    """Weights beside a quantized base in float32, as prepare_model_for_kbit_training holds them."""
    seen: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is None or parameter.dtype not in (torch.bfloat16, torch.float16):
                continue
            item = run.norm_item if parameter.dim() == 1 else run.outer_item
            if item == parameter.element_size():
                continue
            made = seen.setdefault(
                id(parameter), nn.Parameter(parameter.data.to(_DTYPES[item]), parameter.requires_grad)
            )
            module._parameters[name] = made


def _packed(linear: Any, run: Run) -> Any:
    kind = {"int8": "int8", "gptq": "gptq"}.get(run.quant, "4bit-double" if run.config.model.double_quant else "4bit")
    classes = {"int8": _EightBit, "gptq": _Gptq}
    return classes.get(run.quant, _FourBit)(linear, kind, run.habits.saves_input_4bit)


def _prepare(module: Any, linear: Any, kind: str, keeps: bool) -> None:
    nn.Module.__init__(module)
    module.in_features, module.out_features = linear.in_features, linear.out_features
    module.bias, module.traced = linear.bias, (kind, keeps)
    module.compute_dtype = torch.bfloat16
    size = linear.weight.numel() if kind == "int8" else -(-linear.weight.numel() // 2)
    module.weight = nn.Parameter(linear.weight.new_empty(size, dtype=torch.uint8), requires_grad=False)
    for name, value in _READ_BY_PEFT.items():
        setattr(module.weight, name, value)


def _run_packed(module: Any, x: Any) -> Any:
    kind, keeps = module.traced
    shape = (module.out_features, module.in_features)
    return standins.product(x, module.weight, shape, kind, module.bias, keeps)


class _FourBit(bnb.nn.Linear4bit):  # type: ignore[misc]
    """PEFT sees bitsandbytes' class; its product is the stand-in's."""

    def __init__(self, linear: Any, kind: str, keeps: bool) -> None:
        _prepare(self, linear, kind, keeps)

    def forward(self, x: Any) -> Any:
        return _run_packed(self, x)


class _EightBit(bnb.nn.Linear8bitLt):  # type: ignore[misc]
    def __init__(self, linear: Any, kind: str, keeps: bool) -> None:
        _prepare(self, linear, kind, keeps)
        self.state = bnb.MatmulLtState()
        self.index = None

    def forward(self, x: Any) -> Any:
        return _run_packed(self, x)


class _Gptq(nn.Linear):  # type: ignore[misc]
    def __init__(self, linear: Any, kind: str, keeps: bool) -> None:
        _prepare(self, linear, kind, keeps)

    def forward(self, x: Any) -> Any:
        return _run_packed(self, x)
