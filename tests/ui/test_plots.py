"""Thinning curves: few points, and nothing telling lost."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from studio.ui.plots import downsample

numbers = st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf)


@given(st.lists(numbers, max_size=400), st.integers(8, 120))
def test_L03_ends_extremes_and_missing_numbers_survive(values: list[float], most: int) -> None:
    points = list(enumerate(values))
    kept = downsample(points, most)
    assert len(kept) <= most
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})
    assert all(points[step][1] is value for step, value in kept)
    if points:
        assert kept[0] == points[0] and kept[-1] == points[-1]
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        left = [value for _, value in kept if math.isfinite(value)]
        assert max(left) == max(finite) and min(left) == min(finite)
    assert any(not math.isfinite(v) for v in values) == any(not math.isfinite(v) for _, v in kept)


def test_L03_a_single_spike_and_a_single_nan_in_a_long_curve_survive() -> None:
    points = [(step, 1.0) for step in range(100_000)]
    points[31_337] = (31_337, 99.0)
    points[77_777] = (77_777, math.nan)
    kept = dict(downsample(points))
    assert len(kept) <= 2000
    assert kept[31_337] == 99.0
    assert math.isnan(kept[77_777])


def test_a_short_curve_is_left_as_it_is() -> None:
    points = [(1, 2.0), (5, 1.0)]
    assert downsample(points) == points
    assert downsample([]) == []
