"""What a sweep varies: read from what is typed, checked before anything is tried."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml, parse_as, parse_yaml
from studio.core.errors import ConfigError
from studio.core.sweep import SweepConfig, Trial, Vary, best_trial, check_ranges, parse_vary, trial_config


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("training.learning_rate=1e-5:1e-3:log", Vary("training.learning_rate", 1e-5, 1e-3, log=True)),
        ("adapter.lora_dropout=0.0:0.1", Vary("adapter.lora_dropout", 0.0, 0.1)),
        ("adapter.r=4:64:log", Vary("adapter.r", 4, 64, log=True, whole=True)),
        ("adapter.r=8, 16,32", Vary("adapter.r", choices=(8, 16, 32))),
        ("training.packing=true,false", Vary("training.packing", choices=(True, False))),
    ],
)
def test_ranges_and_choices_are_read(text: str, wanted: Vary) -> None:
    assert parse_vary(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training.learning_rate", "doesn't say what to try"),
        ("training.learning_rate=", "doesn't say what to try"),
        ("training.learning_rate=1e-3:1e-5", "isn't below"),
        ("training.learning_rate=0:1:log", "begins above 0"),
        ("training.learning_rate=0.1:1:lin", "no scale"),
        ("training.learning_rate=a:b", "is no number"),
        ("training.learning_rate=nan:1", "is no number"),
        ("adapter.r=8", "two different values"),
        ("adapter.r=8,8", "two different values"),
    ],
)
def test_what_can_t_be_tried_is_refused_in_a_sentence(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        parse_vary(text)
    assert raised.value.hint.startswith("Write it as") and raised.value.field == text.partition("=")[0]


@pytest.mark.parametrize(
    ("vary", "field"),
    [
        ("training.learning_rate=1e-3:2.0", "training.learning_rate"),
        ("training.lerning_rate=1e-5:1e-3", "training.lerning_rate"),
        ("nowhere.at_all=1,2", "nowhere.at_all"),
        ("training.optim=adamw_torch,adamm", "training.optim"),
    ],
)
def test_ends_that_are_no_values_of_the_knob_are_refused_before_anything_runs(vary: str, field: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check_ranges(SweepConfig(vary=[vary]))
    assert raised.value.field == field


def test_a_sweep_by_validation_needs_held_out_rows_and_no_knob_twice() -> None:
    bare: dict[str, Any] = {"base": {"dataset": {"validation_split": 0}}, "vary": ["adapter.r=8,16"]}
    with pytest.raises(ConfigError, match="no trial is better"):
        parse_as(SweepConfig, bare)
    assert parse_as(SweepConfig, {**bare, "metric": "loss"}).metric == "loss"
    with pytest.raises(ConfigError, match="twice"):
        parse_as(SweepConfig, {"vary": ["adapter.r=8,16", "adapter.r=4:8"]})


def test_a_sweep_s_file_gives_it_back() -> None:
    config = SweepConfig(vary=["training.learning_rate=1e-5:1e-3:log"], trials=3, base=RunConfig())
    assert parse_as(SweepConfig, parse_yaml(config_to_yaml(config), "sweep.yaml")) == config


def test_a_trial_is_the_base_with_its_values() -> None:
    config = SweepConfig(vary=["adapter.r=8,16"])
    trial = trial_config(config, {"adapter.r": 8, "training.learning_rate": 1e-5})
    assert trial.adapter is not None and trial.model_dump()["adapter"]["r"] == 8
    assert trial.training.learning_rate == 1e-5 and trial.dataset == config.base.dataset


def test_the_best_is_a_finished_one() -> None:
    config = SweepConfig(vary=["adapter.r=8,16"])
    trials = [
        Trial(0, {}, "a", "finished", 2.0),
        Trial(1, {}, "b", "pruned", 0.5),
        Trial(2, {}, "c", "finished", 1.0),
        Trial(3, {}, "d", "failed"),
    ]
    best = best_trial(config, trials)
    assert best is not None and best.run_id == "c"
    highest = best_trial(config.model_copy(update={"maximize": True}), trials)
    assert highest is not None and highest.run_id == "a"
    assert best_trial(config, trials[3:]) is None
