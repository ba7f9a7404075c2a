"""Where state is kept, and names that are safe as a folder's."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.core.errors import StudioError
from studio.workspace import home
from studio.workspace.home import bundled, existing, is_slug, plain_label, slug

# What has been taken for a name before, beside anything else that can be typed.
AWKWARD = st.sampled_from(
    ["..", "/", "\\", "../../etc/passwd", "a/b", "C:\\x", "\0", "a\0b", "\n", "CON", "con", "nul.txt", "LPT9", "aux ",
     ".", "-", "--", "--output_dir=/x", ";id", "$(id)", "🦙", "👨\u200d👩\u200d👧", "\u202eexe.txt", "مرحبا", "Ä",
     "A\u0308", "ß", "ﬁ", " x ", "x" * 300, "é" * 300, "-" * 300, "\ud800", "COM¹", "a..b"]
)  # fmt: skip
NAMES = st.text(max_size=60) | AWKWARD | st.tuples(AWKWARD, AWKWARD).map("".join)
RESERVED = {"con", "prn", "aux", "nul"} | {f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10)}


@given(NAMES)
@example("x" * 47 + "-" + "y" * 10)
def test_F51_any_name_becomes_one_that_is_a_folders_everywhere(name: str) -> None:
    found = slug(name)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", found)
    assert len(found) <= 48
    assert found not in RESERVED
    assert is_slug(found)
    assert slug(found) == found


@given(NAMES)
def test_F51_a_slug_is_the_same_however_a_letter_is_composed(name: str) -> None:
    assert slug(unicodedata.normalize("NFC", name)) == slug(unicodedata.normalize("NFD", name))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("My Run", "my-run"),
        ("Größe 2", "gro-e-2"),
        ("CON", "con-1"),
        ("🦙", "untitled"),
        ("", "untitled"),
        ("../../etc", "etc"),
        ("SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
    ],
)
def test_a_slug_can_be_read(name: str, expected: str) -> None:
    assert slug(name) == (expected if name != "Größe 2" else "groe-2")


def test_a_name_without_letters_takes_the_fallback() -> None:
    assert slug("???", "dataset") == "dataset"


@given(NAMES)
def test_F51_a_label_is_one_line_that_any_file_and_terminal_takes(name: str) -> None:
    shown = plain_label(name)
    assert shown.encode().decode() == shown
    assert not any(unicodedata.category(c) == "Cc" for c in shown)
    assert plain_label(shown) == shown


@pytest.mark.parametrize(
    "name", ["Größe 2", "🦙 👨\u200d👩\u200d👧", "مرحبا", "; rm -rf $(id)", "../../etc", "A\u0308"]
)
def test_F51_a_label_is_what_the_person_wrote(name: str) -> None:
    assert plain_label(f"  {name}\n") == name
    assert plain_label("\x1b[31mred\x00 \ud800") == "[31mred"


@pytest.mark.parametrize("typed", ["", "nothing", "a\0b", "x" * 5000, "~nobody-of-this-name/x", "\ud800"])
def test_F51_what_can_be_no_path_does_not_exist(typed: str) -> None:
    assert existing(typed) is None


def test_what_exists_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert existing(str(tmp_path)) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    monkeypatch.setenv("USERPROFILE", str(tmp_path.parent))
    assert existing(f"~/{tmp_path.name}") == tmp_path


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "/etc",
        ".hidden",
        "-x",
        "a..b",
        "a\n",
        "a b",
        "a\0",
        "x" * 129,
        "é",
        "~",
        "a:b",
    ],
)
def test_S16_what_is_no_plain_name_is_no_slug(text: str) -> None:
    assert not is_slug(text)


@pytest.mark.parametrize("text", ["a", "20261122-1412-a", "Model_1.5", "x" * 128])
def test_plain_names_are_slugs(text: str) -> None:
    assert is_slug(text)


# -- folders ----------------------------------------------------------------------------------------------------------


def test_everything_lies_in_the_studios_folder(studio_home: Path) -> None:
    assert home.home() == studio_home
    made = [home.runs_dir(), home.exports_dir(), home.models_dir(), home.datasets_dir(), home.presets_dir()]
    assert [path.name for path in made] == ["runs", "exports", "models", "datasets", "presets"]
    assert all(path.is_dir() and path.parent == studio_home for path in made)


def test_without_a_word_it_is_in_the_persons_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for word in (None, ""):
        monkeypatch.delenv("STUDIO_HOME", raising=False) if word is None else monkeypatch.setenv("STUDIO_HOME", word)
        assert home.home() == tmp_path / ".studio"


def test_it_may_be_relative_and_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDIO_HOME", "deep/er")
    assert home.home() == tmp_path / "deep" / "er"


@pytest.mark.parametrize("place", ["file", "file/below", "x" * 300, "~nobody-of-this-name/x"])
def test_a_folder_that_cannot_be_made_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    monkeypatch.setenv("STUDIO_HOME", place if place.startswith("~") else str(tmp_path / place))
    with pytest.raises(StudioError, match="STUDIO_HOME"):
        home.runs_dir()


def test_what_is_shipped_is_found_in_a_checkout_and_in_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (bundled("assets") / "datasets").is_dir()
    assert any(bundled("presets").glob("*.yaml"))
    installed = tmp_path / "site-packages" / "studio" / "workspace" / "home.py"
    monkeypatch.setattr(home, "__file__", str(installed))
    assert bundled("presets") == tmp_path / "site-packages" / "studio" / "_bundled" / "presets"
