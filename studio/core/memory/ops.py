"""The operations a transformer is made of: what each allocates, and what it keeps for its backward.

In: tensors of `tape`. Out: tensors. Saved tensors and scratch are those of torch's derivatives.yaml and CUDA kernels.
What a library does with these operations isn't known here.
"""

from __future__ import annotations

from typing import Any

from studio.core.memory.tape import Tape, Tensor

Gradients = tuple["Tensor | None", ...]


def cast(tape: Tape, x: Tensor, item: int) -> Tensor:
    """x.to(dtype): x itself where it has that size already."""
    if x.item == item:
        return x
    return tape.result(tape.new(x.numel, item), (x,), _cast_back, x.item)


def _cast_back(tape: Tape, gradient: Tensor, item: int) -> Gradients:
    return (gradient if gradient.item == item else tape.new(gradient.numel, item),)


def cut(tape: Tape, x: Tensor) -> Tensor:
    """A slice made contiguous: nothing is kept, but its gradient is put into zeros of the whole's size."""
    return tape.result(tape.new(x.numel, x.item), (x,), scaled_back)


def same(tape: Tape, x: Tensor) -> Tensor:
    """A copy: clone, contiguous, a scaling by a number; nothing is kept."""
    return tape.result(tape.new(x.numel, x.item), (x,), _copy_back)


def _copy_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return (gradient,)


def scaled(tape: Tape, x: Tensor) -> Tensor:
    """x times a number."""
    return tape.result(tape.new(x.numel, x.item), (x,), scaled_back)


def scaled_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return (tape.new(gradient.numel, gradient.item),)


def split(tape: Tape, whole: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Views of one tensor, `sizes` numbers each; their gradients are joined again."""
    joint = tape.result(whole.view(), (whole,), _joined, whole.numel)
    if joint.node:
        joint.node.joins()
    return tuple([Tensor(size, whole.item, whole.storage, joint.node) for size in sizes])


def _joined(tape: Tape, gradient: Tensor, numel: int) -> Gradients:
    return (tape.new(numel, gradient.item),)


def add(tape: Tape, x: Tensor, y: Tensor) -> Tensor:
    """x + y; nothing is kept, one gradient goes both ways (cast where they were of two sizes)."""
    item = max(x.item, y.item)
    return tape.result(tape.new(max(x.numel, y.numel), item), (x, y), add_back, (x.item, y.item))


def add_back(tape: Tape, gradient: Tensor, items: tuple[int, int]) -> Gradients:
    return tuple(gradient if gradient.item == item else tape.new(gradient.numel, item) for item in items)


def multiply(tape: Tape, x: Tensor, y: Tensor) -> Tensor:
    """x * y of one shape: each is kept for the other's gradient."""
    kept = (x if y.node else None, y if x.node else None, x.item, y.item)
    return tape.result(tape.new(x.numel, max(x.item, y.item)), (x, y), _multiply_back, kept)


def _multiply_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    first, second, x_item, y_item = saved
    left = _sized(tape, tape.new(gradient.numel, gradient.item), x_item) if second is not None else None
    right = _sized(tape, tape.new(gradient.numel, gradient.item), y_item) if first is not None else None
    return left, right


def _sized(tape: Tape, gradient: Tensor, item: int) -> Tensor:
    return gradient if gradient.item == item else tape.new(gradient.numel, item)


def by_constant(tape: Tape, x: Tensor, small: Tensor | None = None) -> Tensor:
    """x times something that needs no gradient (`small`, kept): a frozen norm's weight, cosines."""
    item = max(x.item, small.item) if small else x.item
    return tape.result(tape.new(x.numel, item), (x,), _by_constant_back, (small, x.item))


def _by_constant_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return (_sized(tape, tape.new(gradient.numel, gradient.item), saved[1]),)


def pointwise(tape: Tape, x: Tensor) -> Tensor:
    """An activation in one kernel (silu, gelu, tanh), which keeps its input."""
    return tape.result(tape.new(x.numel, x.item), (x,), _pointwise_back, x)


def _pointwise_back(tape: Tape, gradient: Tensor, x: Tensor) -> Gradients:
    return (tape.new(gradient.numel, gradient.item),)


def tanh(tape: Tape, x: Tensor) -> Tensor:
    """An activation in one kernel that keeps its result."""
    out = tape.new(x.numel, x.item)
    return tape.result(out, (x,), _pointwise_back, out.view())


def dropout(tape: Tape, x: Tensor, chance: float) -> Tensor:
    """Keeps a mask of one byte a number; a processor's keeps it in the numbers' own format."""
    if not chance:
        return x
    mask = tape.new(x.numel, 1 if tape.fuses_dropout else x.item)
    return tape.result(tape.new(x.numel, x.item), (x,), _dropout_back, mask)


def _dropout_back(tape: Tape, gradient: Tensor, mask: Tensor) -> Gradients:
    return (tape.new(gradient.numel, gradient.item),)


def layer_norm(tape: Tape, x: Tensor, width: int) -> Tensor:
    """torch's own, in one kernel: keeps its input and two numbers a row."""
    stats = tape.new(2 * x.numel // width, 4)
    return tape.result(tape.new(x.numel, x.item), (x,), _layer_norm_back, (x, stats))


def _layer_norm_back(tape: Tape, gradient: Tensor, saved: Any) -> Gradients:
    return (tape.new(gradient.numel, gradient.item),)
