"""Muon for matrices, AdamW for the rest, as one optimizer.

In: a model with some parameters that have gradients. Out: a torch optimizer: every 2-D weight inside the layers goes by
torch's Muon, embeddings, head, norms and biases by AdamW. Knows no trainer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """Two optimizers that share their groups and their state, so that schedules and checkpoints see one.

    Muon: Jordan et al. 2024 (kellerjordan.github.io/posts/muon), whose updates are scaled so that AdamW's rates suit
    them (Liu et al. 2025, arXiv:2502.16982, section 2.2).
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        rest: list[nn.Parameter],
        lr: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            by_rms = "match_rms_adamw"
            self._parts.append(torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn=by_rms))
        if rest:
            self._parts.append(torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Groups and state are this optimizer's; the parts work on them."""
        first = 0
        for part in self._parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[first : first + count]
            part.state = self.state
            first += count

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = closure() if closure is not None else None
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()


def muon(model: Any, lr: float, weight_decay: float, betas: tuple[float, float], eps: float) -> MuonAdamW:
    """For what is trained of a model."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if head is not None:
        tables |= {id(p) for p in head.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in tables]
    chosen = {id(p) for p in matrices}
    return MuonAdamW(matrices, [p for p in trained if id(p) not in chosen], lr, weight_decay, betas, eps)
