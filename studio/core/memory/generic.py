"""A decoder layer of no known kind, gone through by its matrices alone.

In: a Run, a Layer, the stream. Out: the stream after it. Each matrix reads the normed stream, or the last result that
is as wide as what it reads; what is as wide as the stream is added to it. Keeps what such products and activations
keep; what the layer does between them (states, convolutions, routing) isn't known here.
"""

from __future__ import annotations

from studio.core.architectures import TENSORS
from studio.core.memory import ops
from studio.core.memory.linear import linear
from studio.core.memory.norms import norm
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor
from studio.core.shapes import Layer

_OUTPUTS = ("o_proj", "attn.c_proj", "self_attn.dense", "attention.dense", "self_attention.dense", "out_proj")
_FUSED = ("qkv_proj", "c_attn", "query_key_value", "kv_b_proj")
_DOWN = ("down_proj", "mlp.c_proj", "fc2", "dense_4h_to_h", "output_linear")
_UP = ("gate_up_proj", "input_linear", "mlp.c_fc", "fc1", "dense_h_to_4h")


def known(run: Run, plan: Layer) -> bool:
    """Whether `layer` knows this kind: by its architecture, or because its parts have the names it looks for."""
    if run.shape.model_type in TENSORS:
        return True
    if any(matrix.count > 1 for matrix in plan.matrices) or not plan.find(*_OUTPUTS):
        return False
    attends = plan.find(*_FUSED) or all(plan.find(name) for name in ("q_proj", "k_proj", "v_proj"))
    gated = plan.find("gate_proj") and plan.find("up_proj")
    return bool(attends and plan.find(*_DOWN) and (gated or plan.find(*_UP)))


def body(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """The layer, matrix by matrix."""
    tape = run.tape
    read = norm(run, x)
    last: dict[int, Tensor] = {run.shape.hidden: read}
    for matrix in plan.matrices:  # many alike, a mixture's experts or a convolution's kernels, share the rows out
        given = last.get(matrix.inp)
        if given is None:
            numel = run.tokens * matrix.inp
            given = tape.result(tape.new(numel, read.item), (read,), _resized, read)
        made = linear(run, matrix, given)
        if matrix.out == run.shape.hidden:
            x = ops.add(tape, x, made)
        else:
            last[matrix.out] = ops.pointwise(tape, made)
    return x


def _resized(tape: Tape, gradient: Tensor, read: Tensor) -> tuple[Tensor]:
    return (tape.new(read.numel, read.item),)
