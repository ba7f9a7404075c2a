"""The System tab: what this machine is, what runs on it, what is installed and where files lie.

In: nothing but the place: assets/js/system.js draws it from /api/machine, every two seconds while the tab is open.
Out: the place.
"""

from __future__ import annotations

from studio.ui.context import Studio
from studio.ui.place import place


def build_tab(_studio: Studio) -> None:
    """Leave the place that the page's scripts fill."""
    place("system-view")
