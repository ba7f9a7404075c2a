"""Kernels that only a graphics card has, as functions that allocate what they do.

In: fake tensors. Out: fake tensors of the right shape. Buffers are those of flash-attention 2 and torch's
memory-efficient attention, bitsandbytes' 4- and 8-bit products, and bitsandbytes' 8-bit AdamW.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_BLOCK = 128


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    """(rows, tokens, heads, size): keeps its inputs, its result and a sum a token; the backward gathers in float32."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, masked: bool) -> Any:
        rows, tokens, heads, _ = query.shape
        out = query.new_empty(rows, tokens, heads, value.shape[-1])
        sums = query.new_empty(rows, heads, tokens, dtype=torch.float32)
        bias = query.new_empty(rows, tokens, tokens) if masked else None
        ctx.save_for_backward(query, key, value, out, sums, *([bias] if masked else []))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        query, key, value, *rest = ctx.saved_tensors
        below = tuple(torch.empty_like(x) for x in (query, key, value))
        rows, tokens, heads, size = query.shape
        padded = -(-tokens // _BLOCK) * _BLOCK
        width = size if size <= 128 else -(-size // 32) * 32
        sums = query.new_empty(rows, heads, padded, dtype=torch.float32)
        gathered = query.new_empty(rows, padded, heads, width, dtype=torch.float32)
        if key.shape[2] != heads and len(rest) < 3:
            whole = query.new_empty(rows, tokens, heads, size), query.new_empty(rows, tokens, heads, value.shape[-1])
            del whole
        del sums, gathered
        return (*below, None)


def attention(copies: bool, masked: bool, flash: bool) -> Any:
    """An attention function as transformers registers them. `copies`: keys and values for each head."""

    def forward(module: Any, query: Any, key: Any, value: Any, attention_mask: Any = None, **rest: Any) -> Any:
        groups = query.shape[1] // key.shape[1]
        if copies and groups > 1:
            key, value = (_repeated(x, groups) for x in (key, value))
        if query.dtype == torch.float32 and (flash or torch.is_autocast_enabled("cpu")):
            query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
        if flash and value.shape[-1] != query.shape[-1]:
            value = functional.pad(value, [0, query.shape[-1] - value.shape[-1]])
        out = _Attention.apply(*(x.transpose(1, 2) for x in (query, key, value)), masked)
        return out, None

    return forward


def _repeated(x: Any, groups: int) -> Any:
    rows, heads, tokens, size = x.shape
    return x[:, :, None].expand(rows, heads, groups, tokens, size).reshape(rows, heads * groups, tokens, size)


class _Product(torch.autograd.Function):  # type: ignore[misc]
    """A product with a weight that is unpacked for the moment, here and in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Any, packed: Any, shape: tuple[int, int], kind: str, keeps: bool) -> Any:
        ctx.shape, ctx.kind, ctx.dtype = shape, kind, x.dtype
        ctx.save_for_backward(packed)
        ctx.kept = x if keeps else None  # as an attribute, which goes only with the whole graph
        if kind == "int8":
            quantized = torch.empty_like(x, dtype=torch.int8)
            sums = x.new_empty(*x.shape[:-1], shape[0], dtype=torch.int32)
            out = x.new_empty(*x.shape[:-1], shape[0])
            del quantized, sums
            return out
        weight = _unpacked(x, shape, kind)
        out = x.new_empty(*x.shape[:-1], shape[0])
        del weight
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        weight = _unpacked(gradient, ctx.shape, ctx.kind)
        below = gradient.new_empty(*gradient.shape[:-1], ctx.shape[1], dtype=ctx.dtype)
        del weight
        return below, None, None, None, None


def _unpacked(like: Any, shape: tuple[int, int], kind: str) -> Any:
    scales = like.new_empty(-(-shape[0] * shape[1] // 64), dtype=torch.float32) if kind == "4bit-double" else None
    weight = like.new_empty(shape, dtype=torch.bfloat16)
    del scales
    return weight


def product(x: Any, packed: Any, shape: tuple[int, int], kind: str, bias: Any, keeps: bool = False) -> Any:
    """bitsandbytes' Linear4bit and Linear8bitLt, GPTQ's layer: compute in 16 bits, answer in the input's format."""
    given = x.dtype
    out = _Product.apply(x.to(torch.bfloat16), packed, shape, kind, keeps)
    if bias is not None:
        out = out + bias.to(out.dtype)
    return out.to(given)


class EightBitAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """bitsandbytes' AdamW: a byte a number for each of two states, with a scale for 256; paged ones live elsewhere."""

    def __init__(self, parameters: list[Any], paged: bool) -> None:
        super().__init__(parameters, {})
        self._paged = paged

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> None:
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if self.state[parameter] or self._paged:
                continue
            numel = parameter.numel()
            if numel < 4096:
                self.state[parameter] = {i: parameter.new_empty(numel, dtype=torch.float32) for i in range(2)}
                continue
            for i in range(2):
                self.state[parameter][i] = parameter.new_empty(numel, dtype=torch.uint8)
                self.state[parameter][f"scales{i}"] = parameter.new_empty(-(-numel // 256), dtype=torch.float32)


class _Grouped(torch.autograd.Function):  # type: ignore[misc]
    """Products of rows with the matrix of their group, which fake tensors know in bfloat16 only."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        ctx.save_for_backward(weight, *([x] if ctx.needs_input_grad[1] else []))
        return x.new_empty(x.shape[0], weight.shape[-1])

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        weight = ctx.saved_tensors[0]
        below = gradient.new_empty(gradient.shape[0], weight.shape[-2])
        return below, torch.empty_like(weight) if ctx.needs_input_grad[1] else None


def grouped(x: Any, weight: Any, **rest: Any) -> Any:
    """torch.nn.functional.grouped_mm."""
    return _Grouped.apply(x, weight)


class _Dropout(torch.autograd.Function):  # type: ignore[misc]
    """CUDA's: a mask of one byte a number."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(torch.empty_like(x, dtype=torch.bool))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return torch.empty_like(gradient)


def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """torch's functional dropout."""
    return _Dropout.apply(x) if training and p > 0 else x


def layer_norm(original: Any) -> Any:
    """torch's layer_norm as CUDA's autocast runs it: in float32, whose result it leaves so."""

    def forward(x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
        if not torch.is_autocast_enabled("cpu"):
            return original(x, shape, weight, bias, eps)
        wide = [None if t is None else t.float() for t in (weight, bias)]
        return original(x.float(), shape, *wide, eps)

    return forward
