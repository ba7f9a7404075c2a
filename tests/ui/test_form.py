"""The form says what a config says: nothing is lost on the way into the controls and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import Knob, knobs
from studio.ui import form
from studio.ui.spelling import number, read, written

ALL = {knob.path: knob for knob in knobs()}
TEXTS = st.text(max_size=30) | st.text(alphabet='",:[]{}\\ \n`ab', max_size=12) | st.sampled_from(["", '""', '"a"', "null"])


def numbers(knob: Knob) -> st.SearchStrategy[Any]:
    if knob.kind == "int":
        return st.integers(int(knob.ge or 1), int(knob.le or 10**9))
    least, most = knob.ge if knob.ge is not None else knob.gt, knob.le if knob.le is not None else knob.lt
    return st.floats(
        least, most, exclude_min=knob.gt is not None, exclude_max=knob.lt is not None, allow_nan=False, allow_infinity=False
    )


def values(knob: Knob) -> st.SearchStrategy[Any]:
    """Any value that core may let a knob have."""
    filled = st.text(min_size=1, max_size=30) | TEXTS.filter(bool)
    found: st.SearchStrategy[Any]
    if knob.kind in ("int", "float"):
        found = numbers(knob)
    elif knob.path == "adapter.target_modules":
        found = filled | st.lists(TEXTS, min_size=1, max_size=4)
    elif knob.path == "hardware.device":
        found = st.sampled_from(["auto", "cpu", "mps", "cuda", "cuda:3", "xpu:0"])
    elif knob.kind == "text":
        found = TEXTS if knob.optional else filled
    elif knob.kind == "map":
        found = st.dictionaries(TEXTS, TEXTS, max_size=3)
    elif knob.kind == "list":
        found = st.lists(st.sampled_from(knob.choices), max_size=4)
    elif knob.kind == "bool":
        found = st.booleans()
    else:
        found = st.sampled_from([{"true": True, "false": False}.get(c, c) for c in knob.choices])
    return st.none() | found if knob.optional else found


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    tree: dict[str, Any] = {}
    for path in draw(st.sets(st.sampled_from(sorted(ALL)))):
        knob = ALL[path]
        section, leaf = path.split(".")
        tree.setdefault(section, {})[leaf] = draw(values(knob))
    if draw(st.booleans()):
        tree["adapter"] = None
        tree.get("model", {}).pop("quantization", None)
    data = tree.get("dataset", {})
    if data.get("validation_split", 0.1) + data.get("test_split", 0.0) >= 1.0:
        data["test_split"] = 0.0
    return parse_config(tree)


@given(configs())
@settings(max_examples=300, deadline=None)
def test_a_config_comes_back_from_the_form_as_it_went_in(config: RunConfig) -> None:
    assert form.to_config(form.to_values(config)) == config


@given(st.sampled_from(knobs()).flatmap(lambda knob: st.tuples(st.just(knob), values(knob))))
@settings(max_examples=500, deadline=None)
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
        ("dataset.validation_split", "1"),
        ("hardware.device", "gpu"),
        ("model.name_or_path", ""),
    ],
)
def test_what_core_refuses_is_refused_at_its_field(path: str, typed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        form.to_config({**form.to_values(RunConfig()), path: typed})
    assert form.at(refused.value.field) == path


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


def test_a_message_that_quotes_markup_shows_it_as_text() -> None:
    told = form.fault("dataset.path", "there is no dataset '[x](https://example.org) **b** `c`'")
    assert told.count("`") == 2  # the argument's own name, and nothing of what was typed
    assert "](" not in told
    assert "**" not in told
