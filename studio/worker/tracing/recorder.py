"""Every storage that a step makes, and when it goes.

In: operations, seen by a dispatch mode while tensors are fake. Out: events as `core.memory.tape` has them. A storage
goes when nothing refers to it, as on a device. Knows nothing of what is computed.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from studio.core.memory.tape import Event

_ROUND = 512
_ADD = torch.ops.aten.add.Tensor


class Recorder(TorchDispatchMode):  # type: ignore[misc]
    """`events` in order; `part` names what is made now; `vocabulary` tells logits from other tensors."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.marks: list[tuple[int, int]] = []
        self.part = "activations"
        self.backward = False
        self._vocabulary = vocabulary
        self._known: dict[int, weakref.ref[Any]] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._next = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is _ADD and self.backward and not torch.is_grad_enabled():
            self._added(args[0], result)
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self.see(value)
        return result

    def see(self, tensor: torch.Tensor, part: str = "") -> None:
        """Write down a tensor's storage, if it is new."""
        storage = tensor.untyped_storage()
        name = id(storage)
        if name in self._known or tensor.device.type == "meta" or not storage.nbytes():
            return
        self._next = key = self._next + 1
        size = -(-storage.nbytes() // _ROUND) * _ROUND
        wide = tensor.dim() > 0 and tensor.shape[-1] == self._vocabulary and tensor.numel() > 64 * self._vocabulary
        self.events.append((key, size, part or ("logits" if wide else self.part)))
        self._follow(storage, key, size)

    def _added(self, gradient: Any, total: torch.Tensor) -> None:
        """Autograd adds a second gradient to the first in its place; for tensors that are fake it makes a third."""
        if not isinstance(gradient, torch.Tensor):
            return
        before, after = gradient.untyped_storage(), total.untyped_storage()
        if before.nbytes() != after.nbytes() or id(after) in self._known or id(before) not in self._known:
            return
        entry = self._sizes.get(id(before))
        if entry is None:  # a gradient of an earlier micro-batch
            self.know(total)
            return
        del self._known[id(before)], self._sizes[id(before)]
        self._follow(after, *entry)

    def _follow(self, storage: Any, key: int, size: int) -> None:
        name = id(storage)
        self._sizes[name] = (key, size)
        self._known[name] = weakref.ref(storage, lambda _: self._gone(name, key, size))

    def know(self, tensor: torch.Tensor) -> None:
        """A tensor that is counted elsewhere: a weight."""
        storage = tensor.untyped_storage()
        name = id(storage)
        self._known[name] = weakref.ref(storage, lambda _: self._known.pop(name, None))

    def _gone(self, name: int, key: int, size: int) -> None:
        self._known.pop(name, None)
        self._sizes.pop(name, None)
        self.events.append((key, -size, ""))

    def mark(self, name: int) -> None:
        """A stretch of events, called `name`, ends here."""
        self.marks.append((len(self.events), name))
