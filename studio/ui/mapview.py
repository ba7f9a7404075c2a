"""The map of a dataset's rows, made ready to be drawn by the page.

In: the worker's points and groups. Out: plain values; the groups' names, which are words out of rows, as HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.ui import shown

_MOST_POINTS = 20_000


def drawn(found: Mapping[str, Any]) -> dict[str, Any]:
    """`points` are [x, y, group, position], coordinates from 0 to 1; a group has its name, its rows and an example."""
    groups = [
        {"html": shown.line(str(group["label"]), 80), "rows": int(group["rows"]), "example": int(group["example"])}
        for group in found["clusters"]
    ]
    points = [[float(x), float(y), int(group), int(row)] for x, y, group, row in found["points"][:_MOST_POINTS]]
    return {"points": points, "groups": groups, "explained": str(found.get("explained") or "")}
