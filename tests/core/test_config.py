"""The knobs: their bounds, their names, what is said where one is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import TAGS, RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import Knob, knobs

KNOBS = knobs()
NUMBERS = [knob for knob in KNOBS if knob.kind in ("int", "float")]


def at(path: str, value: Any, of: str = "") -> dict[str, Any]:
    """A config that sets one knob; `of` is the method or adapter that has it, where that isn't the usual one."""
    section, _, name = path.partition(".")
    return {section: {**{tag: of for where, tag, _ in TAGS if of and where == section}, name: value}}


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


# What has to stand beside a number so that it may be anything within its bounds.
_SHARES = ("dataset", {"validation_split": 0.0, "test_split": 0.0})
_STEP = ("training", {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 256})
TIED: dict[str, tuple[str, dict[str, Any]]] = {
    "dataset.validation_split": _SHARES,
    "dataset.test_split": _SHARES,
    **{f"method.{method}.num_generations": _STEP for method in ("grpo", "rloo", "ppo")},
    "adapter.adalora.init_r": ("adapter", {"target_r": 1}),
    "adapter.adalora.target_r": ("adapter", {"init_r": 1024}),
}


@pytest.mark.parametrize("knob", NUMBERS, ids=lambda knob: knob.key)
def test_a_number_may_be_its_bound_and_nothing_beyond(knob: Knob) -> None:
    assert beyond(knob), "a number without any bound lets nonsense through"
    for value in within(knob):
        data = at(knob.path, int(value) if knob.kind == "int" else value, knob.of)
        section, beside = TIED.get(knob.key, ("", {}))
        if section:
            data[section] = {**beside, **data.get(section, {})}
        assert read(parse_config(data), knob.path) == value
    for value in beyond(knob):
        with pytest.raises(ConfigError) as raised:
            parse_config(at(knob.path, int(value) if knob.kind == "int" else value, knob.of))
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


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.key)
def test_a_value_of_another_type_is_refused_in_words_of_people(knob: Knob) -> None:
    wrong: Any = {"a": [object()]} if knob.kind != "map" else 5
    with pytest.raises(ConfigError) as raised:
        parse_config(at(knob.path, wrong, knob.of))
    assert raised.value.field == knob.path
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
    assert raised.value.hint == "Known here: device, num_processes, expandable_segments."


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


def of(name: str, **knobs: Any) -> dict[str, Any]:
    return {"method": {"name": name, **knobs}}


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (of("dpo", loss_type=["sigmoid", "sft"], loss_weights=[1.0]), "method.loss_weights", "1 weights for 2"),
        (of("dpo", loss_type=["exo_pair"]), "method.label_smoothing", "above 0"),
        (of("dpo", loss_type=["sigmoid", "aot"], use_weighting=True), "method.use_weighting", "aot"),
        (of("dpo", loss_type=["apo_zero"], reference_free=True), "method.reference_free", "apo_zero"),
        (
            of("dpo", reference_free=True, precompute_ref_log_probs=True),
            "method.precompute_ref_log_probs",
            "nothing to compute",
        ),
        ({**of("dpo"), "training": {"packing": True}}, "training.packing", "on its own"),
        ({**of("reward"), "dataset": {"train_on": "all"}}, "dataset.train_on", "answers alone"),
        (
            {**of("kto"), "training": {"per_device_train_batch_size": 1}},
            "training.per_device_train_batch_size",
            "2 or more",
        ),
        (
            {**of("kto"), "training": {"train_sampling_strategy": "group_by_length"}},
            "training.train_sampling_strategy",
            "auto",
        ),
        ({**of("orpo"), "adapter": {"type": "prompt_tuning"}}, "adapter.type", "lora"),
        ({**of("kto"), "adapter": {"target_modules": ["lm_head"]}}, "adapter.target_modules", "never learn"),
    ],
)
def test_what_a_method_cant_do_is_refused_at_the_knob_to_change(data: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        parse_config(data)
    assert raised.value.field == field


@pytest.mark.parametrize(
    "data",
    [
        of("dpo", reference_free=True),
        of("dpo", loss_type=["sigmoid", "apo_zero", "sft"], loss_weights=[1, 1, 0.5]),
        {**of("kto", loss_type="apo_zero_unpaired"), "training": {"per_device_train_batch_size": 1}},
        {**of("pretrain"), "training": {"packing": True, "packing_strategy": "wrapped"}},
        {**of("dpo"), "adapter": {"type": "prompt_tuning"}},
    ],
)
def test_what_only_looks_like_it_is_allowed(data: dict[str, Any]) -> None:
    parse_config(data)
