"""Presets: the shipped ones stay as they are, the user's own win."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.workspace.home import bundled, presets_dir
from studio.workspace.presets import delete_preset, list_presets, load_preset, save_preset
from tests.core.any_config import any_config

SHIPPED = sorted(path.stem for path in bundled("presets").glob("*.yaml"))


def config(seed: int) -> RunConfig:
    return parse_config({"training": {"seed": seed}})


def shipped_bytes() -> str:
    digest = hashlib.sha256()
    for path in sorted(bundled("presets").rglob("*")):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_preset_is_a_valid_config_with_a_title(name: str) -> None:
    entry = next(entry for entry in list_presets() if entry.name == name)
    assert not entry.own
    assert entry.title and entry.title != name
    parse_config(load_preset(name))


def test_a_saved_preset_is_in_the_list_and_loads_as_it_was() -> None:
    entry = save_preset("  My\n settings ", config(7))
    assert (entry.name, entry.title, entry.own) == ("my-settings", "My settings", True)
    assert entry in list_presets()
    assert parse_config(load_preset("my-settings")) == config(7)


def test_saving_under_the_same_title_replaces_and_under_another_does_not() -> None:
    save_preset("My settings", config(1))
    save_preset("My settings", config(2))
    assert parse_config(load_preset("my-settings")) == config(2)
    with pytest.raises(ConfigError, match="already"):
        save_preset("my SETTINGS!", config(3))
    assert parse_config(load_preset("my-settings")) == config(2)


def test_a_long_title_can_be_saved_again() -> None:
    title = "y" * 700
    save_preset(title, config(1))
    save_preset(title, config(2))
    (entry,) = (entry for entry in list_presets() if entry.own)
    assert set(entry.title) == {"y"}
    assert parse_config(load_preset(entry.name)) == config(2)


def test_a_shipped_preset_is_never_written_to_and_an_own_one_of_its_name_wins() -> None:
    before = shipped_bytes()
    name = SHIPPED[0]
    save_preset(name, config(9))
    assert parse_config(load_preset(name)) == config(9)
    assert [entry.own for entry in list_presets() if entry.name == name] == [True]
    delete_preset(name)
    assert parse_config(load_preset(name)) != config(9)
    with pytest.raises(ConfigError, match="Shipped presets"):
        delete_preset(name)
    assert shipped_bytes() == before


@pytest.mark.parametrize("title", ["", "   ", "\n"])
def test_a_preset_needs_a_name(title: str) -> None:
    with pytest.raises(ConfigError, match="needs a name"):
        save_preset(title, config(1))


@pytest.mark.parametrize("name", ["nothing", "../presets/a", "", "..", "a\0b", "x" * 300, "~nobody/x"])
def test_S16_what_is_no_preset_can_be_neither_loaded_nor_deleted(name: str, studio_home: Path) -> None:
    presets_dir()
    outside = studio_home / "a.yaml"
    outside.write_text("training: {seed: 5}", encoding="utf-8")
    for act in (load_preset, delete_preset):
        with pytest.raises(ConfigError, match="no preset"):
            act(name)
    assert outside.exists()


def test_a_preset_that_became_no_config_is_told_when_it_is_loaded() -> None:
    (presets_dir() / "bad.yaml").write_text("# Bad\ntraining: {seeed: 5}", encoding="utf-8")
    (presets_dir() / "bytes.yaml").write_bytes(b"\xff\xfe")
    assert {entry.name: entry.title for entry in list_presets() if entry.own} == {"bad": "Bad", "bytes": "bytes"}
    with pytest.raises(ConfigError, match=r"Did you mean training\.seed"):
        load_preset("bad")
    with pytest.raises(ConfigError, match="can't be read"):
        load_preset("bytes")


@settings(suppress_health_check=list(HealthCheck), max_examples=50)
@given(st.text(st.characters(), min_size=1, max_size=20), any_config())
@example("a\x00b", RunConfig())
@example("--- \x1b[31m", RunConfig())
@example("half \ud800", RunConfig())
@example("\ufffe\uffff x", RunConfig())
def test_F51_a_preset_of_any_name_loads_as_it_was_saved(studio_home: Path, title: str, config: RunConfig) -> None:
    for left in presets_dir().iterdir():
        left.unlink()
    try:
        entry = save_preset(title, config)
    except ConfigError as error:
        assert "needs a name" in str(error)
        return
    assert parse_config(load_preset(entry.name)) == config
    assert entry in list_presets()
    assert {path.parent for path in studio_home.rglob("*.yaml")} == {presets_dir()}
