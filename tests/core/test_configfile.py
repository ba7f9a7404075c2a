"""run.yaml: read and written without loss, overridden from a command line, its faults told by line and knob."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.core.config import ExportConfig, RunConfig
from studio.core.configfile import (
    changed,
    config_to_yaml,
    load_config,
    merge,
    override,
    parse_as,
    parse_config,
    parse_yaml,
    read_yaml,
)
from studio.core.errors import ConfigError
from tests.core.any_config import any_config


@given(any_config())
@example(parse_config({"dataset": {"system_prompt": "2e-4", "columns": {"text": "1e5"}}}))
@example(parse_config({"dataset": {"system_prompt": "a\x85b\u2028c\u2029d"}}))
@example(parse_config({"training": {"learning_rate": 2e-4}}))
@example(parse_config({"training": {"learning_rate": 1.2345678901234567e-300}}))
def test_a_config_comes_back_from_yaml_as_it_was(config: RunConfig) -> None:
    assert parse_config(parse_yaml(config_to_yaml(config), "run.yaml")) == config


@given(any_config())
def test_what_differs_from_the_defaults_is_all_there_is_to_say(config: RunConfig) -> None:
    said: dict[str, Any] = {}
    for path, value in changed(config).items():
        *sections, leaf = path.split(".")
        place = said
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = value
    assert parse_config(said) == config


def test_changed_names_knobs_by_their_paths() -> None:
    config = parse_config({"training": {"seed": 7}, "adapter": None, "dataset": {"columns": {"text": "body"}}})
    assert changed(config) == {"training.seed": 7, "adapter": None, "dataset.columns": {"text": "body"}}
    assert changed(RunConfig()) == {}


@pytest.mark.parametrize("spelling", ["2e-4", "2E-4", "2.0e-4", "0.0002", ".0002", "+2e-04", "20e-5"])
def test_a_learning_rate_is_a_number_however_it_is_spelled(spelling: str) -> None:
    read = parse_yaml(f"training: {{learning_rate: {spelling}}}", "run.yaml")
    assert read == {"training": {"learning_rate": pytest.approx(2e-4, rel=1e-12)}}
    assert parse_config(read).training.learning_rate == pytest.approx(2e-4, rel=1e-12)


@pytest.mark.parametrize("text", ["e5", "1e", "2e-4x", "v1e5"])
def test_text_that_only_resembles_a_number_stays_text(text: str) -> None:
    assert parse_yaml(f"model: {{name_or_path: {text}}}", "run.yaml") == {"model": {"name_or_path": text}}


def test_yaml_keeps_the_order_of_the_sections() -> None:
    text = config_to_yaml(RunConfig())
    places = [text.index(f"{name}:") for name in ("method", "model", "dataset", "adapter", "training", "hardware")]
    assert places == sorted(places)


# -- overrides --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("training.learning_rate=1e-4", {"training": {"learning_rate": 1e-4, "seed": 1}}),
        ("training.max_steps=10", {"training": {"max_steps": 10, "seed": 1}}),
        ("training.max_steps=null", {"training": {"max_steps": None, "seed": 1}}),
        ("adapter=null", {"training": {"seed": 1}, "adapter": None}),
        ("adapter.target_modules=[q, v]", {"training": {"seed": 1}, "adapter": {"target_modules": ["q", "v"]}}),
        ("training=5", {"training": 5}),
        ("training.seed.deeper=5", {"training": {"seed": {"deeper": 5}}}),
        ("dataset.system_prompt=a=b", {"training": {"seed": 1}, "dataset": {"system_prompt": "a=b"}}),
        ("model.revision=", {"training": {"seed": 1}, "model": {"revision": None}}),
    ],
)  # fmt: skip
def test_an_override_sets_one_leaf(assignment: str, expected: dict[str, Any]) -> None:
    data = {"training": {"seed": 1}}
    assert override(data, [assignment]) == expected
    assert data == {"training": {"seed": 1}}, "the original was written to"


def test_the_last_override_of_a_leaf_wins() -> None:
    assert override({}, ["training.seed=1", "training.seed=2"]) == {"training": {"seed": 2}}


@pytest.mark.parametrize("assignment", ["training.seed", "=5", "  =5", ""])
def test_an_override_without_a_name_or_a_value_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        override({}, [assignment])


@pytest.mark.parametrize("value", ["[1", "{a", "'", "1: 2: 3", "[" * 1500, "9" * 5000, "2026-99-99"])
def test_an_override_that_is_no_value_is_refused_at_its_knob(value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        override({}, [f"dataset.columns={value}"])
    assert raised.value.field == "dataset.columns"


def test_an_override_of_an_unknown_knob_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("training: {seed: 1}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Did you mean training\.learning_rate"):
        load_config(path, ["training.learning_rte=1"])
    assert load_config(path, ["training.learning_rate=1e-3"]).training.learning_rate == 1e-3


# -- merging ----------------------------------------------------------------------------------------------------------


def test_a_partial_preset_is_laid_over_section_by_section() -> None:
    base = {"training": {"seed": 1, "max_steps": 5}, "adapter": {"r": 8}, "model": {"dtype": "auto"}}
    over = {"training": {"seed": 2}, "adapter": None}
    merged = merge(base, over)
    assert merged == {"training": {"seed": 2, "max_steps": 5}, "adapter": None, "model": {"dtype": "auto"}}
    merged["model"]["dtype"] = "float32"
    assert base["model"] == {"dtype": "auto"}, "the base was written to"


def test_an_adapter_can_come_back_over_none() -> None:
    assert merge({"adapter": None}, {"adapter": {"r": 4}}) == {"adapter": {"r": 4}}


def test_another_method_or_adapter_comes_without_the_knobs_of_the_one_before() -> None:
    base = parse_config({"method": {"name": "dpo", "beta": 0.3}, "adapter": {"r": 64}}).model_dump(mode="json")
    merged = merge(base, {"method": {"name": "kto"}, "adapter": {"type": "vera"}})
    assert (merged["method"], merged["adapter"]) == ({"name": "kto"}, {"type": "vera"})
    assert merge(base, {"method": {"name": "dpo"}, "adapter": {"r": 8}})["method"] == base["method"]
    over = override(base, ["method.beta=0.2", "method.name=orpo", "adapter.r=4"])
    assert over["method"] == {"beta": 0.2, "name": "orpo"}, "what is set beside it stays, whatever the order"
    assert parse_config(over).adapter == parse_config({"adapter": {"r": 4}}).adapter
    assert base["method"]["beta"] == 0.3, "the original was written to"


@given(any_config(), any_config())
def test_a_whole_config_laid_over_another_replaces_it(one: RunConfig, other: RunConfig) -> None:
    def without_maps(section: dict[str, Any] | None) -> dict[str, Any] | None:
        """A mapping of the user's own is merged too, as any other."""
        return section and {name: value for name, value in section.items() if not isinstance(value, dict)}

    base = {name: without_maps(section) for name, section in one.model_dump(mode="json").items()}
    assert parse_config(merge(base, other.model_dump(mode="json"))) == other


# -- files ------------------------------------------------------------------------------------------------------------


def test_an_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for text in ("", "\n", "# nothing\n", "---\n"):
        path.write_text(text, encoding="utf-8")
        assert load_config(path) == RunConfig()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"training:\n  seed: [1\nmodel: {}\n", "line 3"),
        (b"training: {seed: 1}\n\ttabs: 1\n", "line 2"),
        (b"- a\n- b\n", "holds no settings"),
        (b"just words\n", "holds no settings"),
        (b"\xff\xfe\x00", "can't be read"),
        (b"name: \xe9\n", "can't be read"),
        (b"a: 1\x00\n", "no YAML"),
        (b"a: !!python/object/apply:os.system [true]\n", "line 1"),
        (b"a: " + b"[" * 100_000, "no YAML"),
        (b"a: " + b"{b: " * 100_000, "no YAML"),
        (b"a:\n " + b"- " * 100_000, "no YAML"),
        (b"? " * 100_000, "no YAML"),
        (b"a:\n" + b"".join(b" " * i + b"a:\n" for i in range(2000)), "no YAML"),
        (b"a: " + b"9" * 5000, "no YAML"),
    ],
)
def test_a_file_that_is_no_config_is_told_with_its_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as raised:
        load_config(path)
    assert "run.yaml" in str(raised.value)


def test_a_missing_file_and_a_folder_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no file"):
        read_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="can't be read"):
        read_yaml(tmp_path)


def test_a_file_that_contains_itself_is_refused_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("training: &a {seed: 1, more: *a}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_config(path, ["training.seed=2"])
    assert raised.value.field == "training.more"


@given(st.binary(max_size=200))
def test_no_bytes_make_reading_raise_anything_but_a_config_error(content: bytes) -> None:
    text = content.decode(errors="replace")
    try:
        parse_config(parse_yaml(text, "run.yaml"))
    except ConfigError as error:
        assert error.message


def test_any_config_can_be_read_so() -> None:
    fields = {"run": "a", "format": "merged", "out": "/tmp/x"}
    assert parse_as(ExportConfig, fields).dtype == "auto"
    with pytest.raises(ConfigError, match="Did you mean format") as raised:
        parse_as(ExportConfig, {**fields, "fromat": "adapter"})
    assert raised.value.field == "fromat"
