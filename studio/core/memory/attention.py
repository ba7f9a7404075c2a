"""Attention, by the way it is computed.

In: a Run, queries, keys and values as tensors of `tape`. Out: what each token gathered. Buffers are those of
flash-attention 2 (csrc/flash_attn/flash_api.cpp, mha_bwd), of torch's memory-efficient kernel where a mask is given
(aten/native/transformers/cuda/attention_backward.cu), and of the plain formula in transformers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from studio.core.memory import ops
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor

_BLOCK = 128  # rows that flash-attention's backward rounds up to


class Heads(NamedTuple):
    """`size` numbers in a head of a query or key, `value` in one of a value."""

    number: int
    kv: int
    size: int
    value: int


def rotary(run: Run, x: Tensor) -> Tensor:
    """x * cos + rotate_half(x) * sin, in transformers' five steps; the cosines are shared and small."""
    tape = run.tape
    if run.practice.compiled:
        return ops.scaled(tape, x)
    plain = tape.new(x.numel, x.item)
    half = tape.new(x.numel // 2, x.item)
    turned = tape.new(x.numel, x.item)
    del half
    moved = tape.new(x.numel, x.item)
    del turned
    out = tape.new(x.numel, x.item)
    del plain, moved
    return tape.result(out, (x,), _rotary_back)


def _rotary_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    moved = tape.new(gradient.numel, gradient.item)
    half = tape.new(gradient.numel // 2, gradient.item)
    total = tape.new(gradient.numel, gradient.item)  # a slice's gradient is as large as what it was cut from
    second = tape.new(gradient.numel, gradient.item)
    del half, second, moved
    plain = tape.new(gradient.numel, gradient.item)
    del plain
    return (total,)


def attend(run: Run, query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Tensor:
    """The attention's result: `heads.number * heads.value` numbers a token."""
    if run.attention == "eager":
        return plain(run, query, key, value, heads)
    if copies(run, heads):
        key, value = (_repeated(run, x, heads) for x in (key, value))
        heads = heads._replace(kv=heads.number)
    given = query.item
    if given == 4 and run.cuda and run.attention.startswith("flash"):
        query, key, value = (ops.cast(run.tape, x, 2) for x in (query, key, value))
    elif run.amp:
        query, key, value = (ops.cast(run.tape, x, run.amp) for x in (query, key, value))
    if heads.value != heads.size and run.attention.startswith("flash"):
        value = _padded(run, value, heads)
    return _kernel(run, query, key, value, heads)


def copies(run: Run, heads: Heads) -> bool:
    """Whether keys and values are copied for each head that shares them."""
    if run.attention == "sdpa":
        return run.practice.masked or run.habits.repeat_kv or heads.size != heads.value or heads.size > 256
    return run.shape.model_type in run.habits.repeat_kv_flash


def _repeated(run: Run, x: Tensor, heads: Heads) -> Tensor:
    if heads.kv == heads.number:
        return x
    out = run.tape.new(x.numel // heads.kv * heads.number, x.item)
    return run.tape.result(out, (x,), _repeated_back, x.numel)


def _repeated_back(tape: Tape, gradient: Tensor, numel: int) -> Gradients:
    return (tape.new(numel, gradient.item),)


def _padded(run: Run, value: Tensor, heads: Heads) -> Tensor:
    out = run.tape.new(value.numel // heads.value * heads.size, value.item)
    return run.tape.result(out, (value,), _repeated_back, value.numel)


def _kernel(run: Run, query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Tensor:
    tape = run.tape
    bias = None
    if run.attention == "sdpa" and run.practice.masked:
        # the mask becomes numbers, each time anew
        bias = tape.new(run.rows * run.length * run.length, query.item, "attention")
    out = tape.new(run.tokens * heads.number * heads.value, query.item)
    sums = tape.new(run.tokens * heads.number, 4)
    saved = (run, query, key, value, out, sums, bias, heads)
    return tape.result(out, (query, key, value), _kernel_back, saved)


def _kernel_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, query, key, value, _out, _sums, bias, heads = saved
    below = tuple(tape.new(x.numel, x.item) for x in (query, key, value))
    if not run.cuda:
        return below
    rows = run.rows * -(-run.length // _BLOCK) * _BLOCK
    size = heads.size if heads.size <= 128 else -(-heads.size // 32) * 32
    sums = tape.new(rows * heads.number, 4, "attention")
    gathered = tape.new(rows * heads.number * size, 4, "attention")
    if heads.kv != heads.number and bias is None:
        whole = tuple(tape.new(run.tokens * heads.number * n, query.item, "attention") for n in heads[2:])
        del whole
    del sums, gathered
    return below


def plain(run: Run, query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Tensor:
    """Scores, mask, softmax in float32, product, as transformers writes it out: every score is there, several times."""
    tape, item, part = run.tape, run.amp or query.item, run.tape.part
    query, key, value = (ops.cast(tape, x, item) for x in (query, key, value))
    key, value = (_repeated(run, x, heads) for x in (key, value))
    tape.part = "attention" if part == "activations" else part
    numel = run.rows * heads.number * run.length * run.length
    scores = tape.result(tape.new(numel, item), (query, key), _both_back, (query, key))
    scores = ops.scaled(tape, scores)
    if run.shape.config.get("attn_logit_softcapping"):
        scores = ops.scaled(tape, ops.tanh(tape, ops.scaled(tape, scores)))
    masked = ops.same(tape, scores)
    del scores
    shares = ops.tanh(tape, ops.cast(tape, masked, 4))  # softmax too keeps its result
    del masked
    used = ops.cast(tape, shares, item)
    del shares
    tape.part = part
    out = tape.new(run.tokens * heads.number * heads.value, item)
    return tape.result(out, (used, value), _both_back, (used, value))


def _both_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return tuple(tape.new(x.numel, x.item) for x in saved)
