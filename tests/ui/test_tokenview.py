"""A row as trained on: what is learned, what is only read, the model's own marks, and where the row is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.ui import tokenview
from tests.ui.test_shown import HOSTILE, read


def told(*tokens: tuple[str, bool], cut: int | None = None, **more: Any) -> dict[str, Any]:
    return {"tokens": [token for token, _ in tokens], "loss": [loss for _, loss in tokens], "cut": cut, **more}


def kinds(html: str) -> list[str]:
    """The tokens' classes in order, the legend's aside; the line of the cut among them."""
    reader = read(html)
    found = [attributes["class"] for tag, attributes in reader.tags if tag == "span" and "class" in attributes]
    return [one for one in found if one.startswith("token ") or one == "cut-line"]


@given(st.lists(st.tuples(HOSTILE, st.booleans(), st.booleans()), max_size=5), st.integers(0, 6))
def test_tokens_hold_nothing_but_text(tokens: list[tuple[str, bool, bool]], cut: int) -> None:
    row = told(*[(token, loss) for token, loss, _ in tokens], cut=cut, special=[chip for *_, chip in tokens])
    wanted: list[str] = []
    for place, (_, loss, chip) in enumerate(tokens):
        wanted += ["cut-line"] if place == cut else []
        kind = "cut" if place >= cut else "loss" if loss else "context"
        wanted.append(f"token {kind}{' special' if chip else ''}")
    assert kinds(tokenview.trained(row)) == wanted


def test_the_count_leaves_out_the_first_token_and_what_is_cut() -> None:
    row = told(("a", True), ("b", True), ("c", False), ("d", True), cut=3)
    assert "3 of 4 tokens are kept, 1 cut off; it learns from 1 (they carry loss)." in tokenview.trained(row)
    assert "4 tokens; the model learns from 2 of them (they carry loss)." in tokenview.trained({**row, "cut": None})


def test_a_row_that_teaches_nothing_says_so() -> None:
    assert "teaches nothing" in tokenview.trained(told(("a", False), ("b", True), cut=1))
    assert "teaches nothing" not in tokenview.trained(told(("a", False), ("b", True), cut=2))


def test_a_pair_shows_both_answers() -> None:
    html = tokenview.trained({**told(("good", True)), "rejected": told(("bad", True))})
    assert html.index("chosen") < html.index("good") < html.index("rejected") < html.index("bad<")


@pytest.mark.parametrize(("length", "cut", "hidden"), [(5000, None, 904), (4096, None, 0), (3000, 100, 2500)])
def test_what_is_endless_is_cut_with_a_word_about_it(length: int, cut: int | None, hidden: int) -> None:
    html = tokenview.trained(told(*[("x", True)] * length, cut=cut))
    assert len([kind for kind in kinds(html) if kind != "cut-line"]) == length - hidden
    assert (f"{hidden:,} more tokens" in html) == (hidden > 0)
