"""The knobs: their bounds, their names, what is said where one is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import Knob, knobs

KNOBS = {knob.path: knob for knob in knobs()}
NUMBERS = [knob for knob in KNOBS.values() if knob.kind in ("int", "float")]


def at(path: str, value: Any) -> dict[str, Any]:
    """A config that sets one knob."""
    section, _, name = path.partition(".")
    return {section: {name: value}}


def read(config: RunConfig, path: str) -> Any:
    found: Any = config
    for name in path.split("."):
        found = getattr(found, name)
    return found


def beyond(knob: Knob) -> list[float]:
    """The nearest values outside a number's bounds."""
    near = 1 if knob.kind == "int" else 1e-9
    outside = [] if knob.ge is None else [knob.ge - near]
    outside += [] if knob.le is None else [knob.le + near]
    return outside + [bound for bound in (knob.gt, knob.lt) if bound is not None]


def within(knob: Knob) -> list[float]:
    near = 1e-9
    inside = [bound for bound in (knob.ge, knob.le) if bound is not None]
    inside += [] if knob.gt is None else [knob.gt + near]
    return inside + ([] if knob.lt is None else [knob.lt - near])


def test_the_empty_config_is_a_run_of_the_starter() -> None:
    config = parse_config({})
    assert config == RunConfig()
    assert (config.model.name_or_path, config.dataset.path, config.method.name) == ("starter", "quickstart-sft", "sft")


@pytest.mark.parametrize("knob", NUMBERS, ids=lambda knob: knob.path)
def test_a_number_may_be_its_bound_and_nothing_beyond(knob: Knob) -> None:
    assert beyond(knob), "a number without any bound lets nonsense through"
    for value in within(knob):
        data = at(knob.path, int(value) if knob.kind == "int" else value)
        if knob.path.endswith("_split"):  # the two shares are tied together
            data["dataset"] = {"validation_split": 0.0, "test_split": 0.0, **data["dataset"]}
        assert read(parse_config(data), knob.path) == value
    for value in beyond(knob):
        with pytest.raises(ConfigError) as raised:
            parse_config(at(knob.path, int(value) if knob.kind == "int" else value))
        assert raised.value.field == knob.path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training.learning_rate", 0),
        ("training.learning_rate", 1.5),
        ("training.learning_rate", float("nan")),
        ("training.learning_rate", float("inf")),
        ("training.num_train_epochs", 0),
        ("training.max_steps", 0),
        ("training.per_device_train_batch_size", 0),
        ("training.max_grad_norm", -1),
        ("training.max_grad_norm", float("inf")),
        ("training.max_length", 7),
        ("training.seed", -1),
        ("training.seed", 2**32),
        ("adapter.r", 0),
        ("adapter.lora_dropout", 1.0),
        ("dataset.validation_split", 0.95),
        ("dataset.max_samples", 0),
        ("hardware.num_processes", 2),
        ("hardware.device", "cuda:"),
        ("hardware.device", "cpu\nrm"),
        ("hardware.device", "/dev/null"),
        ("model.name_or_path", ""),
        ("model.dtype", "float8"),
        ("adapter.target_modules", []),
        ("training.optim", "adam"),
        ("training.report_to", ["mail"]),
    ],
)
def test_a_value_that_no_run_could_have_is_refused_at_its_knob(path: str, value: Any) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(at(path, value))
    assert raised.value.field.startswith(path)
    assert raised.value.exit_code == 2
    assert raised.value.message.endswith(".")


@pytest.mark.parametrize("path", list(KNOBS))
def test_a_value_of_another_type_is_refused_in_words_of_people(path: str) -> None:
    wrong: Any = {"a": [object()]} if KNOBS[path].kind != "map" else 5
    with pytest.raises(ConfigError) as raised:
        parse_config(at(path, wrong))
    assert raised.value.field == path
    for word in ("pydantic", "LoraAdapter", "Section", "instance of", "dict_type", "object at"):
        assert word not in str(raised.value)


@pytest.mark.parametrize("value", ["3", 3, 3.0])
def test_a_whole_number_may_be_spelled_as_text_or_with_a_point(value: Any) -> None:
    assert parse_config(at("training.max_steps", value)).training.max_steps == 3


@pytest.mark.parametrize(
    ("data", "field", "near"),
    [
        ({"training": {"learning_rat": 1e-4}}, "training.learning_rat", "training.learning_rate"),
        ({"trainning": {}}, "trainning", "training"),
        ({"learning_rate": 1e-4}, "learning_rate", "training.learning_rate"),
        ({"training": {"lora_alpha": 8}}, "training.lora_alpha", "adapter.lora_alpha"),
        ({"adapter": {"rank": 8, "lora_alhpa": 1}}, "adapter.rank", ""),
        ({"method": {"nam": "sft"}}, "method.nam", "method.name"),
        # An unknown key is told before a bound: it is what was mistyped.
        ({"training": {"seed": -1, "sed": 1}}, "training.sed", "training.seed"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_name(data: dict[str, Any], field: str, near: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(data)
    assert raised.value.field == field
    assert raised.value.hint == f"Did you mean {near}?" if near else "Known here" in raised.value.hint


def test_a_key_like_no_other_is_told_what_is_known_there() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({"hardware": {"zzz": 1}})
    assert raised.value.hint == "Known here: device, num_processes."


@pytest.mark.parametrize("data", [{"training": 5}, {"model": ["a"]}, {"adapter": "lora"}, {"dataset": None}])
def test_a_section_that_is_no_mapping_is_refused_by_name(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="section of knobs") as raised:
        parse_config(data)
    assert raised.value.field == next(iter(data))


def test_the_shares_held_out_must_leave_rows_to_train_on() -> None:
    parse_config({"dataset": {"validation_split": 0.5, "test_split": 0.49}})
    with pytest.raises(ConfigError, match="nothing to train on") as raised:
        parse_config({"dataset": {"validation_split": 0.5, "test_split": 0.5}})
    assert raised.value.field == "dataset.validation_split"


def test_a_quantized_model_is_trained_through_an_adapter_only() -> None:
    parse_config({"model": {"quantization": "nf4"}})
    parse_config({"adapter": None})
    with pytest.raises(ConfigError, match="through an adapter") as raised:
        parse_config({"model": {"quantization": "nf4"}, "adapter": None})
    assert raised.value.field == "model.quantization"


def test_a_method_or_adapter_that_is_not_built_is_refused() -> None:
    for data, field in (({"method": {"name": "magic"}}, "method.name"), ({"adapter": {"type": "x"}}, "adapter.type")):
        with pytest.raises(ConfigError) as raised:
            parse_config(data)
        assert raised.value.field == field


def test_a_config_stays_valid_when_it_is_written_to() -> None:
    config = RunConfig()
    with pytest.raises(ValueError, match="learning_rate"):
        config.training.learning_rate = -1
    assert config.training.learning_rate == 2e-4
