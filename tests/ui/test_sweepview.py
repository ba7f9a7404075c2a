"""What a search for better settings says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.sweep import SweepConfig, Trial
from studio.ui import sweepview
from studio.workspace.sweeps import Sweep

RATE, RANK = "training.learning_rate", "adapter.r"


def sweep(*trials: Trial, status: str = "running", **more: Any) -> Sweep:
    wished = {"vary": [f"{RATE}=1e-5:1e-3:log", f"{RANK}=8,16"], "trials": 4, "name": "Rates", **more}
    config = SweepConfig.model_validate(wished)
    return Sweep("20261122-1200-rates", config, list(trials), status)


def trial(number: int, outcome: Any = "finished", value: float | None = None) -> Trial:
    return Trial(number, {RATE: 1e-4, RANK: 8}, f"run-{number}", outcome, value)


def test_a_search_is_a_line_with_how_far_it_is_and_its_best() -> None:
    told = sweepview.line(sweep(trial(0, value=2.0), trial(1, value=1.5), trial(2, "running", 1.0)), "")
    assert (told["status"], told["ended"], told["trials"], told["best"]) == ("running", 2, 4, 1.5)
    assert told["runs"] == ["run-0", "run-1", "run-2"]
    assert sweepview.line(sweep(name=""), "")["name"] == "starter: learning_rate, r"


@pytest.mark.parametrize(
    ("status", "last", "problem", "shown"),
    [
        ("stopped", "stopped", "", "stopped"),
        ("stopped", "running", "", "stopping"),
        ("stopped", "finished", "The dataset went.", "failed"),
        ("waiting", "running", "", "waiting"),
        ("finished", "failed", "", "finished"),
    ],
)
def test_the_state_of_a_search_says_what_became_of_it(status: str, last: str, problem: str, shown: str) -> None:
    told = sweepview.line(sweep(trial(0, last), status=status), problem)
    assert told["status"] == shown and told["problem"] == problem


def test_an_opened_search_has_an_axis_a_knob_and_a_row_a_trial() -> None:
    told = sweepview.opened(sweep(trial(0, value=2.0), trial(1, "pruned", 3.0), metric="mine", maximize=True), "")
    assert [(axis["title"], axis["log"], axis["choices"]) for axis in told["axes"]] == [
        ("Learning rate", True, []),
        ("Rank", False, [8, 16]),
    ]
    assert told["best_trial"] == 0 and told["figure"] == "mine", "the command line takes any figure"
    assert [row["outcome"] for row in told["rows"]] == ["finished", "pruned"]
