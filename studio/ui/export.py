"""The Export tab: a finished run, taken away as files that other programs load.

In: nothing but the place: assets/js/export.js fills it from /api/export when the tab is first opened. Out: the place.
"""

from __future__ import annotations

from studio.ui.context import Studio
from studio.ui.place import place


def build_tab(_studio: Studio) -> None:
    """Leave the place that the page's scripts fill."""
    place("export-view")
