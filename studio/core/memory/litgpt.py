"""LitGPT's own model and loss, for measurements that were made with it.

In: a Run whose habits say `litgpt`, a Layer, the normed stream. Out: what its code allocates, on the tape. Read in
litgpt 0.4.0 and in the lit_gpt of autumn 2023: model.py, lora.py, utils.py (chunked_cross_entropy), finetune/*.py, and
lightning_fabric's plugins/precision (half.py, bitsandbytes.py): queries, keys and values are one matrix, the head is
never tied and quantized too, logits become float32 once the model has given them.
"""

from __future__ import annotations

from typing import Any

from studio.core.config import LoraAdapter
from studio.core.memory import ops
from studio.core.memory.attention import Heads, attend, plain
from studio.core.memory.linear import base, product, unpacked
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor
from studio.core.shapes import Layer, Matrix

_CHUNK = 128  # tokens of each row whose logits are made and scored at once
_FUSED = ("query_key_value", "qkv_proj", "c_attn")
_WORDS = {
    "query": ("q_proj", *_FUSED),
    "key": ("k_proj", *_FUSED),
    "value": ("v_proj", *_FUSED),
    "projection": ("o_proj", "dense", "out_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "dense_h_to_4h", "dense_4h_to_h"),
    "head": ("lm_head", "embed_out"),
}


def adapted(run: Run, word: str) -> bool:
    """Whether LoRA stands on this part of the model, in LitGPT's words or in those of the model's own matrices."""
    adapter = run.config.adapter
    if not isinstance(adapter, LoraAdapter):
        return False
    if isinstance(adapter.target_modules, str):
        return word != "head"
    return any(name in (word, *_WORDS[word]) for name in adapter.target_modules)


def _rank(run: Run) -> int:
    return run.config.adapter.r if isinstance(run.config.adapter, LoraAdapter) else 0


def head(run: Run) -> Matrix:
    """The head as a matrix: its words times the hidden states' numbers."""
    return Matrix("lm_head", run.shape.vocabulary, run.shape.hidden)


def adapters(run: Run, plan: Layer) -> list[int]:
    """Numbers in each adapter matrix of a layer."""
    rank, found = _rank(run), []
    shown = _shown(run, _sizes(run))
    if shown:
        found += [rank * len(shown) * run.shape.hidden, rank * sum(shown)]
    rest = [_output(plan)] if adapted(run, "projection") else []
    rest += list(_inner(plan)) if adapted(run, "mlp") else []
    return found + [rank * numbers for matrix in rest for numbers in (matrix.inp, matrix.out)]


def head_adapters(run: Run) -> list[int]:
    """Numbers in the head's adapter matrices."""
    rank = _rank(run)
    return [rank * run.shape.hidden, rank * run.shape.vocabulary] if adapted(run, "head") else []


def trained(run: Run) -> list[tuple[int, int, int]]:
    """Numbers, bytes of each, how many of them: every adapter matrix."""
    found = [(numel, run.adapter_item, 1) for numel in head_adapters(run)]
    return found + [(n, run.adapter_item, times) for plan, times, _ in run.layer_rows() for n in adapters(run, plan)]


# -- attention --------------------------------------------------------------------------------------------------------


def _sizes(run: Run) -> tuple[int, int, int]:
    shape = run.shape
    return shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim


def _shown(run: Run, sizes: tuple[int, int, int]) -> list[int]:
    """Of queries, keys and values those with an adapter."""
    return [size for word, size in zip(("query", "key", "value"), sizes, strict=True) if adapted(run, word)]


def attention(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """Projections, positions, attention and the output projection."""
    tape, shape, sizes = run.tape, run.shape, _sizes(run)
    whole = _projected(run, plan, x, sizes)
    del x
    query, key, value = ops.split(tape, whole, tuple(run.tokens * size for size in sizes))
    del whole
    full = run.tokens * sizes[0]
    if 1 < shape.kv_heads < shape.heads:  # groups are laid out together: taking them apart copies
        query, key, value = (_expanded(tape, part, full) for part in (query, key, value))
    query, key = (_turned(run, part, full) for part in (query, key))
    heads = Heads(shape.heads, shape.heads, shape.head_dim, shape.head_dim)
    by_hand = shape.config.get("attn_logit_softcapping")
    mixed = (plain if by_hand else attend)(run, query, key, value, heads)
    del query, key, value
    return _linear(run, _output(plan), mixed, "projection")


def _projected(run: Run, plan: Layer, x: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """LoRAQKVLinear: one A, a convolution for B, whose result is put into zeros where not all three have an adapter."""
    tape, rank = run.tape, _rank(run)
    parts = [plan.find(name) for name in (*_FUSED, "q_proj", "k_proj", "v_proj")]
    biased = any(part.bias for part in parts if part)
    out = base(run, Matrix("attn.attn", sum(sizes), run.shape.hidden, biased), x)
    shown = _shown(run, sizes)
    if not shown:
        return out
    dropped = ops.dropout(tape, x, run.dropout)
    inner = product(run, Matrix("attn.lora_A", rank * len(shown), run.shape.hidden), dropped, run.adapter_item, True)
    del dropped, x
    made = tape.new(run.tokens * sum(shown), inner.item)
    if sizes[0] != sizes[1] and len(shown) > 1:  # parts of unequal size, joined
        made = tape.new(run.tokens * sum(shown), inner.item)
    more = tape.result(made, (inner,), _convolved_back, (run, inner, rank * sum(shown), run.layer))
    del inner, made
    if len(shown) < 3:
        more = tape.result(tape.new(out.numel, more.item), (more,), _placed_back, more)
    return ops.add(tape, out, ops.scaled(tape, more))


def _convolved_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, inner, numel, run.layer = saved[0], saved[1], saved[2], saved[3]
    run.gradient("attn.lora_B", numel, run.adapter_item)
    return (tape.new(inner.numel, inner.item),)


def _placed_back(tape: Tape, gradient: Tensor, source: Tensor) -> Gradients:
    return (tape.new(source.numel, source.item),)  # index_copy keeps what it copied from


def _expanded(tape: Tape, x: Tensor, full: int) -> Tensor:
    return tape.result(tape.new(full, x.item), (x,), _expanded_back, x.numel)


def _expanded_back(tape: Tape, gradient: Tensor, numel: int) -> Gradients:
    return (tape.new(numel, gradient.item),)


def _turned(run: Run, x: Tensor, full: int) -> Tensor:
    """apply_rope: cosines and sines are float32, so are both products and their sum; then cast, and joined again."""
    tape, config = run.tape, run.shape.config
    numel = int(full * float(config.get("partial_rotary_factor") or config.get("rotary_pct") or 1.0))
    rotated = tape.new(numel, x.item)
    first, second = tape.new(numel, 4), tape.new(numel, 4)
    del rotated
    total = tape.new(numel, 4)
    del first, second
    narrow = tape.new(numel, x.item)
    del total, narrow
    return tape.result(tape.new(full, x.item), (x,), _turned_back, (numel, x.numel))


def _turned_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    numel, given = saved
    wide, other = tape.new(numel, 4), tape.new(numel, 4)
    total = tape.new(given, gradient.item)
    del wide, other
    return (total,)


# -- feed-forward -----------------------------------------------------------------------------------------------------


def _output(plan: Layer) -> Matrix:
    found = plan.find("o_proj", "attn.c_proj", "self_attn.dense", "attention.dense", "self_attention.dense", "out_proj")
    assert found is not None, "an attention without an output projection"
    return found


def _inner(plan: Layer) -> tuple[Matrix, ...]:
    """fc_1, fc_2, proj of a gated part; fc, proj of a plain one."""
    down = plan.find("down_proj", "mlp.c_proj", "fc2", "dense_4h_to_h")
    assert down is not None, "a feed-forward part without an output projection"
    gate, up, both = plan.find("gate_proj"), plan.find("up_proj"), plan.find("gate_up_proj")
    if both:
        gate, up = (Matrix(name, both.out // 2, both.inp, both.bias) for name in ("mlp.fc_1", "mlp.fc_2"))
    if gate and up:
        return gate, up, down
    fc = plan.find("mlp.c_fc", "fc1", "dense_h_to_4h")
    assert fc is not None, "a feed-forward part of no known kind"
    return fc, down


def feed_forward(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """LLaMAMLP, GemmaMLP or GptNeoxMLP; activations are one kernel."""
    tape = run.tape
    first, *second, down = _inner(plan)
    opened = ops.pointwise(tape, _linear(run, first, x, "mlp"))
    if second:
        opened = ops.multiply(tape, opened, _linear(run, second[0], x, "mlp"))
    del x
    return _linear(run, down, opened, "mlp")


def _linear(run: Run, matrix: Matrix, x: Tensor, word: str) -> Tensor:
    """LoRALinear."""
    out = base(run, matrix, x)
    if not adapted(run, word):
        return out
    tape, rank = run.tape, _rank(run)
    dropped = ops.dropout(tape, x, run.dropout)
    inner = product(run, Matrix(matrix.path + ".lora_A", rank, matrix.inp), dropped, run.adapter_item, True)
    del dropped, x
    more = product(run, Matrix(matrix.path + ".lora_B", matrix.out, rank), inner, run.adapter_item, True)
    return ops.add(tape, out, ops.scaled(tape, more))


# -- loss -------------------------------------------------------------------------------------------------------------


def loss(run: Run, hidden: Tensor) -> Tensor:
    """The head in chunks of tokens where an adapter is trained, whole in full training; the loss always in chunks.

    Cross entropy of every chunk goes back before any chunk's head does, so all gradients of the logits lie there.
    """
    tape = run.tape
    tape.part, run.layer = "logits", -1
    logits = _linear(run, head(run), hidden, "head") if run.full else _chunks(run, hidden)
    held = wide = ops.cast(tape, logits, 4)
    del logits
    if run.full and run.rows > 1:  # without the last token, made contiguous
        wide = ops.cut(tape, wide)
    shares = tape.new(wide.numel, 4)
    tape.part = "activations"
    # the training loop has the logits under a name until its next step
    return tape.result(tape.new(run.tokens, 4), (wide,), _chunked_back, (run, shares, held))


def _chunks(run: Run, hidden: Tensor) -> Tensor:
    tape, matrix = run.tape, head(run)
    weight = unpacked(run, matrix) if run.quant else None
    out = tape.new(run.tokens * matrix.out, hidden.item)
    del weight
    kept = hidden if adapted(run, "head") or (run.quant and run.habits.saves_input_4bit) else None
    mask = tape.new(hidden.numel, 1) if adapted(run, "head") and run.dropout else None
    return tape.result(out, (hidden,), _chunks_back, (run, kept, mask, hidden.numel))


def _chunks_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, _kept, _mask, numel = saved
    weight = unpacked(run, head(run)) if run.quant else None
    pieces = tape.new(numel, gradient.item)
    del weight
    for index, numbers in enumerate(head_adapters(run)):
        run.gradient(f"lm_head.lora_{index}", numbers, run.adapter_item)
    del pieces
    return (tape.new(numel, gradient.item),)


def _chunked_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, shares, held = saved
    rows = run.rows * min(run.length, _CHUNK)
    picked, passed = (tape.new(rows * run.shape.vocabulary, 4, "logits") for _ in range(2))
    del picked, passed
    if run.full:  # chunks are views of one tensor, whose gradient they are joined to
        return (tape.new(shares.numel, 4, "logits"),)
    run.kept.append(held)
    return (shares,)  # each chunk's gradient takes its shares' place
