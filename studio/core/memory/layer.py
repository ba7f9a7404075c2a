"""One decoder layer, in the order its modelling code runs.

In: a Run, a Layer of the shape, the stream of hidden states. Out: the stream after it. What sets architectures apart
is read from the layer's own tensors and the model's type. Gradient checkpointing stands here too.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory import generic, litgpt, ops
from studio.core.memory.attention import Heads, attend, rotary
from studio.core.memory.feedforward import feed_forward
from studio.core.memory.linear import linear
from studio.core.memory.norms import norm
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor
from studio.core.shapes import Layer, Matrix

# Attention and feed-forward both read the layer's input, and both are added to it.
_PARALLEL = ("phi", "falcon", "gpt_neox")
_SCALED = ("granite", "granitemoe")  # what is added to the stream is multiplied first
_UNTURNED = ("gpt2", "gpt_bigcode")


def layer(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """The layer, kept for its backward pass or, with gradient checkpointing, computed again in it."""
    tape = run.tape
    if not (run.checkpointing and tape.recording):
        return body(run, plan, x)
    tape.recording = False
    out = body(run, plan, x)
    tape.recording = True
    return tape.result(out, (x,), _again, (run, plan, x, run.layer))


def _again(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, plan, x, index = saved
    run.layer, before, run.casts = index, run.casts, {} if run.amp else None
    inner = tape.root(x.view())
    below = len(tape.nodes)
    out = body(run, plan, inner)
    run.casts = before
    held = out.storage if run.reentrant else None
    kept = gradient if run.reentrant else None
    last = Tensor(out.numel, out.item, None, out.node)  # the newer kind drops the layer's result at once
    del out
    tape.backward(last, gradient, below)
    run.kept.clear()
    del held, kept
    assert inner.node is not None
    return (inner.node.pending,)


def body(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """The layer itself."""
    if not generic.known(run, plan):
        return generic.body(run, plan, x)
    kind = run.shape.model_type
    names = [path for path, _ in plan.small]
    first = _first(names, "input_layernorm", "ln_1", "ln_attn")
    second = _first(names, "pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "ln_mlp")
    four = "pre_feedforward_layernorm" in names
    behind = (
        "post_feedforward_layernorm" in names and first is None
    )  # OLMo 2: what is added is normed, not what is read
    read = norm(run, x) if first or kind == "olmo" else x
    if kind in _PARALLEL and not (kind == "gpt_neox" and run.shape.config.get("use_parallel_residual") is False):
        other = norm(run, x) if second else read
        return ops.add(run.tape, ops.add(run.tape, feed_forward(run, plan, other), attention(run, plan, read)), x)
    mixed = attention(run, plan, read)
    del read
    x = _onto(run, x, norm(run, mixed) if four or behind else mixed)
    del mixed
    read = norm(run, x) if not behind and (second or kind == "olmo") else x
    mixed = feed_forward(run, plan, read)
    del read
    return _onto(run, x, norm(run, mixed) if four or behind else mixed)


def _first(names: list[str], *wanted: str) -> str | None:
    return next((name for name in wanted if name in names), None)


def _onto(run: Run, stream: Tensor, mixed: Tensor) -> Tensor:
    if run.shape.model_type in _SCALED:
        mixed = ops.scaled(run.tape, mixed)
    return ops.add(run.tape, stream, mixed)


def attention(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """Projections, positions, attention and the output projection."""
    if run.habits.program == "litgpt":
        return litgpt.attention(run, plan, x)
    if plan.find("kv_b_proj"):
        return _latent(run, plan, x)
    shape = run.shape
    heads = Heads(shape.heads, shape.kv_heads, shape.head_dim, shape.head_dim)
    query, key, value = _projected(run, plan, x, heads)
    del x
    names = [path for path, _ in plan.small]
    if any(name.endswith("q_norm") for name in names):
        query, key = norm(run, query), norm(run, key)
    if shape.model_type not in _UNTURNED:
        query, key = rotary(run, query), rotary(run, key)
    mixed = attend(run, query, key, value, heads)
    del query, key, value
    out = linear(run, _output(plan), mixed)
    return ops.dropout(run.tape, out, run.own_dropout("resid_pdrop"))


def _projected(run: Run, plan: Layer, x: Tensor, heads: Heads) -> tuple[Tensor, Tensor, Tensor]:
    fused = plan.find("qkv_proj", "c_attn", "query_key_value")
    if fused is None:
        found = [plan.find(name) for name in ("q_proj", "k_proj", "v_proj")]
        query, key, value = (linear(run, matrix, x) for matrix in found if matrix)
        return query, key, value
    whole = linear(run, fused, x)
    if run.shape.model_type in run.habits.caches and not run.tape.recording:
        run.cache.append(whole.view())  # keys and values are a part of it, and keep all of it
    sizes = (heads.number * heads.size, heads.kv * heads.size, heads.kv * heads.value)
    query, key, value = ops.split(run.tape, whole, tuple(run.tokens * size for size in sizes))
    return query, key, value


def _output(plan: Layer) -> Matrix:
    found = plan.find("o_proj", "attn.c_proj", "self_attn.dense", "attention.dense", "self_attention.dense", "out_proj")
    assert found is not None, "an attention without an output projection"
    return found


def _latent(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """DeepSeek's attention: keys and values unpacked from one short vector a token."""
    shape, tape, config = run.shape, run.tape, run.shape.config
    plain, turned, width = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    heads = Heads(shape.heads, shape.heads, plain + turned, width)
    whole = plan.find("q_proj")
    first, second = plan.find("q_a_proj"), plan.find("q_b_proj")
    if whole:
        query = linear(run, whole, x)
    else:
        assert first and second
        query = linear(run, second, norm(run, linear(run, first, x)))
    down, up = plan.find("kv_a_proj_with_mqa"), plan.find("kv_b_proj")
    assert down and up
    packed = linear(run, down, x)
    del x
    unpacked = linear(run, up, norm(run, Tensor(run.tokens * up.inp, packed.item, packed.storage, packed.node)))
    value = Tensor(run.tokens * shape.heads * width, unpacked.item, unpacked.storage, unpacked.node)
    numel = run.tokens * shape.heads * (plain + turned)
    # the turned part is put beside the plain one again, in queries and keys
    query = tape.result(tape.new(numel, query.item), (query,), ops.scaled_back)
    key = tape.result(tape.new(numel, unpacked.item), (unpacked,), ops.scaled_back)
    mixed = attend(run, query, key, value, heads)
    del query, key, value, unpacked, packed
    return linear(run, _output(plan), mixed)
