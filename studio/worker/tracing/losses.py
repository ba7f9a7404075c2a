"""The loss of a batch whose every token counts, in each way it is computed; see `core/memory/heads`.

In: a model, token ids. Out: a loss to call backward on, and what the training loop keeps until then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from studio.core.memory.practice import Habits, Practice, written

_TILE_ROWS, _TILE_COLUMNS = 4096, 32768
_CPU_ROWS, _TRL_ROWS = 2048, 256
_UNCAST = ("gpt2", "gpt_bigcode", "gpt_neox", "falcon")


def loss_of(model: Any, inputs: dict[str, Any], practice: Practice, habits: Habits, cuda: bool) -> tuple[Any, Any]:
    """(loss, what is held)."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if practice.loss in ("fused", "liger", "pieces"):
        hidden = base.base_model(**inputs).last_hidden_state
        head = base.get_output_embeddings().weight
        if not cuda or practice.loss == "pieces":
            return _pieces(hidden[:, :-1].reshape(-1, hidden.shape[-1]), head, cuda), None
        if practice.loss == "liger":
            return _Liger.apply(hidden.reshape(-1, hidden.shape[-1]), head), None
        compute = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
        scored = hidden[:, :-1].clone().reshape(-1, hidden.shape[-1])
        del hidden
        return _Fused.apply(scored, head, compute).sum(), None
    return _from_logits(model, base, inputs, practice, habits)


def _from_logits(model: Any, base: Any, inputs: dict[str, Any], practice: Practice, habits: Habits) -> tuple[Any, Any]:
    read: list[Any] = []  # the model's own forward holds its head's input until the loss is there
    hook = base.get_output_embeddings().register_forward_pre_hook(lambda module, given: read.append(given[0]))
    logits = model(**inputs).logits
    hook.remove()
    fast, way = practice.loss == "fast", practice.loss
    if fast:
        way = "padded" if habits.loss in ("fused", "pieces") else habits.loss
    assert way is not None
    way = written(way, habits, base.config.model_type)
    uncast = base.config.model_type in _UNCAST and way == "shifted"
    kept = logits if way in ("kept", "padded") or uncast or practice.hold_logits else None
    if way == "chunked":
        loss = sum(_cross_entropy(part) for part in logits.chunk(8, dim=1))
        return loss, (logits if practice.hold_logits else None)
    wide = logits if uncast else logits.float()
    del logits
    moved = wide if way == "padded" else wide[:, :-1].contiguous()
    named = moved if uncast else None  # the model's own code has it under a name until its loss is there
    if moved.dtype != torch.float32 and torch.is_autocast_enabled("cpu"):
        moved = moved.float()
    if fast:
        return _Overwriting.apply(moved).sum(), None
    loss = _cross_entropy(moved)
    del moved, wide, named
    if habits.metrics and kept is not None:
        seen = kept.float() if torch.is_autocast_enabled("cpu") else kept
        shifted = seen[:, :-1].contiguous()
        del shifted, seen
    elif torch.is_autocast_enabled("cpu") and kept is not None:
        copied = kept.float()  # accelerate hands its caller float32
        del copied
    return loss, (kept if practice.hold_logits else None)


def _cross_entropy(logits: Any) -> Any:
    flat = logits.reshape(-1, logits.shape[-1])
    labels = torch.zeros(flat.shape[0], dtype=torch.long)
    with torch.autocast("cpu", enabled=False):
        return functional.cross_entropy(flat, labels)


class _Overwriting(torch.autograd.Function):  # type: ignore[misc]
    """Logits that become their gradient where they lie."""

    @staticmethod
    def forward(ctx: Any, logits: Any) -> Any:
        ctx.save_for_backward(logits, logits.new_empty(logits.shape[:-1], dtype=torch.float32))
        return logits.new_empty(logits.shape[:-1], dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return ctx.saved_tensors[0]


class _Fused(torch.autograd.Function):  # type: ignore[misc]
    """TRL's ChunkedLogProbFunction (trl/kernels/chunked_logprob.py), a tile at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, compute: Any) -> Any:
        tokens = hidden.shape[0]
        running = hidden.new_empty(7, tokens, dtype=torch.float32)
        tile, converted = _tile(hidden, weight, compute)
        del tile, converted, running
        kept = [hidden.new_empty(tokens, dtype=torch.float32) for _ in range(3)]
        ctx.save_for_backward(hidden, weight, *kept)
        ctx.compute = compute
        return hidden.new_empty(tokens, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        hidden, weight, *_ = ctx.saved_tensors
        below = torch.empty_like(hidden, dtype=torch.float32)
        above = torch.empty_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        tile, converted = _tile(hidden, weight, ctx.compute)
        del tile, converted
        return below.to(hidden.dtype), None if above is None else above.to(weight.dtype), None


def _tile(hidden: Any, weight: Any, compute: Any) -> Any:
    rows, columns = min(hidden.shape[0], _TILE_ROWS), min(weight.shape[0], _TILE_COLUMNS)
    tile = hidden.new_empty(rows, _TILE_COLUMNS, dtype=compute)
    converted = [t[:n].to(compute) for t, n in ((hidden, rows), (weight, columns)) if t.dtype != compute]
    return tile, converted


class _Liger(torch.autograd.Function):  # type: ignore[misc]
    """Liger's fused linear cross entropy: gradients are made in the forward pass, rows in chunks."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any) -> Any:
        tokens, width = hidden.shape
        chunks = -(-weight.shape[0] // width)
        rows = 1 << max(0, (-(-tokens // chunks) - 1).bit_length())
        below = torch.empty_like(hidden)
        above = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        losses = hidden.new_empty(tokens, dtype=torch.float32)
        logits = hidden.new_empty(min(rows, tokens), weight.shape[0])
        product = torch.empty_like(weight) if above is not None else None
        del logits, product, losses
        ctx.save_for_backward(below, *([above] if above is not None else []))
        return hidden.new_empty((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        below, *above = ctx.saved_tensors
        return below, above[0] if above else None


def _pieces(hidden: Any, head: Any, cuda: bool) -> Any:
    """The studio's own on a processor (worker/trainers.py), or TRL's of 1.6 to 1.14."""
    from torch.utils.checkpoint import checkpoint

    def piece(states: Any) -> Any:
        return _cross_entropy(functional.linear(states, head).float())

    scored = hidden.clone()
    if scored.shape[0] <= _CPU_ROWS and not cuda:
        return piece(scored)
    parts = scored.split(_TRL_ROWS if cuda else _CPU_ROWS)
    return torch.stack([checkpoint(piece, part, use_reentrant=False) for part in parts]).sum()
