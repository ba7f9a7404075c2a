"""From the last hidden states to the loss, in each way it is computed.

In: a Run, the stream after the last layer. Out: the loss, on the tape. The ways: `fused` is TRL's since 1.16
(trl/kernels/chunked_logprob.py), which never builds the logits; `padded`, `kept` and `shifted` are transformers' from
4.50, 4.46 and before; `fast` and `liger` are kernels that overwrite logits with their gradient; `chunked` splits rows.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory import litgpt, ops
from studio.core.memory.linear import product
from studio.core.memory.norms import norm
from studio.core.memory.ops import Gradients
from studio.core.memory.practice import written
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor
from studio.core.shapes import Matrix

_TILE_ROWS, _TILE_COLUMNS = 4096, 32768  # chunked_logprob.py: TOKEN_CHUNK_SIZE; trl/trainer/utils.py: chunk size
_CPU_ROWS = 2048  # worker/trainers.py: rows of logits held at once on a processor
_TRL_ROWS = 256  # trl/trainer/sft_trainer.py of 1.6 to 1.14, `_CHUNKED_LM_HEAD_CHUNK_SIZE`
# Models whose code gave the logits to the loss as they are, without float32, until the common loss function came.
_UNCAST = ("gpt2", "gpt_bigcode", "gpt_neox", "falcon")


def embed(run: Run) -> Tensor:
    """The stream before the first layer."""
    tape, width = run.tape, run.shape.hidden
    out = tape.new(run.tokens * width, run.outer_item)
    if run.full:
        tape.result(out, (tape.root(Tensor(0, 1, None)),), _embed_back, run)
    elif run.habits.program == "transformers" and (run.checkpointing or run.quant):  # enable_input_require_grads
        tape.root(out)
    if run.shape.model_type in ("gpt2", "gpt_bigcode"):
        out = ops.add(tape, out, Tensor(run.tokens * width, run.outer_item, None))
        out = ops.dropout(tape, out, run.own_dropout("embd_pdrop"))
    if run.shape.model_type.startswith(("gemma", "granite")):
        out = ops.scaled(tape, out)
    return out


def _embed_back(tape: Tape, gradient: Tensor, run: Run) -> Gradients:
    embedding = run.shape.embedding
    run.layer = -1
    run.gradient("embedding", embedding.numel if embedding else 0, run.outer_item)
    return ()


def loss(run: Run, stream: Tensor) -> Tensor:
    """Summed loss of all tokens; `stream` should be given away, so that it can go when it is no longer needed."""
    hidden = norm(run, stream)
    del stream
    out = _loss(run, hidden)
    run.cache.clear()  # the model's answer, in which the cache is, goes when its loss is taken out of it
    return out


def _loss(run: Run, hidden: Tensor) -> Tensor:
    way = run.practice.loss
    if run.habits.program == "litgpt":
        return litgpt.loss(run, hidden)
    if way == "pieces" or (way == "fused" and not run.cuda and run.supervised):
        return _pieces(run, hidden)
    if way in ("fused", "liger"):
        return (_fused if way == "fused" else _liger)(run, hidden)
    return _from_logits(run, hidden)


def _head(run: Run) -> Matrix:
    return Matrix("head", run.shape.vocabulary, run.shape.hidden)


def _trained(run: Run) -> bool:
    return run.full


def logits(run: Run, hidden: Tensor) -> Tensor:
    """The head's product, in the part of that name."""
    run.layer = -1
    matrix = _head(run)
    if run.shape.head is None:  # tied: its gradient is the embedding's
        matrix = Matrix("embedding", matrix.out, matrix.inp)
    x = hidden if run.amp or hidden.item == run.outer_item else ops.cast(run.tape, hidden, run.outer_item)
    part, run.tape.part = run.tape.part, "logits"
    out = product(run, matrix, x, run.outer_item, _trained(run))
    if run.shape.model_type in ("granite", "granitemoe", "cohere"):
        out = ops.scaled(run.tape, out)
    if run.shape.config.get("final_logit_softcapping"):
        capped = ops.scaled(run.tape, out)
        del out
        out = ops.scaled(run.tape, ops.pointwise(run.tape, capped))
    run.tape.part = part
    return out


def _from_logits(run: Run, hidden: Tensor) -> Tensor:
    tape, way, kind = run.tape, run.practice.loss, run.shape.model_type
    assert way is not None
    fast = way == "fast"
    if fast:  # only the last step is another than the library's own
        way = "padded" if run.habits.loss in ("fused", "pieces") else run.habits.loss
    way = written(way, run.habits, kind)
    scores = logits(run, hidden)
    tape.part = "logits"
    if way == "chunked":
        return _chunked(run, scores)
    uncast = kind in _UNCAST and way == "shifted"
    kept = scores if way in ("kept", "padded") or uncast or run.practice.hold_logits else None
    wide = scores if uncast else ops.cast(tape, scores, 4)
    del scores
    moved = wide if way == "padded" else ops.cut(tape, wide)
    named = moved if uncast else None  # the model's own code has it under a name until its loss is there
    if moved.item != 4 and run.amp:  # autocast runs cross entropy in float32
        moved = ops.cast(tape, moved, 4)
    if fast:
        return _overwriting(run, moved)
    shares = tape.new(moved.numel, moved.item)
    out = tape.result(tape.new(1, 4), (moved,), _cross_entropy_back, shares)
    del moved, wide, named
    if run.habits.metrics and kept is not None:
        seen = ops.cast(tape, kept, 4) if run.amp else kept
        shifted = tape.new(seen.numel, seen.item)
        del shifted, seen
    elif run.amp and kept is not None and kept.item != 4:
        copied = tape.new(kept.numel, 4)  # accelerate hands its caller float32
        del copied
    tape.part = "activations"
    if run.practice.hold_logits:
        out.storage = kept.storage if kept else out.storage
    return out


def _chunked(run: Run, logits: Tensor) -> Tensor:
    """Logits whole, their loss in chunks (LitGPT, torchtune): each chunk keeps its shares in the logits' own format."""
    tape = run.tape
    shares = None if run.practice.compiled else tape.new(logits.numel, logits.item)
    tape.part = "activations"
    saved = (logits, shares) if run.practice.compiled else (None, shares)
    return tape.result(tape.new(run.tokens, 4), (logits,), _chunked_back, (saved, logits.numel, logits.item))


def _chunked_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    picked = tape.new(saved[1] // 8, 4, "logits")
    below = tape.new(saved[1], saved[2], "logits")
    del picked
    return (below,)


def _cross_entropy_back(tape: Tape, gradient: Tensor, shares: Tensor) -> Gradients:
    picked = tape.new(shares.numel, shares.item, "logits")
    below = tape.new(shares.numel, shares.item, "logits")
    del picked
    return (below,)


def _overwriting(run: Run, logits: Tensor) -> Tensor:
    """A kernel that turns the logits into their gradient where they lie (Unsloth's, after Triton's example)."""
    tape = run.tape
    sums = tape.new(run.tokens, 4)
    tape.part = "activations"
    return tape.result(tape.new(run.tokens, 4), (logits,), _given, (logits, sums))


def _given(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    logits: Tensor = saved[0]
    return (Tensor(logits.numel, logits.item, logits.storage),)


def _fused(run: Run, hidden: Tensor) -> Tensor:
    tape, width = run.tape, run.shape.hidden
    compute = run.amp or hidden.item
    scored = tape.result(tape.new(hidden.numel, hidden.item), (hidden,), _scattered)
    del hidden
    running = tape.new(7 * run.tokens, 4)
    tile = _tile(run, compute)
    converted = _tile_inputs(run, scored, compute)
    folded = _folded(run, compute, 3)  # scaled, their distance from the highest, raised
    del tile, converted, running, folded
    kept = tape.new(3 * run.tokens, 4)
    trained = tape.root(Tensor(0, 1, None)) if run.full else None
    saved = (run, scored, kept, compute, width)
    return tape.result(tape.new(run.tokens, 4), (scored, trained), _fused_back, saved)


def _scattered(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return (tape.new(gradient.numel, gradient.item),)


def _tile(run: Run, item: int) -> Tensor:
    return run.tape.new(min(run.tokens, _TILE_ROWS) * _TILE_COLUMNS, item, "logits")


def _folded(run: Run, compute: int, copies: int) -> list[Tensor]:
    """What folding a tile takes where there is no Triton (`_forward_tile`, `_backward_tile`): float32 copies of it."""
    if run.cuda:
        return []
    numel = min(run.tokens, _TILE_ROWS) * min(run.shape.vocabulary, _TILE_COLUMNS)
    made = [run.tape.new(numel, 4, "logits") for _ in range(copies)]
    if compute != 4:
        made.append(run.tape.new(numel, 4, "logits"))
    return [*made, run.tape.new(numel, 1, "logits")]


def _tile_inputs(run: Run, hidden: Tensor, compute: int) -> list[Tensor]:
    """The head's rows and the hidden states of one tile, where they have to be converted."""
    width = run.shape.hidden
    made = []
    if hidden.item != compute:
        made.append(run.tape.new(min(run.tokens, _TILE_ROWS) * width, compute, "logits"))
    if run.outer_item != compute:
        made.append(run.tape.new(min(run.shape.vocabulary, _TILE_COLUMNS) * width, compute, "logits"))
    return made


def _fused_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, hidden, _kept, compute, width = saved
    below = tape.new(hidden.numel, 4, "logits")
    weight = tape.new(run.shape.vocabulary * width, 4, "logits") if run.full else None
    tile = _tile(run, compute)
    converted = _tile_inputs(run, hidden, compute)
    folded = _folded(run, compute, 7)  # scaled twice, their logarithm, shares, the gradient, two of its terms
    del tile, converted, folded
    if below.item != hidden.item:
        below = tape.new(hidden.numel, hidden.item)
    if weight is not None:
        run.layer = -1
        run.gradient("embedding" if run.shape.head is None else "head", weight.numel, run.outer_item)
    return below, None


def _liger(run: Run, hidden: Tensor) -> Tensor:
    """Liger's fused linear cross entropy: rows in chunks, gradients computed in the forward pass."""
    tape, width, vocabulary = run.tape, run.shape.hidden, run.shape.vocabulary
    chunks = -(-vocabulary // width)
    rows = 1 << max(0, (-(-run.tokens // chunks) - 1).bit_length())
    below = tape.new(hidden.numel, hidden.item)
    weight = tape.new(vocabulary * width, run.outer_item, "gradients") if run.full else None
    losses = tape.new(run.tokens, 4)
    logits = tape.new(min(rows, run.tokens) * vocabulary, run.amp or hidden.item, "logits")
    product_ = tape.new(vocabulary * width, run.outer_item, "scratch") if run.full else None
    del logits, product_
    trained = tape.root(Tensor(0, 1, None)) if run.full else None
    return tape.result(losses, (hidden, trained), _liger_back, (run, below, weight))


def _liger_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, below, weight = saved
    if weight is not None:
        run.layer = -1
        run.gradients.setdefault("-1.embedding" if run.shape.head is None else "-1.head", weight.storage)
    return below, None


def _pieces(run: Run, hidden: Tensor) -> Tensor:
    """Scored rows only, piece by piece: the studio's own on a processor (worker/trainers.py), or TRL's of its day."""
    tape = run.tape
    scored = tape.result(tape.new(hidden.numel, hidden.item), (hidden,), _scattered)
    del hidden
    rows = min(run.tokens, _CPU_ROWS if not run.cuda else _TRL_ROWS)
    numel = rows * run.shape.vocabulary
    logits, shares = tape.new(numel, 4, "logits"), tape.new(numel, 4, "logits")
    kept = shares if run.tokens <= _CPU_ROWS and not run.cuda else None
    del logits, shares
    trained = tape.root(Tensor(0, 1, None)) if run.full else None
    return tape.result(tape.new(1, 4), (scored, trained), _pieces_back, (run, scored, kept, numel))


def _pieces_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, hidden, kept, numel = saved
    shares = kept or tape.new(numel, 4, "logits")
    picked, passed = tape.new(numel, 4, "logits"), tape.new(numel, 4, "logits")
    del shares, picked
    below = tape.new(hidden.numel, hidden.item)
    if run.full:
        run.layer = -1
        key = "embedding" if run.shape.head is None else "head"
        run.gradient(key, run.shape.vocabulary * run.shape.hidden, run.outer_item)
    del passed
    return below, None
