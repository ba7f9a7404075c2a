"""Tensors that have only a size, and the backward pass over them.

In: operations (`ops`). Out: a list of events, each an allocation or a release in bytes. A tensor's memory lives as
long as something refers to it, by Python's own reference counting, just as torch's does: code written over these
tensors in the way a library writes it allocates and releases in the same order. Knows no numbers, only how many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_ROUND = 512  # CUDA's caching allocator hands out multiples of it


class Storage:
    """Bytes on the device, told to the tape when they come and when nothing refers to them any more."""

    __slots__ = ("bytes", "events", "key")

    def __init__(self, tape: Tape, size: int, part: str) -> None:
        self.bytes = -(-size // _ROUND) * _ROUND
        self.events = tape.events
        self.key = tape.next_key = tape.next_key + 1
        self.events.append((self.key, self.bytes, part))

    def __del__(self) -> None:
        self.events.append((self.key, -self.bytes, ""))


Event = tuple[int, int, str]


class Tensor:
    """`numel` numbers of `item` bytes; `node` computes its gradient, and is None where there is none."""

    __slots__ = ("item", "node", "numel", "storage")

    def __init__(self, numel: int, item: int, storage: Storage | None, node: Node | None = None) -> None:
        self.numel, self.item, self.storage, self.node = numel, item, storage, node

    def view(self, node: Node | None = None) -> Tensor:
        """The same memory under another name."""
        return Tensor(self.numel, self.item, self.storage, node or self.node)


class Node:
    """How a gradient passes one operation: `rule(tape, gradient, saved)` gives one gradient an input."""

    __slots__ = ("held", "inputs", "pending", "rule", "saved")

    def __init__(self, inputs: tuple[Node | None, ...], rule: Rule, saved: Any = None) -> None:
        self.inputs, self.rule, self.saved = inputs, rule, saved
        self.pending: Tensor | None = None
        self.held: list[Tensor] | None = None  # gradients of its result's parts, where they are joined only at the end

    def joins(self) -> None:
        """Its result is used in parts, whose gradients wait for each other."""
        self.held = []


Rule = Callable[["Tape", Tensor, Any], tuple["Tensor | None", ...]]


class Tape:
    """What has happened so far, and whether gradients will be wanted."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.nodes: list[Node] = []
        self.marks: list[tuple[int, int]] = []
        self.next_key = 0
        self.recording = True
        self.fuses_dropout = True  # `native_dropout`, which processors go without
        self.part = "activations"

    def new(self, numel: int, item: int, part: str = "") -> Tensor:
        """Fresh memory for `numel` numbers of `item` bytes."""
        return Tensor(numel, item, Storage(self, numel * item, part or self.part))

    def result(self, tensor: Tensor, inputs: tuple[Tensor | None, ...], rule: Rule, saved: Any = None) -> Tensor:
        """`tensor` as the result of an operation on `inputs`, whose backward needs what is `saved`."""
        if self.recording:
            above = tuple([x.node if x is not None else None for x in inputs])
            if any(above):
                tensor.node = Node(above, rule, saved)
                self.nodes.append(tensor.node)
        return tensor

    def mark(self, name: int) -> None:
        """Remember that a stretch of events, called `name`, ends here."""
        self.marks.append((len(self.events), name))

    def root(self, tensor: Tensor) -> Tensor:
        """`tensor` as something a gradient ends at: a layer's input when it is computed again."""
        tensor.node = Node((), _ends)
        return tensor

    def backward(self, tensor: Tensor, gradient: Tensor, down_to: int = 0) -> None:
        """Pass `gradient` back through the nodes made since there were `down_to`, the last first, releasing each."""
        assert tensor.node is not None
        tensor.node.pending = gradient
        del tensor, gradient
        while len(self.nodes) > down_to:
            node = self.nodes.pop()
            incoming, node.pending = node.pending, None
            if incoming is None:
                continue
            gradients = node.rule(self, incoming, node.saved)
            incoming = node.saved = node.held = None
            for above, passed in zip(node.inputs, gradients, strict=False):
                if above is None or passed is None:
                    continue
                if above.pending is None:
                    above.pending = passed
                elif above.held is not None:
                    above.held.append(passed)
                # a second gradient is added to the first in its place, as autograd does where nobody else holds it
            passed = None
            gradients = ()


def _ends(tape: Tape, gradient: Tensor, saved: Any) -> tuple[Tensor | None, ...]:
    return ()
