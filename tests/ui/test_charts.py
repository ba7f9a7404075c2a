"""Pictures of counts: every number that is drawn stands in a table too."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.ui.charts import Bar, Mark, bars, histogram, percent


def parsed(html: str) -> ElementTree.Element:
    """Well-formed, or this raises."""
    return ElementTree.fromstring(f"<x>{html}</x>")


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 500), st.integers(0, 2000))
def test_a_histogram_draws_each_count_inside_its_frame_and_tells_it(counts: list[int], step: int, mark: int) -> None:
    edges = [place * step for place in range(len(counts) + 1)]
    html = histogram("Lengths", edges, counts, "tokens", [Mark(mark, "present", f"cut at {mark}")])
    root = parsed(html)
    drawn = [float(rect.attrib["height"]) for rect in root.iter("rect")]
    assert len(drawn) == len(counts)
    assert all(0 <= height <= 120 for height in drawn)
    assert max(drawn) == (120 if any(counts) else 0)
    told = [cell.text for cell in root.iter("td")]
    assert told == [f"{count:,}" for count in counts if count]
    at = float(root.find(".//line[@class='mark present']").attrib["x1"])  # type: ignore[union-attr]
    assert 0 <= at <= 440


def test_a_mark_stands_in_the_bar_that_holds_its_value() -> None:
    root = parsed(histogram("L", [0, 10, 20, 500], [1, 1, 1], "tokens", [Mark(15, "present", "")]))
    x = float(root.find(".//line[@class='mark present']").attrib["x1"])  # type: ignore[union-attr]
    second = list(root.iter("rect"))[1]
    left = float(second.attrib["x"])
    assert left < x < left + float(second.attrib["width"])


def test_nothing_is_drawn_of_nothing() -> None:
    assert histogram("L", [], [], "tokens") == ""


def test_bars_are_as_long_as_their_shares() -> None:
    html = bars("T", [Bar("a", 30, 0.6), Bar("b", 15, 0.3), Bar("c", 0, 0.0)], "Name")
    assert re.findall(r"width:([\d.]+)%", html) == ["100.0", "50.0", "0.0"]
    assert [cell for cell in ("30", "15", "60 %", "30 %") if f">{cell}</td>" not in html] == []
    parsed(html)


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (1, "100 %"), (0.5, "50 %"), (0.034, "3.4 %"), (0.001, "0.1 %"), (0.0001, "< 0.1 %")],
)
def test_shares_have_few_digits(share: float, words: str) -> None:
    assert percent(share) == words
