"""Ways of storing a model that pack its weights for good: nothing here trains on them or merges into them.

In: a config.json as a dict. Out: the way's name, and the sentence that refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Each needs kernels of its own. bitsandbytes isn't one of them: it can be trained on, through an adapter.
PACKED = frozenset({"gptq", "awq", "aqlm", "auto-round", "eetq", "higgs", "hqq", "quip", "spqr", "vptq"})
HINT = "Give the 16-bit original it was made from; model.quantization: nf4 holds that in 4 bits while it trains."


def packed_as(config: Mapping[str, Any] | None) -> str:
    """How such a model is packed, in capitals; "" for one that isn't."""
    stored = (config or {}).get("quantization_config")
    method = str(stored.get("quant_method", "")).lower() if isinstance(stored, dict) else ""
    return method.upper() if method in PACKED else ""


def refusal(name: str, method: str) -> str:
    return f"{name} is stored quantized ({method}), and can't be trained on or merged into."
