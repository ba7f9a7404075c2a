"""The System tab: what this machine is, what runs on it, how good its estimates are, what is installed and where.

In: nothing but the place: assets/js/system.js draws it from /api/machine, every two seconds while the tab is open; and
what the studio has learnt of its own estimates, as JSON values for that answer. Out: the place, the values.
"""

from __future__ import annotations

from typing import Any

from studio.ui.context import Studio
from studio.ui.place import place
from studio.workspace.hardware import Machine
from studio.workspace.learning import Learning

MOST_RUNS = 8


def build_tab(_studio: Studio) -> None:
    """Leave the place that the page's scripts fill."""
    place("system-view")


def learnt(learning: Learning, machine: Machine) -> dict[str, Any]:
    """How near the latest runs' estimates came, and what they taught of the device that a run would take now.

    Bytes, watts; errors as shares of what was predicted.
    """
    device = machine.gpus[0].name if machine.gpus else "cpu"
    correction = learning.correction(device)
    return {
        "device": device if machine.gpus else "",
        "runs": [
            {
                "run": x.run_id,
                "device": x.device,
                "predicted": x.predicted,
                "measured": x.measured,
                "error": x.error,
                "assumed": x.assumed,
            }
            for x in learning.history(most=MOST_RUNS)
        ],
        "count": correction.runs,
        "low": correction.low,
        "high": correction.high,
        "overhead": correction.overhead,
        "reserved_ratio": correction.reserved_ratio,
        "draw": correction.draw,
        "rates": dict(correction.rates),
    }
