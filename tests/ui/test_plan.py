"""What a run is said to be before it starts is what it will be."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.config import RunConfig
from studio.core.configfile import override, parse_config
from studio.ui import form, plan
from studio.workspace.presets import load_preset
from tests.core.any_config import any_config


@given(any_config(), st.sampled_from([{}, {"adapter": None}, {"dataset": {"columns": {"a": "b"}}}]))
@settings(max_examples=200, deadline=None)
def test_the_command_starts_the_same_run(config: RunConfig, base: dict[str, Any]) -> None:
    words = shlex.split(plan.command(config, base, Path("some where/base.yaml")).replace("\\\n", ""))
    assert words[:3] == ["studio", "train", "some where/base.yaml"]
    assert set(words[3::2]) <= {"--set"}
    assert parse_config(override(base, words[4::2])) == config


def test_the_command_of_an_untouched_preset_is_the_preset() -> None:
    preset = load_preset("quickstart")
    assert plan.command(form.laid_over({}, preset), preset, Path("quickstart.yaml")) == "studio train quickstart.yaml"


@given(st.integers(1, 500), st.integers(1, 500))
def test_rows_at_most_are_all_that_count(rows: int, most: int) -> None:
    config = parse_config({"dataset": {"max_samples": most, "validation_split": 0.2}})
    assert sum(plan.split(config, rows)) == min(rows, most)


@pytest.mark.parametrize(
    ("data", "facts", "keys"),
    [
        ({}, plan.Facts(), []),
        ({"training": {"learning_rate": 2e-3}}, plan.Facts(), []),
        ({"adapter": None, "training": {"learning_rate": 2e-3}}, plan.Facts(), ["full_rate"]),
        ({"adapter": None, "training": {"learning_rate": 1e-3}}, plan.Facts(), []),
        ({"dataset": {"validation_split": 0}}, plan.Facts(), ["no_validation"]),
        (
            {"dataset": {"validation_split": 0}, "training": {"early_stopping_patience": 2}},
            plan.Facts(),
            ["no_patience"],
        ),
        ({"training": {"max_length": 4096}}, plan.Facts(longest=2048), ["too_long"]),
        ({"training": {"max_length": 2048}}, plan.Facts(longest=2048), []),
    ],
)
def test_advice_is_given_where_it_is_due_and_mends_what_it_names(
    data: dict[str, Any], facts: plan.Facts, keys: list[str]
) -> None:
    config = parse_config(data)
    found = plan.advice(config, facts)
    assert [one.key for one in found] == keys
    mended = form.to_values(config)
    for one in found:
        mended |= one.changes
    assert plan.advice(form.to_config(mended), facts) == []


def test_a_preset_gives_the_same_run_whatever_was_tried_before() -> None:
    preset = load_preset("quickstart")
    tried = {**form.to_values(RunConfig()), "training.weight_decay": "3", form.ADAPTER: "qlora"}
    assert form.laid_over(tried, preset) == form.laid_over({}, preset)


def test_a_preset_that_names_no_data_keeps_one_s_own() -> None:
    picked = {
        **form.to_values(RunConfig()),
        "dataset.path": "mine",
        "dataset.columns": "instruction: q",
        "model.name_or_path": "a/b",
    }
    config = form.laid_over(picked, {"training": {"num_train_epochs": 2}})
    assert (config.model.name_or_path, config.dataset.path) == ("a/b", "mine")
    assert config.dataset.columns == {"instruction": "q"}
    named = form.laid_over(picked, {"dataset": {"path": "theirs"}})
    assert (named.dataset.path, named.dataset.columns) == ("theirs", {})  # a mapping goes with the data it was made for


def test_what_a_merge_will_take_is_told_beside_the_rest() -> None:
    config = parse_config({})
    assert "Merging it later" not in plan.card(config, plan.Facts())
    told = plan.card(config, plan.Facts(merge="2 GB <b>"))
    assert "Merging it later" in told
    assert "2 GB &lt;b&gt;" in told
