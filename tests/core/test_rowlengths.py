"""RowLengths against the plain list of all lengths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from studio.core.rowlengths import RowLengths

many = st.lists(st.integers(0, 300), max_size=200)


@given(many, st.integers(0, 310), st.integers(0, 250), st.integers(0, 250))
def test_it_is_the_sorted_list(lengths: list[int], cut: int, start: int, stop: int) -> None:
    found, plain = RowLengths.of(lengths), sorted(lengths, reverse=True)
    assert list(found) == plain and len(found) == len(plain)
    assert found[start:stop] == plain[start:stop] and found[:: max(1, stop)] == plain[:: max(1, stop)]
    assert [found[i] for i in range(len(plain))] == plain and [found[-i - 1] for i in range(len(plain))] == plain[::-1]
    assert (found.longest, found.total()) == (max(lengths, default=0), sum(lengths))
    assert found.above(cut) == sum(length > cut for length in lengths)
    assert list(found.cut(cut)) == sorted((min(length, cut) for length in lengths), reverse=True)


@given(many)
def test_equal_lengths_in_any_order_are_equal(lengths: list[int]) -> None:
    found = RowLengths.of(lengths)
    assert found == RowLengths.of(lengths[::-1]) == RowLengths.of(found)
    assert hash(found) == hash(RowLengths.of(lengths[::-1]))
    assert found != RowLengths.of([*lengths, 7])


def test_a_million_rows_are_as_many_entries_as_lengths() -> None:
    found = RowLengths(dict.fromkeys(range(1, 1001), 1000), learnt=0.25)
    assert len(found) == 1_000_000 and found[999_999] == 1 and found[1000] == 999
    assert sum(1 for _ in found.items()) == 1000
    assert found.cut(10).learnt == 0.25 and found.cut(10).above(9) == 991_000
