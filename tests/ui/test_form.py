"""The form says what a config says: nothing is lost on the way into the controls and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.config import RunConfig
from studio.core.errors import ConfigError
from studio.core.knobs import Knob, knobs
from studio.ui import form
from studio.ui.spelling import number, read, written
from tests.core.any_config import any_config, values

ALL = {knob.key: knob for knob in knobs()}
# What the ways of writing a value might take for something else.
AWKWARD = st.text(alphabet='",:[]{}\\ \n`ab', max_size=12) | st.sampled_from(["", '""', '"a"', "null", "a, b", '["a"]'])


def awkward(knob: Knob) -> st.SearchStrategy[Any]:
    """Any value that core may let a knob have, the hard ones often."""
    if knob.kind == "map":
        return values(knob) | st.dictionaries(AWKWARD, AWKWARD, max_size=3)
    if knob.path == "adapter.target_modules":
        return values(knob) | AWKWARD.filter(bool) | st.lists(AWKWARD, min_size=1, max_size=3)
    return values(knob) | AWKWARD.filter(bool) if knob.kind == "text" else values(knob)


@given(any_config())
@settings(max_examples=200, deadline=None)
def test_a_config_comes_back_from_the_form_as_it_went_in(config: RunConfig) -> None:
    assert form.to_config(form.to_values(config)) == config


@given(st.sampled_from(knobs()).flatmap(lambda knob: st.tuples(st.just(knob), awkward(knob))))
@settings(max_examples=400, deadline=None)
def test_a_value_reads_back_in_its_own_kind(pair: tuple[Knob, Any]) -> None:
    knob, value = pair
    back = read(knob, written(knob, value))
    assert back == value
    assert isinstance(back, bool) == isinstance(value, bool)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_short_and_exact(value: float) -> None:
    assert float(number(value)) == value
    assert len(number(value)) <= len(repr(value)) + 1


@pytest.mark.parametrize(
    ("typed", "means"),
    [("2e-4", 2e-4), (" 1E-3 ", 1e-3), ("0.0002", 2e-4), (".5", 0.5), ("1", 1.0), ("2e−5", 2e-5)],
)
def test_learning_rates_are_read_as_people_write_them(typed: str, means: float) -> None:
    typed_in = {**form.to_values(RunConfig()), "training.learning_rate": typed}
    assert form.to_config(typed_in).training.learning_rate == means


def test_the_usual_learning_rate_is_shown_short() -> None:
    assert form.to_values(RunConfig())["training.learning_rate"] == "2e-4"


@pytest.mark.parametrize(
    ("path", "typed"),
    [
        ("training.learning_rate", "fast"),
        ("training.learning_rate", ""),
        ("training.learning_rate", "inf"),
        ("training.per_device_train_batch_size", "0"),
        ("training.per_device_train_batch_size", "2.5"),
        ("dataset.columns", "question"),
        ("dataset.validation_split", "1.5"),
        ("hardware.device", "gpu"),
        ("model.name_or_path", ""),
    ],
)
def test_what_core_refuses_is_refused_at_its_field(path: str, typed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        form.to_config({**form.to_values(RunConfig()), path: typed})
    assert form.at(refused.value.field, form.to_values(RunConfig())) == path


def test_qlora_is_lora_on_a_quantized_model() -> None:
    values = {**form.to_values(RunConfig()), form.ADAPTER: "qlora"}
    config = form.to_config(values)
    assert config.model.quantization == "nf4"
    assert config.adapter is not None
    assert form.to_config({**values, form.ADAPTER: "lora"}).model.quantization == "none"
    full = form.to_config({**values, form.ADAPTER: "full"})
    assert full.adapter is None
    assert full.model.quantization == "none"


def test_every_knob_has_a_control_unless_it_can_only_have_one_value() -> None:
    assert set(ALL) - set(form.KNOBS) == {"hardware.num_processes"}
    assert set(form.KNOBS) <= set(ALL)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("should be greater than 0.", "Learning rate should be greater than 0."),
        ("there is no model 'x'.", "There is no model 'x'."),
    ],
)
def test_a_mistake_is_a_sentence(message: str, sentence: str) -> None:
    assert form.fault("training.learning_rate", message) == sentence


def test_a_message_that_quotes_markup_shows_it_as_text() -> None:
    told = form.note("dataset.path", form.unmarked("there is no dataset '[x](https://example.org) **b** `c`'"))
    assert told.count("`") == 2  # the argument's own name, and nothing of what was typed
    assert "](" not in told
    assert "**" not in told
