"""The Runs tab: every run, and one of them as it learns.

In: nothing but the place: assets/js/runs.js and its neighbours draw the list, the curves and the buttons from /api/live
and /api/runs, so that a tick costs one small request and no Gradio event. Out: the place.
"""

from __future__ import annotations

from studio.ui.context import Studio
from studio.ui.place import place


def build_tab(_studio: Studio) -> None:
    """Leave the place that the page's scripts fill."""
    place("runs-view")
