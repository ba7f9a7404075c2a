"""The learning-rate finder: where a known curve falls fastest, and a run that keeps nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from transformers import TrainerControl, TrainerState

from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.worker.ratefinder import HIGHEST, LOWEST, RateFinder, suggestion
from tests.worker.conftest import MakeRun

RATES = [LOWEST * (HIGHEST / LOWEST) ** (step / 99) for step in range(100)]


@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2])
def test_it_suggests_where_the_loss_falls_fastest(best: float) -> None:
    """A logistic drop around `best`, then a rise: the steepest place is known."""
    losses = [3 - 2 / (1 + (best / rate) ** 2) + max(0.0, math.log10(rate / best) - 1.2) * 3 for rate in RATES]
    found = suggestion(RATES, losses)
    assert found is not None and best / 2 < found < best * 2


def test_it_suggests_nothing_where_nothing_falls() -> None:
    assert suggestion(RATES, [1 + rate for rate in RATES]) is None
    assert suggestion(RATES[:5], [3, 2, 1, 0.5, 0.2]) is None
    assert suggestion(RATES, [float("nan")] * 100) is None


def test_a_run_that_finds_keeps_nothing_and_says_what_it_found(
    make_run: MakeRun, in_process: Callable[[JobFolder], int]
) -> None:
    job = make_run(training={"find_learning_rate": True, "max_steps": 40, "eval_steps": 2, "save_steps": 2})
    assert in_process(job) == 0
    told = Progress()
    for event in EventTail(job.events).read():
        told.fold(event)
    assert told.ended is not None and told.ended.status == "finished"
    result = told.ended.result
    assert len(result["rates"]) == len(result["losses"]) <= 40
    assert result["rates"] == sorted(result["rates"]) and result["rates"][0] == pytest.approx(LOWEST)
    assert [value for _, value in told.series["loss"]] == pytest.approx(result["losses"])
    assert [rate for _, rate in told.series["learning_rate"]] == result["rates"], "told as it goes, not the schedule's"
    assert 1e-5 < result["suggested"] < 1
    assert "eval_loss" not in told.series and not told.checkpoints
    assert not job.adapter.exists() and not list(job.checkpoints.glob("checkpoint-*"))


def test_a_loss_that_is_no_number_ends_the_search_and_is_no_fault() -> None:
    finder, control, state = RateFinder(None, 10), TrainerControl(), TrainerState()
    for step, loss in enumerate([3.0, 2.0, float("nan")], 1):
        state.global_step = step
        logs = {"loss": loss, "grad_norm": loss}
        finder.on_log(None, state, control, logs)
        assert math.isfinite(sum(logs.values())), "nobody who hears of it later takes it for a failure"
    assert control.should_training_stop and finder.losses == [3.0, 2.0] and len(finder.rates) == 2
