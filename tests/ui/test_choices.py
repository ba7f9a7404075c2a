"""What can be picked, and what is said of it before it is."""

from __future__ import annotations

from pathlib import Path

from studio.ui import choices
from studio.workspace.home import presets_dir


def test_models_of_presets_are_those_that_are_not_here(studio_home: Path) -> None:
    presets_dir().mkdir(parents=True, exist_ok=True)
    (presets_dir() / "mine.yaml").write_text("# Mine\nmodel: {name_or_path: someone/something}\n", encoding="utf-8")
    (presets_dir() / "broken.yaml").write_text("model: [", encoding="utf-8")
    (presets_dir() / "odd.yaml").write_text("model: 3\n", encoding="utf-8")
    found = [name for _, name in choices.models_of_presets()]
    assert "someone/something" in found
    assert "starter" not in found
    assert len(found) == len(set(found))


def test_without_a_dataset_one_is_asked_for() -> None:
    assert "Pick one" in choices.dataset_note(None)
    assert choices.rows_of_named(None) is None
