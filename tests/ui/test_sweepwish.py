"""What a search for better settings is told from the form, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import knobs
from studio.core.sweep import parse_vary
from studio.ui import form, sweepwish
from studio.ui.sweepwish import Row, Wish

RATE, RANK = "training.learning_rate", "adapter.r"
RATES = Row(path=RATE, low="1e-5", high="1e-3", log=True)
RANKS = Row(path=RANK, by="choices", choices="8, 16,32")


def values(**changed: Any) -> dict[str, Any]:
    return {**form.to_values(RunConfig()), **{name.replace("__", "."): value for name, value in changed.items()}}


def wish(*vary: Row, **more: Any) -> Wish:
    return Wish(**{"values": values(), "vary": list(vary), **more})


def faults(asked: Wish) -> dict[str, str]:
    config, problems = sweepwish.judge(asked)
    assert (config is None) == bool(problems)
    return {problem["field"]: problem["text"] for problem in problems}


def test_a_wish_is_a_search_with_the_form_as_its_base() -> None:
    config = sweepwish.config_of(wish(RATES, RANKS, values=values(training__num_train_epochs="7"), trials=" 3 "))
    assert config.base.training.num_train_epochs == 7
    assert (config.trials, config.metric, config.maximize, config.prune) == (3, "eval_loss", False, True)
    rates, ranks = config.ranges
    assert (rates.low, rates.high, rates.log) == (1e-5, 1e-3, True) and ranks.choices == (8, 16, 32)


def test_a_search_never_consists_of_runs_that_only_find_a_rate() -> None:
    finding = values(training__find_learning_rate=True)
    assert not sweepwish.config_of(wish(RATES, values=finding)).base.training.find_learning_rate


@pytest.mark.parametrize(("typed", "steps"), [("", None), ("60", 60), ("5000", None)])
def test_the_finder_is_a_short_run(typed: str, steps: int | None) -> None:
    found = sweepwish.base_of(values(training__max_steps=typed), finds=True).training
    assert found.find_learning_rate and found.max_steps == steps


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (Row(path=RATE, low="1e-5", high="2"), "less than or equal to 1"),
        (Row(path=RATE, low="1e-3", high="1e-5"), "1e-3 isn't below 1e-5"),
        (Row(path=RATE, low="0", high="1e-3", log=True), "begins above 0"),
        (Row(path=RATE, low="", high="1e-3"), "is no number"),
        (Row(path=RATE, low="1e-5", high="1e-3:log:log"), "no scale"),
        (Row(path=RANK, by="choices", choices="8"), "two different values"),
        (Row(path=RANK, by="choices", choices="8, wide"), "whole number"),
        (Row(path="method.beta", low="0.1", high="0.5"), "no such knob"),
        (Row(path="training.__class__", by="choices", choices="1,2"), "no such knob"),
        (Row(path="a" * 90, by="choices", choices="1,2"), "no such knob"),
    ],
)
def test_S05_what_a_knob_cannot_be_is_said_at_its_row(row: Row, says: str) -> None:
    told = faults(wish(RATES if row.path != RATE else RANKS, row))
    assert list(told) == ["vary.1"] and says in told["vary.1"]
    with pytest.raises(ConfigError):
        sweepwish.config_of(wish(row))


def test_what_else_is_wrong_is_said_where_it_is() -> None:
    assert "at least 1" not in faults(wish(RATES, trials="3"))
    for typed in ("0", "many", "2.5", "", "1001", "²"):
        assert list(faults(wish(RATES, trials=typed))) == ["trials"], typed
    held = values(dataset__validation_split="0")
    assert "held-out" in faults(wish(RATES, values=held))["metric"]
    assert not faults(wish(RATES, values=held, metric="loss"))
    assert list(faults(wish(RATES, metric="eval_rewards/margins"))) == ["metric"]
    assert list(faults(wish())) == [""] and list(faults(wish(RATES, RATES))) == [""]
    assert list(faults(wish(RATES, values=values(training__learning_rate="2e")))) == [""]
    assert set(faults(wish(Row(path=RATE, low="x", high="1"), trials="x"))) == {"vary.0", "trials"}


def test_a_figure_that_is_better_high_is_sought_high() -> None:
    base = parse_config({"method": {"name": "dpo"}})
    told = {figure["name"]: figure["high"] for figure in sweepwish.figures(base)}
    assert told == {"eval_loss": False, "loss": False, "eval_rewards/accuracies": True, "eval_rewards/margins": True}


def test_everything_that_can_be_varied_is_sought_where_it_may_be() -> None:
    """Whatever core takes a suggestion for, it takes; what is suggested for nothing else stays empty."""
    for adapter in ("lora", "boft", None):
        config = parse_config({"adapter": adapter and {"type": adapter}})
        known = {knob.path for knob in knobs()}
        for knob in sweepwish.variable(config):
            assert knob["path"] in known and knob["path"] not in ("dataset.validation_split", "training.eval_steps")
            row = Row(path=knob["path"], **knob["suggestion"])
            if row.choices or row.low:
                told = faults(wish(row, values=form.to_values(config)))
                assert not told, (knob, told)
                parse_vary(row.spelt())
        assert any(knob["path"].startswith("adapter.") for knob in sweepwish.variable(config)) == bool(adapter)


@pytest.mark.parametrize(
    ("rate", "ends"), [(2e-4, ("1e-5", "1e-3")), (1e-5, ("1e-6", "1e-4")), (1e-3, ("1e-4", "0.01"))]
)
def test_rates_are_sought_over_decades_around_the_present_one(rate: float, ends: tuple[str, str]) -> None:
    config = parse_config({"training": {"learning_rate": rate}})
    told = next(knob for knob in sweepwish.variable(config) if knob["path"] == RATE)["suggestion"]
    assert (told["low"], told["high"], told["log"]) == (*ends, True)


def test_ranks_are_tried_half_and_twice_as_large() -> None:
    told = next(knob for knob in sweepwish.variable(RunConfig()) if knob["path"] == RANK)["suggestion"]
    assert told["choices"] == "8, 16, 32"


def test_the_time_of_all_trials_is_told() -> None:
    assert "8 × 2 min = 16 min" in sweepwish.time_told(8, 120, prune=False)
