"""LM Studio's folder of models: found where it is, and a place in it that nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.workspace import lmstudio


@pytest.fixture(autouse=True)
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody without LM Studio."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


def test_who_doesn_t_have_it_is_offered_nothing(person: Path) -> None:
    assert lmstudio.models_folder() is None
    assert lmstudio.place_for("boats") is None
    assert not lmstudio.is_layout(person / "a" / "b")


@pytest.mark.parametrize("folder", [".lmstudio/models", ".cache/lm-studio/models"])
def test_its_folder_is_found_old_or_new(person: Path, folder: str) -> None:
    (person / folder).mkdir(parents=True)
    place = lmstudio.place_for("boats")
    assert place == person / folder / "finetuning-studio" / "boats"
    assert not place.exists(), "looking makes nothing"
    assert lmstudio.is_layout(place)
    assert not lmstudio.is_layout(place.parent) and not lmstudio.is_layout(place / "deeper")
    place.mkdir(parents=True)
    assert lmstudio.place_for("boats") == place.with_name("boats-2")


def test_the_new_one_wins(person: Path) -> None:
    for folder in (".lmstudio/models", ".cache/lm-studio/models"):
        (person / folder).mkdir(parents=True)
    assert lmstudio.models_folder() == person / ".lmstudio" / "models"


def test_a_file_that_was_written_elsewhere_is_told_where_it_would_be_found(person: Path) -> None:
    assert lmstudio.hint("gguf", person / "out") is None, "nobody here has LM Studio"
    models = person / ".lmstudio" / "models"
    models.mkdir(parents=True)
    assert lmstudio.hint("gguf", person / "out") == models / "finetuning-studio" / "out"
    assert lmstudio.hint("merged", person / "out") is None
    assert lmstudio.hint("gguf", models / "me" / "out") is None
