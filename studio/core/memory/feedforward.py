"""The feed-forward part of a layer: gated or not, one or many experts.

In: a Run, a Layer, the normed stream. Out: what is added to it. Experts see `num_experts_per_tok` copies of each token,
spread evenly; older transformers run them one by one, since version 5 all at once.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory import litgpt, ops
from studio.core.memory.linear import linear
from studio.core.memory.ops import Gradients
from studio.core.memory.run import Run
from studio.core.memory.tape import Tape, Tensor
from studio.core.shapes import Layer, Matrix

# What a config class takes where config.json doesn't say; all others are one kernel anyway.
_ACTIVATIONS = {"gpt2": "gelu_new", "phi": "gelu_new"}


def feed_forward(run: Run, plan: Layer, x: Tensor) -> Tensor:
    """Gate, activation, product, output; or in, activation, out."""
    if run.habits.program == "litgpt":
        return litgpt.feed_forward(run, plan, x)
    experts = tuple(matrix for matrix in plan.matrices if matrix.count > 1)
    if experts:
        return _mixture(run, plan, experts, x)
    gate, up = plan.find("gate_proj", "mlp.w2"), plan.find("up_proj", "mlp.w1")
    both = plan.find("gate_up_proj", "input_linear")
    down = plan.find("down_proj", "mlp.c_proj", "fc2", "dense_4h_to_h", "output_linear")
    assert down is not None, "a feed-forward part without an output projection"
    if gate and up:
        return _gated(run, gate, up, down, x)
    if both:
        return _halved(run, both, down, x)
    inner = plan.find("mlp.c_fc", "fc1", "dense_h_to_4h")
    assert inner is not None, "a feed-forward part of no known kind"
    out = linear(run, down, _activation(run, linear(run, inner, x)))
    return ops.dropout(run.tape, out, run.own_dropout("resid_pdrop"))


def _gated(run: Run, gate: Matrix, up: Matrix, down: Matrix, x: Tensor) -> Tensor:
    opened = linear(run, gate, x)
    if not run.practice.compiled:
        opened = _activation(run, opened)
    wide = linear(run, up, x)
    del x
    product = (_in_one if run.practice.compiled else _times)(run, opened, wide)
    del opened, wide
    return linear(run, down, product)


def _times(run: Run, opened: Tensor, wide: Tensor) -> Tensor:
    return ops.multiply(run.tape, opened, wide)


def _in_one(run: Run, opened: Tensor, wide: Tensor) -> Tensor:
    """Activation and product as one kernel, which keeps what it read."""
    out = run.tape.new(wide.numel, wide.item)
    return run.tape.result(out, (opened, wide), _in_one_back, (opened, wide))


def _in_one_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return tuple(tape.new(x.numel, x.item) for x in saved)


def _halved(run: Run, both: Matrix, down: Matrix, x: Tensor) -> Tensor:
    """Gate and up as halves of one product; their gradients are joined again."""
    tape = run.tape
    whole = linear(run, both, x)
    joint = tape.result(whole.view(), (whole,), _joined, whole.numel)
    if joint.node:
        joint.node.joins()
    half = Tensor(whole.numel // 2, whole.item, whole.storage, joint.node)
    opened = _activation(run, half)
    product = ops.multiply(tape, half, opened)
    del opened, half, whole, joint
    return linear(run, down, product)


def _joined(tape: Tape, gradient: Tensor, numel: int) -> Gradients:
    return (tape.new(numel, gradient.item),)


def _activation(run: Run, x: Tensor) -> Tensor:
    """One kernel for most; some are written out as a formula (transformers/activations.py)."""
    tape = run.tape
    config = run.shape.config
    name = str(config.get("hidden_act") or config.get("activation_function") or _ACTIVATIONS.get(run.shape.model_type))
    if name == "gelu_fast":
        half = ops.scaled(tape, x)  # no other step has a name: each goes when the next is there
        return ops.multiply(tape, half, ops.same(tape, ops.tanh(tape, _bent(tape, x))))
    if name == "gelu_new":
        half = ops.scaled(tape, x)
        return ops.multiply(tape, half, ops.same(tape, ops.tanh(tape, _raised(tape, x))))
    return ops.pointwise(tape, x)


def _bent(tape: Tape, x: Tensor) -> Tensor:
    """x * 0.798 * (1 + 0.0447 * x * x)."""
    return ops.multiply(tape, ops.scaled(tape, x), ops.same(tape, ops.multiply(tape, ops.scaled(tape, x), x)))


def _raised(tape: Tape, x: Tensor) -> Tensor:
    """0.798 * (x + 0.0447 * x ** 3)."""
    return ops.scaled(tape, ops.add(tape, x, ops.scaled(tape, ops.pointwise(tape, x))))


def _mixture(run: Run, plan: Layer, experts: tuple[Matrix, ...], x: Tensor) -> Tensor:
    config, count = run.shape.config, experts[0].count
    chosen = min(int(config.get("num_experts_per_tok") or config.get("moe_topk") or 2), count)
    scores = run.tape.new(run.tokens * count, 4)
    mixed = (_at_once if run.habits.stacked_experts else _one_by_one)(run, experts, x, run.tokens * chosen)
    del scores
    return _with_shared(run, plan, x, mixed)


def _one_by_one(run: Run, experts: tuple[Matrix, ...], x: Tensor, total: int) -> Tensor:
    """Each expert's rows in turn; one is gone through, what the others keep is put beside it."""
    tape, width, count = run.tape, run.shape.hidden, experts[0].count
    rows = -(-total // count)
    out = tape.new(run.tokens * width, x.item)
    # the other experts' share is there before this one's and longer
    rest = _others(run, experts, rows, count - 1) if tape.recording else None
    gathered = tape.result(tape.new(rows * width, x.item), (x,), _spread_back, (x.numel, rest))
    del rest
    result = _expert(run, experts, gathered)
    del gathered
    weighted = ops.by_constant(tape, result, result)  # the router's weights have a gradient of their own
    del result
    return tape.result(out, (weighted,), _mixture_back, rows * width)


def _at_once(run: Run, experts: tuple[Matrix, ...], x: Tensor, total: int) -> Tensor:
    """Rows sorted by expert and multiplied in groups (transformers/integrations/moe.py, grouped_mm)."""
    tape, width, amp = run.tape, run.shape.hidden, run.amp
    selected = tape.result(tape.new(total * width, x.item), (x,), _spread_back, (x.numel, None))
    # grouped products are none of autocast's: they run in the weights' own format
    read, run.amp = ops.cast(tape, selected, run.item), 0
    result = _expert(run, _joined_gates(experts), read)
    run.amp = amp
    del read
    weighted = ops.by_constant(tape, result, result)
    ordered = ops.same(tape, weighted)
    del weighted
    mixed = tape.result(tape.new(run.tokens * width, result.item), (ordered,), _mixture_back, total * width)
    return ops.cast(tape, mixed, x.item)


def _joined_gates(experts: tuple[Matrix, ...]) -> tuple[Matrix, ...]:
    """Gate and up as the one tensor that the model holds them in."""
    if len(experts) < 3:
        return experts
    down = next(m for m in experts if m.name in ("down_proj", "w2"))
    gate = next(m for m in experts if m is not down)
    path = gate.path.rpartition(".")[0]
    return (
        Matrix(f"{path}.input_linear.{gate.name}", 2 * gate.out, gate.inp, count=gate.count),
        Matrix(f"{path}.output_linear.{down.name}", down.out, down.inp, count=down.count),
    )


def _with_shared(run: Run, plan: Layer, x: Tensor, out: Tensor) -> Tensor:
    """Experts that see every token."""
    shared = [m for m in plan.matrices if m.count == 1 and ("shared_expert" in m.path) and m.out > 1]
    if len(shared) < 3:
        return out
    named = {m.name: m for m in shared}
    added = _gated(run, named["gate_proj"], named["up_proj"], named["down_proj"], x)
    return ops.add(run.tape, out, added)


def _expert(run: Run, matrices: tuple[Matrix, ...], x: Tensor) -> Tensor:
    if len(matrices) == 2:
        return _halved(run, matrices[0], matrices[1], x)
    named = {m.name: m for m in matrices}
    gate, up, down = ("w1", "w3", "w2") if "w1" in named else ("gate_proj", "up_proj", "down_proj")
    return _gated(run, named[gate], named[up], named[down], x)


def _others(run: Run, matrices: tuple[Matrix, ...], rows: int, count: int) -> Tensor:
    """What the other experts keep: gate, its activation, up, and, where it is trained, what each product read."""
    inner = matrices[0].out if len(matrices) > 2 else matrices[0].out // 2
    numbers = rows * 3 * inner
    if run.full:
        numbers += rows * (run.shape.hidden + inner)
    return run.tape.new(count * numbers, run.compute)


def _spread_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return (tape.new(saved[0], gradient.item),)


def _mixture_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return (tape.new(saved, gradient.item),)
