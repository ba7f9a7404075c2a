"""Norms: transformers' own RMS norm in its seven steps, torch's layer norm in one.

In: a Run, a tensor. Out: it normed. What is kept follows modeling_llama.py (LlamaRMSNorm), modeling_gemma.py and
aten's native_layer_norm.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory import ops
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor

# Norms whose weight is applied in float32, before the result is cast back.
_WIDE = ("gemma", "olmo2", "olmo3")
_LAYER_NORMS = ("gpt2", "gpt_bigcode", "gpt_neox", "phi", "falcon", "olmo")


def norm(run: Run, x: Tensor) -> Tensor:
    """x normed over its last dimension."""
    kind = run.shape.model_type
    if kind in _LAYER_NORMS:
        return _layer_norm(run, x)
    if run.practice.compiled:
        return ops.layer_norm(run.tape, x, run.shape.hidden)
    tape, given = run.tape, x.item
    wide = tape.new(x.numel, 4) if given != 4 else x
    squares = tape.new(x.numel, 4)
    del squares
    scaled = tape.new(x.numel, 4)
    if kind.startswith(_WIDE):  # multiplied in float32, then cast
        last, item = tape.new(x.numel, 4), 4
        kept = scaled if run.tunes_norms else None
        out = tape.new(x.numel, given) if given != 4 else last
    else:
        narrow = tape.new(x.numel, given) if given != 4 else scaled
        del scaled
        item = max(given, run.norm_item)
        out = tape.new(x.numel, item)
        kept = narrow if run.tunes_norms else None
    return tape.result(out, (x,), _norm_back, (wide, kept, given, item, run.tunes_norms))


def _norm_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    _wide, _kept, given, item, trained = saved
    numel = gradient.numel
    if gradient.item != item:
        gradient = tape.new(numel, item)
    passed = tape.new(numel, item)
    if trained:
        weighted = tape.new(numel, item)
        del weighted
    if item != given:
        passed = tape.new(numel, given)
    if given != 4:
        passed = tape.new(numel, 4)
    below = tape.new(numel, 4)
    inverse = tape.new(numel, 4)
    del inverse, passed
    spread, power = tape.new(numel, 4), tape.new(numel, 4)
    del spread, power
    return (below if given == 4 else tape.new(numel, given),)


def _layer_norm(run: Run, x: Tensor) -> Tensor:
    """torch's kernel; under autocast it works in float32 and leaves its result so."""
    if run.amp and run.shape.model_type != "olmo":
        return ops.layer_norm(run.tape, ops.cast(run.tape, x, 4), run.shape.hidden)
    if run.shape.model_type == "olmo":
        given = x.item
        return ops.cast(run.tape, ops.layer_norm(run.tape, ops.cast(run.tape, x, 4), run.shape.hidden), given)
    return ops.layer_norm(run.tape, x, run.shape.hidden)
