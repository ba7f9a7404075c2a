"""Pictures of counts, as SVG and as tables with bars in them; every picture has its numbers behind it.

In: numbers and words that are ready to be said. Out: HTML. Colours are the style sheet's. Labels come as HTML, for
some are other people's words.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from studio.ui import shown
from studio.ui.text_data import say

_WIDE, _HIGH, _FOOT = 440, 120, 20  # of a histogram's drawing area, and the room under it for numbers
_HEAD = 28  # room over it for what marks say
_MOST_TICKS = 5


class Bar(NamedTuple):
    """One line of a table with bars; `label` is HTML, `share` is of 1."""

    label: str
    rows: int
    share: float


class Mark(NamedTuple):
    """A line through a histogram at a value."""

    value: float
    kind: str
    label: str


def bars(title: str, lines: Sequence[Bar], heading: str, *, other: str = "") -> str:
    """A table whose lines are drawn as bars too."""
    longest = max((line.share for line in lines), default=0.0) or 1.0
    body = "".join(
        f'<tr><th scope="row">{line.label}</th><td class="num">{shown.count(line.rows)}</td>'
        f'<td class="num">{escape(percent(line.share))}</td>'
        f'<td class="drawn" aria-hidden="true"><i style="width:{100 * line.share / longest:.1f}%"></i></td></tr>'
        for line in lines
    )
    note = f'<p class="st-hint">{escape(other)}</p>' if other else ""
    return (
        f'<section class="st-card stat"><h3>{escape(title)}</h3><table class="bars"><thead class="unseen-head"><tr>'
        f"<th>{escape(heading)}</th><th>{escape(say('stats.count'))}</th><th>{escape(say('stats.share'))}</th>"
        f"<th></th></tr></thead><tbody>{body}</tbody></table>{note}</section>"
    )


def histogram(title: str, edges: Sequence[int], counts: Sequence[int], unit: str, marks: Sequence[Mark] = ()) -> str:
    """A figure; the last bar holds whatever is beyond. `edges` has one more than `counts`."""
    if not counts:
        return ""
    most = max(counts) or 1
    # The last bar may reach far: it is drawn as wide as the others, and its number says that it is open.
    width = _WIDE / len(counts)
    rects = "".join(
        f'<rect x="{place * width + 0.5:.1f}" y="{_HIGH - _HIGH * count / most:.1f}" width="{max(width - 1, 1):.1f}" '
        f'height="{_HIGH * count / most:.1f}"><title>{_span(edges, place, unit)}: {shown.count(count)}</title></rect>'
        for place, count in enumerate(counts)
    )
    lines = "".join(_mark(mark, edges, width) for mark in marks)
    label = escape(f"{title}: {_span(edges, 0, unit)} … {_span(edges, len(counts) - 1, unit)}")
    return (
        f'<svg class="histogram" viewBox="0 {-_HEAD} {_WIDE} {_HEAD + _HIGH + _FOOT}" role="img" aria-label="{label}">'
        f'{rects}<line class="axis" x1="0" x2="{_WIDE}" y1="{_HIGH}" y2="{_HIGH}"/>{_ticks(edges, width)}{lines}</svg>'
        f"{_table(edges, counts, unit)}"
    )


def _at(value: float, edges: Sequence[int], width: float) -> float:
    """Where a value stands: within its bar, by how far it is between its edges."""
    for place in range(len(edges) - 1):
        if value < edges[place + 1]:
            inside = (value - edges[place]) / max(edges[place + 1] - edges[place], 1)
            return (place + max(inside, 0.0)) * width
    return (len(edges) - 1) * width


def _mark(mark: Mark, edges: Sequence[int], width: float) -> str:
    x = _at(mark.value, edges, width)
    anchor = "end" if x > _WIDE * 0.7 else "start"
    dx = -4 if anchor == "end" else 4
    top = -4 if mark.kind == "suggested" else -17
    return (
        f'<line class="mark {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 9}" y2="{_HIGH}"/>'
        f'<text class="mark {mark.kind}" x="{x + dx:.1f}" y="{top}" text-anchor="{anchor}">{escape(mark.label)}</text>'
    )


def _ticks(edges: Sequence[int], width: float) -> str:
    bars_drawn = len(edges) - 1
    step = max(-(-bars_drawn // _MOST_TICKS), 1)
    return "".join(
        f'<text x="{place * width:.1f}" y="{_HIGH + 14}" text-anchor="{"start" if place == 0 else "middle"}">'
        f"{shown.count(edges[place])}</text>"
        for place in range(0, bars_drawn, step)
    )


def _span(edges: Sequence[int], place: int, unit: str) -> str:
    first, last = edges[place], edges[place + 1] - 1
    span = shown.count(first) if first >= last else f"{shown.count(first)}–{shown.count(last)}"
    return escape(f"{span} {unit}")


def _table(edges: Sequence[int], counts: Sequence[int], unit: str) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_span(edges, place, unit)}</th><td class="num">{shown.count(count)}</td></tr>'
        for place, count in enumerate(counts)
        if count
    )
    return (
        f'<details class="st-fold"><summary>{escape(say("stats.table"))}</summary><div class="inside table-frame">'
        f'<table class="st-table"><tbody>{rows}</tbody></table></div></details>'
    )


def percent(share: float) -> str:
    """A share of 1 in percent, with as many digits as tell something."""
    value = 100 * share
    if value == 0 or value >= 10:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.1 else "< 0.1 %"
