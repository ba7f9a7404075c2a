"""The Data tab: the datasets, their rows in every light, and what a check, a count and a map say of them.

In: nothing but the place: assets/js/data.js fills it from /api/data when the tab is first opened. Out: the place.
"""

from __future__ import annotations

from studio.ui.context import Studio
from studio.ui.place import place


def build_tab(_studio: Studio) -> None:
    """Leave the place that the page's scripts fill."""
    place("data-view")
