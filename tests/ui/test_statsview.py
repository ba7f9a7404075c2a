"""Statistics as pictures: the worker's own figures, drawn whole, and what an epoch takes by the knobs of now."""

from __future__ import annotations

from typing import Any

import pytest

from studio.ui import statsview
from studio.ui.dataquestion import Reading
from studio.worker.data.lengths import Cuts, Lengths
from tests.ui.fake_desk import entry
from tests.ui.test_charts import parsed

ASKED = Reading.model_validate({"max_length": 512, "batch": 4, "accumulation": 2, "epochs": 3})


def figures(*, tokens: bool = True, rows: int = 100, **more: Any) -> dict[str, Any]:
    """As worker/data/stats makes them, lengths by its own classes."""
    lengths, cuts = Lengths(), Cuts(512)
    for number in range(rows):
        lengths.add(9 * number)
        cuts.add((9 * number,), 5)
    counted = {
        "parts": {"whole": lengths.summary(), "answer": lengths.summary()},
        "total": 49_500, "loss": 20_000, "loss_share": 0.404, "cuts": cuts.table(), "suggested": cuts.suggested(),
        "model_max_length": None,
    }  # fmt: skip
    return {
        "format": "messages",
        "rows": rows,
        "usable": rows,
        "characters": {"whole": lengths.summary()},
        "turns": {"2": rows},
        "labels": None,
        "openings": [{"words": "<b>Well</b>", "count": 3, "share": 0.03, "exact": True}],
        "languages": [{"name": "en", "count": rows, "share": 1.0}],
        "scripts": [{"name": "Latin", "count": rows, "share": 1.0}],
        "tokens": counted if tokens else None,
        "epoch": {"train_rows": 90, "tokens": 9000, "loss_tokens": 900, "steps": 1, "run_steps": 1},
        **more,
    }


def panel(told: dict[str, Any], left: int | None = None, **knobs: Any) -> str:
    html = statsview.panel(told, entry(knobs=knobs), ASKED, left)
    parsed(html)
    return html


def test_the_suggested_length_is_one_click_and_the_one_in_use_says_so() -> None:
    told = figures()
    html = panel(told)
    suggested = told["tokens"]["suggested"]["max_length"]
    assert suggested not in [cut["max_length"] for cut in told["tokens"]["cuts"]], "it is a line of its own"
    assert f'data-length="{suggested}"' in html
    assert 'data-length="512"' not in html
    assert html.count("in use") == 1
    for cut in told["tokens"]["cuts"]:
        assert f"{cut['rows_cut']:,}</td>" in html


def test_the_cut_and_the_suggestion_are_drawn_into_the_lengths() -> None:
    html = panel(figures())
    assert "cut at 512" in html
    assert 'class="mark suggested"' in html
    assert "learns from 20,000 of 49,500 tokens (40 %)" in html


def test_without_a_model_lengths_are_in_characters_and_nothing_is_said_of_cuts() -> None:
    html = panel(figures(tokens=False))
    assert "Length in characters" in html
    assert "data-length" not in html
    assert "Choose a model" in html


@pytest.mark.parametrize(
    ("left", "knobs", "rows", "steps", "run_steps"),
    [
        (None, {}, 90, 12, 36),  # 100 rows, a tenth held out; 8 a step, three epochs
        (50, {}, 45, 6, 18),
        (None, {"validation_split": 20, "test_split": 0.1}, 70, 9, 27),
        (None, {"validation_path": "other"}, 100, 13, 39),
        (0, {}, 0, 0, 0),
    ],
)
def test_an_epoch_is_worked_out_by_what_is_left_and_the_knobs(
    left: int | None, knobs: dict[str, Any], rows: int, steps: int, run_steps: int
) -> None:
    html = panel(figures(), left, **knobs)
    card = html[html.index("An epoch") :]
    assert f"<dd>{rows}</dd>" in card
    assert f"<dt>Steps an epoch</dt><dd>{steps}</dd>" in card
    assert f"<dt>Steps in all (epochs: 3)</dt><dd>{run_steps}</dd>" in card
    assert f"<dd>{100 * rows:,}</dd>" in card  # tokens, of which the worker counted 9,000 in 90 rows


def test_words_of_rows_are_only_text() -> None:
    assert "<b>Well" not in panel(figures())
    assert "&lt;b&gt;Well" in panel(figures())


def test_labels_and_many_bars_are_told() -> None:
    html = panel(
        figures(labels={"true": 60, "false": 40}, turns={str(turns): 5 for turns in range(2, 22)})
    )  # 20 kinds of conversations
    assert "good answers" in html
    assert "60 %" in html
    assert "12 and more" in html
    assert "bad answers" not in panel(figures(labels={"true": 60}))
