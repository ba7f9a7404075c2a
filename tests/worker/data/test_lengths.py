"""Lengths and cuts agree with what numpy finds in the whole list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.worker.data.lengths import QUANTILES, Cuts, Lengths

SHORT = st.lists(st.integers(0, 2047), min_size=1, max_size=200)
ANY = st.lists(st.one_of(st.integers(0, 5000), st.integers(0, 10**9)), min_size=1, max_size=200)


def measured(lengths: list[int]) -> Lengths:
    found = Lengths()
    for length in lengths:
        found.add(length)
    return found


@given(SHORT)
def test_short_lengths_have_exact_quantiles(lengths: list[int]) -> None:
    told = measured(lengths).summary()
    for name, share in QUANTILES.items():
        assert told[name] == np.quantile(lengths, share, method="inverted_cdf")
    assert (told["count"], told["max"]) == (len(lengths), max(lengths))
    assert told["mean"] == pytest.approx(np.mean(lengths), abs=0.006)


@given(ANY)
def test_long_lengths_have_quantiles_right_to_a_thousandth(lengths: list[int]) -> None:
    told = measured(lengths).summary()
    for name, share in QUANTILES.items():
        exact = np.quantile(lengths, share, method="inverted_cdf")
        assert exact * (1 - 1 / 1024) <= told[name] <= exact


@given(ANY)
def test_a_histogram_holds_every_length_once(lengths: list[int]) -> None:
    told = measured(lengths).histogram()
    edges, counts = told["edges"], told["counts"]
    assert len(edges) == len(counts) + 1 <= 53
    assert edges == sorted(set(edges))
    assert edges[0] <= min(lengths) and max(lengths) < edges[-1]
    assert sum(counts) == len(lengths)


@given(SHORT)
def test_a_histogram_of_short_lengths_is_numpys(lengths: list[int]) -> None:
    told = measured(lengths).histogram()
    expected, _ = np.histogram(lengths, bins=[*told["edges"][:-1], told["edges"][-1] - 0.5])
    assert told["counts"] == expected.tolist()


def test_memory_does_not_grow_with_the_lengths() -> None:
    found = measured(list(range(0, 3_000_000, 7)))
    assert len(found._bins) < 16_000  # 1,024 a power of two


def test_of_no_rows_nothing_is_told() -> None:
    assert Lengths().summary()["histogram"] == {"edges": [], "counts": []}
    assert Cuts(100).suggested() is None
    assert all(entry["rows_cut"] == 0 for entry in Cuts(100).table())


ROWS = st.lists(
    st.tuples(st.integers(1, 3000), st.one_of(st.none(), st.integers(1, 3000))), min_size=1, max_size=300
)  # one sequence or two


@given(ROWS, st.integers(8, 4000))
def test_the_cost_of_a_cut_is_that_of_cutting_every_row(rows: list[tuple[int, int | None]], present: int) -> None:
    cuts = Cuts(present)
    whole = [tuple(length for length in row if length is not None) for row in rows]
    firsts = [min(row) // 2 for row in whole]
    for row, first in zip(whole, firsts, strict=True):
        cuts.add(row, first)
    told = cuts.table()
    assert present in [entry["max_length"] for entry in told]
    assert told[-1]["rows_cut"] == 0 or told[-1]["max_length"] < max(map(max, whole))
    for entry in told:
        at = entry["max_length"]
        assert entry["rows_cut"] == sum(max(row) > at for row in whole)
        assert entry["tokens_lost"] == sum(max(length - at, 0) for row in whole for length in row)
        assert entry["rows_without_loss"] == sum(first >= at for first in firsts)
        assert entry["share_cut"] == pytest.approx(entry["rows_cut"] / len(rows), abs=1e-6)
        assert entry["share_lost"] == pytest.approx(entry["tokens_lost"] / sum(map(sum, whole)), abs=1e-6)


@given(ROWS)
def test_the_suggested_length_is_the_smallest_multiple_of_64_that_cuts_at_most_one_in_a_hundred(
    rows: list[tuple[int, int | None]],
) -> None:
    cuts = Cuts(1024)
    longest = [max(length for length in row if length is not None) for row in rows]
    for length in longest:
        cuts.add((length,), 1)
    found = cuts.suggested()
    assert found is not None
    fitting = [n for n in range(64, 3073, 64) if sum(length > n for length in longest) <= 0.01 * len(longest)]
    assert found["max_length"] == fitting[0]
    assert found["rows_cut"] == sum(length > fitting[0] for length in longest)
    assert str(fitting[0]) in found["why"]
