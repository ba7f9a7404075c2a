"""Linear layers: plain, held in 4 or 8 bits, with LoRA beside them.

In: a Run, a Matrix, its input. Out: its output, on the tape. What is allocated follows torch's mm and its derivatives,
bitsandbytes' autograd/_functions.py and nn/modules.py, AutoGPTQ's triton layer, and PEFT's lora/layer.py and
lora/bnb.py. Biases' own gradients are too small to follow.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory import ops, variants
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor
from studio.core.shapes import Matrix


def linear(run: Run, matrix: Matrix, x: Tensor) -> Tensor:
    """The layer's output, with its adapter's added where it has one."""
    if run.wraps(matrix):
        return _folded(run, matrix, x)
    result = base(run, matrix, x)
    if not run.adapts(matrix):
        return variants.beside(run, matrix, x, result) if run.touches(matrix) else result
    out = _with_lora(run, matrix, x, result, run.quantizes(matrix))
    return variants.dora(run, matrix, out) if getattr(run.config.adapter, "use_dora", False) else out


def base(run: Run, matrix: Matrix, x: Tensor) -> Tensor:
    """The product alone, with a weight that is quantized or not."""
    return _quantized(run, matrix, x) if run.quantizes(matrix) else product(run, matrix, x, run.item, run.full)


def _folded(run: Run, matrix: Matrix, x: Tensor) -> Tensor:
    """Stacked experts with their adapter added to the weights themselves (peft, ParamWrapper): a copy of all."""
    tape = run.tape
    weight = tape.new(matrix.numel * matrix.count, run.item, "scratch")
    out = tape.new(x.numel // matrix.inp * matrix.out, x.item)
    saved = (run, matrix, x, weight, run.layer)
    return tape.result(out, (x, tape.root(Tensor(0, 1, None))), _folded_back, saved)


def _folded_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, matrix, x, weight, layer = saved
    run.layer = layer
    below = tape.new(x.numel, x.item)
    whole = tape.new(weight.numel, weight.item, "scratch")
    rank = run.expert_rank(matrix) * matrix.count
    run.gradient(f"{matrix.path}.lora_A", rank * matrix.inp, run.adapter_item)
    run.gradient(f"{matrix.path}.lora_B", rank * matrix.out, run.adapter_item)
    del whole
    return below, None


def product(run: Run, matrix: Matrix, x: Tensor, item: int, trained: bool) -> Tensor:
    """F.linear with a weight of `item` bytes a number; autocast converts both first."""
    tape = run.tape
    rows = x.numel // matrix.inp
    weight = None
    if run.amp:
        x = ops.cast(tape, x, run.amp)
        if item != run.amp:
            weight = _converted(run, matrix, trained)
    out = tape.new(rows * matrix.out, x.item)
    kept = x if trained else None
    # The weight's gradient is a leaf's; a node is needed even where the input has none.
    tied = tape.root(Tensor(0, 1, None)) if trained and tape.recording and x.node is None else None
    return tape.result(
        out, (x, tied), _product_back, (run, matrix, kept, weight, item, x.item, run.layer, x.node is None)
    )


def _converted(run: Run, matrix: Matrix, trained: bool) -> Tensor:
    """A weight in autocast's format. Those of trained leaves are kept until the forward pass ends (cached_cast)."""
    key = f"{run.layer}.{matrix.path}"
    if trained and run.casts is not None and key in run.casts:
        return run.casts[key]
    made = run.tape.new(matrix.numel, run.amp, "converted")
    if trained and run.casts is not None:
        run.casts[key] = made
    return made


def _product_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, matrix, kept, _weight, item, x_item, layer, ends = saved
    rows = gradient.numel // matrix.out
    below = None if ends else tape.new(rows * matrix.inp, x_item)
    if kept is not None:
        run.layer = layer
        half = tape.new(matrix.numel, x_item) if x_item != item else None
        run.gradient(matrix.path, matrix.numel * matrix.count, item)
        del half
    return below, None


def _quantized(run: Run, matrix: Matrix, x: Tensor) -> Tensor:
    """The base's product: the weight is unpacked for the moment, here and again in the backward pass."""
    tape, given = run.tape, x.item
    compute = 2 if run.quant == "gptq" else run.compute
    x = ops.cast(tape, x, compute)
    rows = x.numel // matrix.inp
    kept = x if run.habits.saves_input_4bit and run.quant in ("nf4", "fp4") else None
    if run.quant == "int8":
        quantized, sums = tape.new(x.numel, 1, "scratch"), tape.new(rows * matrix.out, 4, "scratch")
        out = tape.new(rows * matrix.out, compute)
        del quantized, sums
    else:
        weight = unpacked(run, matrix)
        out = tape.new(rows * matrix.out, compute)
        del weight
    tape.result(out, (x,), _quantized_back, (run, matrix, compute, kept))
    return ops.cast(tape, out, given)


def unpacked(run: Run, matrix: Matrix) -> Tensor:
    """The weight in 16 bits; double quantization's scales are restored before it."""
    compute = 2 if run.quant == "gptq" else run.compute
    scales = None
    if run.quant in ("nf4", "fp4") and run.config.model.double_quant:
        scales = run.tape.new(-(-matrix.numel // 64), 4, "scratch")
    half = None
    if run.quant in ("nf4", "fp4") and run.habits.unpacks_to_half and not run.halves:
        half = run.tape.new(matrix.numel, 2, "scratch")
    weight = run.tape.new(matrix.numel, compute, "scratch")
    del scales, half
    return weight


def _quantized_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    run, matrix, compute, kept = saved
    run.kept.append(kept)  # an attribute of the graph's node, not one of its saved tensors: it goes with the graph
    weight = unpacked(run, matrix)
    below = tape.new(gradient.numel // matrix.out * matrix.inp, compute)
    del weight
    return (below,)


def _with_lora(run: Run, matrix: Matrix, x: Tensor, result: Tensor, quantized: bool) -> Tensor:
    """result + B(A(dropout(x))) * scaling, in the order PEFT does it for this kind of base."""
    tape, given = run.tape, result.item
    four = quantized and run.quant != "gptq"
    if four:
        result = ops.same(tape, result)  # PEFT clones what bitsandbytes returns
    if not (quantized and run.amp):
        x = ops.cast(tape, x, run.adapter_item)
    output = _delta(run, matrix, x)
    if quantized and not run.amp:
        output = ops.cast(tape, output, given)
    if quantized and run.quant == "gptq":
        return tape.result(result.view(), (result, output), ops.add_back, (given, output.item))
    result = ops.add(tape, result, output)
    return ops.cast(tape, result, given)


def _delta(run: Run, matrix: Matrix, x: Tensor) -> Tensor:
    rank = run.rank(matrix)
    down = Matrix(matrix.path + ".lora_A", rank, matrix.inp, count=matrix.count)
    up = Matrix(matrix.path + ".lora_B", matrix.out, rank, count=matrix.count)
    x = ops.dropout(run.tape, x, run.dropout)
    inner = product(run, down, x, run.adapter_item, True)
    return ops.scaled(run.tape, product(run, up, inner, run.adapter_item, True))
