"""Padding against transformers' own sampler, and against drawing."""

from __future__ import annotations

import random
import statistics

import pytest

from studio.core.padding import padding
from studio.core.rowlengths import RowLengths


def skewed(count: int, seed: int = 0) -> list[int]:
    chance = random.Random(seed)
    return [min(1024, int(chance.lognormvariate(5, 0.8)) + 5) for _ in range(count)]


@pytest.mark.parametrize(("rows", "batch", "accumulation"), [(3000, 4, 4), (150, 8, 1), (40, 4, 4)])
def test_padding_is_what_transformers_sampler_makes(rows: int, batch: int, accumulation: int) -> None:
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    lengths = skewed(rows)
    means, squares = [], []
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        order = get_length_grouped_indices(lengths, batch * accumulation, generator=generator)
        padded = [max(lengths[i] for i in order[at : at + batch]) for at in range(0, rows, batch)]
        whole = [length for at, length in zip(range(0, rows, batch), padded, strict=True)
                 for _ in order[at : at + batch]]  # fmt: skip
        means.append(statistics.mean(whole))
        squares.append(statistics.mean(length**2 for length in whole))
    mean, square = padding(RowLengths.of(lengths), batch, accumulation, True, rows)
    assert mean == pytest.approx(statistics.mean(means), rel=0.04)
    assert square == pytest.approx(statistics.mean(squares), rel=0.08)


def test_padding_of_rows_in_any_order_is_the_longest_of_as_many_drawn() -> None:
    lengths, chance = skewed(300), random.Random(1)
    drawn = [max(chance.sample(lengths, 4)) for _ in range(20_000)]
    mean, square = padding(RowLengths.of(lengths), 4, 1, False, 300)
    assert mean == pytest.approx(statistics.mean(drawn), rel=0.01)
    assert square == pytest.approx(statistics.mean(n**2 for n in drawn), rel=0.03)


def test_rows_that_are_alike_have_no_padding() -> None:
    for grouped in (False, True):
        assert padding(RowLengths({77: 50}), 8, 2, grouped, 50) == (pytest.approx(77), pytest.approx(77**2))
