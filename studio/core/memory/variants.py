"""What adapters other than plain LoRA do beside a product: first order, the tensors as large as an input or a weight.

In: a Run, a Matrix, the product's input and result. Out: the result, changed. Follows PEFT's tuners/*/layer.py; what is
of the size of a rank or a vector is left out.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory import ops
from studio.core.memory.adapters import rank
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor
from studio.core.shapes import Matrix


def beside(run: Run, matrix: Matrix, x: Tensor, result: Tensor) -> Tensor:
    """The result with the adapter's part; an adapter that isn't in the table changes nothing here."""
    adapter: Any = run.config.adapter
    found = _KINDS[adapter.type](run, matrix, x, result) if adapter.type in _KINDS else result
    return ops.cast(run.tape, found, result.item)


def dora(run: Run, matrix: Matrix, result: Tensor) -> Tensor:
    """DoRA (tuners/lora/dora.py): the weight's length is computed anew, and base and LoRA's result are kept."""
    tape, item = run.tape, result.item
    numel = matrix.numel
    one, unfolded = tape.new(matrix.inp**2, item, "scratch"), tape.new(numel, item, "scratch")
    scaled, both = tape.new(numel, item, "scratch"), tape.new(numel, item, "scratch")
    del one, unfolded, scaled, both
    base, own = tape.new(result.numel, item), tape.new(result.numel, run.adapter_item)
    out = tape.new(result.numel, item)
    return tape.result(out, (result, tape.root(Tensor(0, 1, None))), _kept_back, (base, own))


def _scaled(run: Run, matrix: Matrix, x: Tensor, result: Tensor) -> Tensor:
    """IA3: a factor for each output, which keeps them."""
    kept = ops.cast(run.tape, result, run.adapter_item)
    return _trained(run, kept, (kept,))


def _shared(run: Run, matrix: Matrix, x: Tensor, result: Tensor) -> Tensor:
    """VeRA: down and up through what all share; what comes up is kept for its vector's gradient."""
    tape, item = run.tape, run.adapter_item
    x = ops.dropout(tape, ops.cast(tape, x, item), run.dropout)
    rows = x.numel // matrix.inp
    inner = tape.new(rows * rank(run.config.adapter), item)
    up = tape.new(rows * matrix.out, item)
    delta = tape.new(rows * matrix.out, item)
    delta = tape.result(delta, (x, tape.root(Tensor(0, 1, None))), _through_back, (x.numel, x.item, inner, up))
    return ops.add(tape, result, delta)


def _through_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    numel, item, _inner, up = saved
    passed = tape.new(up.numel, up.item)
    below = tape.new(numel, item)
    del passed
    return below, None


def _unfolded(run: Run, matrix: Matrix, x: Tensor, result: Tensor) -> Tensor:
    """LoHa and LoKr: the change of the weight is written out, and kept for the backward pass."""
    tape, item = run.tape, run.adapter_item
    x = ops.cast(tape, x, item)
    first, second = tape.new(matrix.numel, item), tape.new(matrix.numel, item)
    change = tape.new(matrix.numel, item)
    del first, second
    delta = tape.new(x.numel // matrix.inp * matrix.out, item)
    saved = (x, change)
    return ops.add(tape, result, tape.result(delta, (x, tape.root(Tensor(0, 1, None))), _unfolded_back, saved))


def _unfolded_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    x, change = saved
    below = tape.new(x.numel, x.item)
    weight = tape.new(change.numel, change.item, "scratch")
    halves = tape.new(change.numel, change.item, "scratch"), tape.new(change.numel, change.item, "scratch")
    del weight, halves
    return below, None


def _turned(run: Run, matrix: Matrix, x: Tensor, result: Tensor) -> Tensor:
    """OFT: the inputs are turned before the product, in the adapter's own format; they are kept, turned ones aren't."""
    tape, item = run.tape, run.adapter_item
    wide = ops.cast(tape, x, item)
    turned = tape.new(x.numel, item)
    narrow = turned if item == x.item else tape.new(x.numel, x.item)
    del turned, narrow
    return tape.result(result.view(), (result, tape.root(Tensor(0, 1, None))), _kept_back, wide)


def _butterfly(run: Run, matrix: Matrix, x: Tensor, result: Tensor) -> Tensor:
    """BOFT: the weight is turned and written out (three times over), with a product of its own."""
    tape, item = run.tape, run.adapter_item
    x = ops.cast(tape, x, item)
    turn = tape.new(matrix.inp**2, item)
    kept = tape.new(matrix.numel, item), tape.new(matrix.numel, item)
    delta = tape.new(x.numel // matrix.inp * matrix.out, item)
    saved = (x, Tensor(matrix.numel, item, None), turn, kept)
    return tape.result(delta, (x, tape.root(Tensor(0, 1, None))), _butterfly_back, saved)


def _butterfly_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    x, weight, _turn, _kept = saved
    below = tape.new(x.numel, x.item)
    written = tape.new(weight.numel, weight.item, "scratch")
    del written
    return below, None


def _trained(run: Run, x: Tensor, saved: Any) -> Tensor:
    out = run.tape.new(x.numel, x.item)
    return run.tape.result(out, (x, run.tape.root(Tensor(0, 1, None))), _kept_back, saved)


def _kept_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    below = tape.new(gradient.numel, gradient.item)
    own = tape.new(gradient.numel, gradient.item)
    del own
    return below, None


_KINDS = {
    "ia3": _scaled,
    "vera": _shared,
    "loha": _unfolded,
    "lokr": _unfolded,
    "oft": _turned,
    "boft": _butterfly,
}
