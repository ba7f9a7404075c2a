"""What a run is said to be before it starts is what it will be."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

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


def test_a_schedule_is_drawn_from_the_run_s_own_steps() -> None:
    knobs = {"num_train_epochs": 1, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    config = parse_config(
        {"training": {**knobs, "learning_rate": 1e-3, "warmup_steps": 10}, "dataset": {"validation_split": 0}}
    )
    told = plan.schedule(config, plan.Facts(rows=100))
    assert max(told["points"], key=lambda point: point[1]) == [0.1, 1.0]
    assert (told["points"][0], told["points"][-1]) == ([0, 0.0], [1, 0.0])
    assert told["text"] == "cosine: up to 1e-3 over 10 of 100 steps, 0 at the end."


def test_a_schedule_whose_arguments_make_no_sense_is_told() -> None:
    wrong = {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "many"}}
    told = plan.schedule(parse_config({"training": wrong}), plan.Facts())
    assert told["points"] == []
    assert "no schedule" in told["text"]


def test_the_command_of_another_method_tells_only_what_differs_from_it() -> None:
    config = parse_config({"method": {"name": "dpo", "beta": 0.2}})
    told = plan.command(config, {}, Path("base.yaml"))
    assert told.count("--set method") == 2
    assert "--set method.beta=0.2" in told


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
    assert '<span id="merge-later">2 GB &lt;b&gt;</span>' in told, "by which the estimate's answers find it"


def test_a_run_that_has_to_wait_is_told_to() -> None:
    assert plan.waits(plan.Facts()) == ""
    assert "Another run is at work" in plan.waits(plan.Facts(busy=True))
