"""The names that an adapter's layers can be picked from, read from a model's files without loading it.

In: a ModelShape. Out: the linear layers' last names, how often each is there, whether it belongs to attention. Knows no
no weights.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from studio.core.shapes import ModelShape

# As every architecture of transformers names its attention: self_attn, attn, attention, linear_attn, SelfAttention.
_ATTENTION = re.compile(r"(^|[._])(self_?|linear_?)?(attn|attention)([._]|$)", re.IGNORECASE)


class ModuleName(NamedTuple):
    """A name such as q_proj: `layers` have it, `numbers` parameters lie in one, `attention` says where it is."""

    name: str
    layers: int
    numbers: int
    attention: bool


def module_names(shape: ModelShape) -> list[ModuleName]:
    """Every name once, in the order in which a layer has them; experts of one layer count one each."""
    found: dict[str, ModuleName] = {}
    for layer in shape.layers:
        for matrix in layer.matrices:
            seen = found.get(matrix.name)
            layers = (seen.layers if seen else 0) + matrix.count
            found[matrix.name] = ModuleName(matrix.name, layers, matrix.numel, bool(_ATTENTION.search(matrix.path)))
    return list(found.values())
