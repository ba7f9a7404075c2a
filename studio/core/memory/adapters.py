"""How many numbers an adapter trains: tensor by tensor, for every kind of core/sections/adapter.py.

In: a shape, an adapter's section. Out: sizes. Layouts are those of PEFT's tuners/*/layer.py and, for prompts,
peft/utils/other.py. Knows no device and no bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from studio.core.sections.adapter import FreezeAdapter
from studio.core.shapes import Matrix, ModelShape

Sizes = list[tuple[int, int]]  # numbers of a tensor, how many such tensors
Rule = tuple[int, ...]

_ATTENTION = re.compile(r"(^|[._])(self_?|linear_?)?(attn|attention)([._]|$)", re.IGNORECASE)


def is_attention(matrix: Matrix) -> bool:
    """Whether a matrix belongs to attention: worker/adapters/targets.py tells it by the same pattern."""
    return _ATTENTION.search(matrix.path) is not None


def rank(adapter: Any, path: str = "") -> int:
    """The rank that an adapter has, at a module's path where ranks differ; 0 for kinds without one."""
    for pattern, own in getattr(adapter, "rank_pattern", {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            return int(own)
    return int(getattr(adapter, "r", 0) or getattr(adapter, "init_r", 0))


def beside(adapter: Any, matrix: Matrix, path: str = "") -> Rule:
    """Numbers of each tensor that is trained beside one matrix."""
    r = rank(adapter, path or matrix.path)
    return _RULES[adapter.type](adapter, matrix, r) if adapter.type in _RULES else ()


def _lora(adapter: Any, matrix: Matrix, r: int) -> Rule:
    return (r * matrix.inp, r * matrix.out, *((matrix.out,) if adapter.use_dora else ()))


def _adalora(adapter: Any, matrix: Matrix, r: int) -> Rule:
    return r * matrix.inp, r * matrix.out, r


def _ia3(adapter: Any, matrix: Matrix, r: int) -> Rule:
    inner = any(matrix.path.endswith(name) for name in adapter.feedforward_modules)
    return (matrix.inp if inner else matrix.out,)


def _vera(adapter: Any, matrix: Matrix, r: int) -> Rule:
    return r, matrix.out


def _loha(adapter: Any, matrix: Matrix, r: int) -> Rule:
    return r * matrix.out, r * matrix.inp, r * matrix.out, r * matrix.inp


def _lokr(adapter: Any, matrix: Matrix, r: int) -> Rule:
    (in_m, in_n), (out_l, out_k) = (factors(n, adapter.decompose_factor) for n in (matrix.inp, matrix.out))
    first: Rule = (out_l * in_m,)
    if adapter.decompose_both and r < max(out_l, in_m) / 2:
        first = out_l * r, r * in_m
    second: Rule = (out_k * in_n,)
    if r < max(out_k, in_n) / 2:
        second = out_k * r, r * in_n
    return first + second


def factors(number: int, wish: int) -> tuple[int, int]:
    """Two factors, the smaller first and at most `wish` where that is positive; -1: as near to one another as can."""
    if wish > 0 and number % wish == 0:
        return wish, number // wish
    most = number if wish == -1 else wish
    best = 1, number
    for small in range(2, int(number**0.5) + 1):
        if number % small == 0 and small <= most:
            best = small, number // small
    return best


def _oft(adapter: Any, matrix: Matrix, r: int) -> Rule:
    size = adapter.oft_block_size
    return (matrix.inp // size * (size * (size - 1) // 2),)


def _boft(adapter: Any, matrix: Matrix, r: int) -> Rule:
    return adapter.boft_n_butterfly_factor * matrix.inp * adapter.boft_block_size, matrix.out


_RULES = {
    "lora": _lora,
    "adalora": _adalora,
    "ia3": _ia3,
    "vera": _vera,
    "loha": _loha,
    "lokr": _lokr,
    "oft": _oft,
    "boft": _boft,
}


def apart(adapter: Any, shape: ModelShape) -> Iterator[int]:
    """Numbers of each trained tensor that stands beside no matrix: prompts, whole modules, tokens."""
    maker = _APART.get(adapter.type)
    if maker:
        yield from maker(adapter, shape)
    ties = shape.head is None
    embedding = shape.embedding.numel if shape.embedding else 0
    named = {name.rpartition(".")[2] for name in getattr(adapter, "modules_to_save", ())}
    whole = [t for t in shape.outside if t.name.split(".")[-2] in named]
    yield from (tensor.numel for tensor in whole)
    if ties and named & {"lm_head", "embed_out"} and not any(t.numel == embedding for t in whole):
        yield embedding  # head and embedding are one matrix
    if tokens := getattr(adapter, "trainable_token_indices", None):
        yield len(tokens) * shape.hidden


def _prefix(adapter: Any, shape: ModelShape) -> Iterator[int]:
    width = shape.kv_heads * shape.head_dim
    number, pairs = adapter.num_virtual_tokens, len(shape.layers) * 2 * width
    if not adapter.prefix_projection:
        yield number * pairs
        return
    inner = shape.hidden
    yield from (number * width, width * inner, inner, inner * pairs, pairs)


def _prompt(adapter: Any, shape: ModelShape) -> Iterator[int]:
    yield adapter.num_virtual_tokens * shape.hidden


def _p(adapter: Any, shape: ModelShape) -> Iterator[int]:
    width = shape.hidden
    inner = adapter.encoder_hidden_size or width
    yield adapter.num_virtual_tokens * width
    yield from (width * inner, inner, inner * inner, inner, inner * width, width)


def _norms(adapter: Any, shape: ModelShape) -> Iterator[int]:
    for plan in shape.layers:
        yield from (numel for path, numel in plan.small if is_norm(path))
    yield from (t.numel for t in shape.outside if len(t.shape) == 1 and is_norm(t.name))


def is_norm(path: str) -> bool:
    """Whether a tensor is a norm's weight or bias."""
    return re.search(r"norm|(^|\.)ln_", path) is not None


def _frozen_but_last(adapter: FreezeAdapter, shape: ModelShape) -> Iterator[int]:
    for plan in shape.layers[-adapter.trained_layers :]:
        for matrix in plan.matrices:
            yield from [matrix.numel] * matrix.count
            yield from [matrix.out] * (matrix.count if matrix.bias else 0)
        yield from (numel for _, numel in plan.small)
    if not adapter.train_head:
        return
    yield from (t.numel for t in shape.outside if len(t.shape) == 1 and is_norm(t.name))
    head = shape.head or shape.embedding
    yield head.numel if head else 0


_APART: dict[str, Any] = {
    "prefix_tuning": _prefix,
    "prompt_tuning": _prompt,
    "p_tuning": _p,
    "ln_tuning": _norms,
    "freeze": _frozen_but_last,
}


def fixed(adapter: Any, matrices: list[tuple[Matrix, int]]) -> int:
    """Numbers that lie there and aren't trained, in float32; `matrices` that have the adapter, and how many alike.

    VeRA's random projections, which all share; BOFT's permutations, written out as a matrix each (boft_P).
    """
    if adapter.type == "vera" and matrices:
        return rank(adapter) * (max(m.inp for m, _ in matrices) + max(m.out for m, _ in matrices))
    if adapter.type == "boft":
        return sum(times * adapter.boft_n_butterfly_factor * m.inp**2 for m, times in matrices)
    return 0


def virtual_tokens(adapter: Any) -> int:
    """Learnt vectors that stand in front of every row."""
    return adapter.num_virtual_tokens if adapter and adapter.type in ("prompt_tuning", "p_tuning") else 0
