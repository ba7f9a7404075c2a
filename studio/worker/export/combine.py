"""Several adapters put together into one, by PEFT's `add_weighted_adapter`.

In: a way, weights. Out: what `Adapted` calls once all are loaded. Only LoRA adapters can be put together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from studio.core.errors import ModelError

# Yadav et al. 2023 (TIES, arXiv:2306.01708) and Yu et al. 2023 (DARE, arXiv:2311.03099) keep a share of the changes.
_PRUNING = ("ties", "dare_linear", "dare_ties")
_SEED = 0  # DARE drops changes by chance: the same adapters give the same model


def combination(way: str, weights: list[float], density: float) -> Callable[[Any], str]:
    """A function from a PeftModel with adapters loaded to the name of their combination. Raises ModelError."""

    def combine(model: Any) -> str:
        names = list(model.peft_config)
        more = {"density": density} if way in _PRUNING else {}
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_SEED)
                model.add_weighted_adapter(names, weights, "combined", combination_type=way, **more)
        except (ValueError, RuntimeError) as error:
            raise ModelError(
                f"These adapters can't be put together by {way} ({' '.join(str(error).split())[:200]}).",
                "svd and cat take adapters of any ranks.",
            ) from None
        return "combined"

    return combine
