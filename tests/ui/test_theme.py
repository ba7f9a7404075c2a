"""Colours: every pair that is read together has the contrast of WCAG 2.2 AA, in both modes."""

from __future__ import annotations

import re

import pytest

from studio.ui.theme import READ_TOGETHER, TOKENS, contrast, theme, tokens_css
from studio.workspace.home import bundled


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize(("front", "ground", "least"), READ_TOGETHER)
def test_contrast_is_AA(mode: str, front: str, ground: str, least: float) -> None:
    colours = TOKENS[mode]
    assert contrast(colours[front], colours[ground]) >= least


def test_contrast_is_measured_as_wcag_says() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the known near miss of AA
    assert contrast("#ffffff", "#777777") == contrast("#777777", "#ffffff")


def test_every_colour_of_text_is_checked() -> None:
    checked = {front for front, _, _ in READ_TOGETHER}
    assert {"text", "text-soft", "text-faint", "accent", "ok", "warn", "bad", "on-accent"} <= checked


def test_both_modes_have_the_same_colours() -> None:
    assert TOKENS["light"].keys() == TOKENS["dark"].keys()
    assert tokens_css().count("--st-page:") == 2


def test_styles_use_only_colours_that_exist_and_write_none_themselves() -> None:
    layout = {"sans", "mono", "header", "radius", "radius-small"}
    for path in sorted(bundled("assets").glob("css/*.css")):
        css = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        unknown = set(re.findall(r"var\(--st-([a-z0-9-]+)", css)) - TOKENS["light"].keys() - layout
        assert not unknown, f"{path.name}: {unknown}"
        written = re.findall(r"#[0-9a-f]{3,8}\b|\b(?:white|black|red|green|blue)\b(?=\s*[;)])", css)
        assert not written, f"{path.name} writes colours: {written}"


def test_gradio_gets_the_same_variables_in_both_modes() -> None:
    made = theme()
    assert made.body_background_fill == made.body_background_fill_dark == "var(--st-page)"
    assert made.button_primary_background_fill_dark == "var(--st-accent)"
    assert not made._stylesheets, "a font would be fetched from elsewhere"
