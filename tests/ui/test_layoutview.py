"""The question of a layout: what is suggested fits, and nothing is suggested where nothing does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.formats import FORMATS, recognise
from studio.ui import layoutview
from studio.ui.text_data import say
from tests.ui.fake_desk import entry

NAMES = ["question", "answer", "query", "response", "content", "dialogue", "text", "output", "chosen", "label", "x"]


def found(columns: list[str], **more: Any) -> dict[str, Any]:
    """What the data worker says of columns that it can't tell a layout from."""
    return {"columns": columns, "format": None, "question": "Which is it. Say so.", "fitting": [], **more}


def test_usual_names_are_suggested() -> None:
    suggested = layoutview.suggestion(["question", "answer"])
    assert suggested is not None
    assert suggested["columns"] == {"instruction": "question", "output": "answer"}
    assert FORMATS[suggested["format"]].title in suggested["words"]


@given(st.lists(st.sampled_from(NAMES), unique=True))
def test_what_is_suggested_is_a_layout_that_fits(columns: list[str]) -> None:
    suggested = layoutview.suggestion(columns)
    if suggested is not None:
        assert recognise(columns, suggested["columns"]).name == suggested["format"]


@pytest.mark.parametrize(
    ("question", "plain"),
    [("A or B. Say which.", "A or B."), ("Nothing.", "Nothing."), ("What is it", "What is it.")],
)
def test_the_question_is_put_without_the_names_of_settings(question: str, plain: str) -> None:
    assert layoutview.plainly(question) == plain


def test_nothing_is_suggested_for_strange_columns_or_where_several_layouts_fit() -> None:
    assert layoutview.suggestion(["x", "y"]) is None
    assert layoutview.suggestion([]) is None
    told = layoutview.told(entry(), found(["question", "answer"], fitting=["alpaca", "text"]))
    assert told["suggestion"] is None
    assert told["fitting"] == [{"name": name, "title": FORMATS[name].title} for name in ("alpaca", "text")]


@pytest.mark.parametrize(("fitting", "words"), [((), "aren&#x27;t known"), (("alpaca", "text"), "more than one way")])
def test_it_is_said_why_it_is_asked(fitting: tuple[str, ...], words: str) -> None:
    asked = layoutview.told(entry(), found(["a", "b"], fitting=fitting))
    assert words in asked["question"]


def test_a_mapping_that_does_not_fit_is_explained_by_the_worker() -> None:
    asked = layoutview.told(entry(columns={"prompt": "gone"}), found(["question", "answer"]))
    assert asked["question"] == '<bdi class="foreign">Which is it.</bdi>'


def test_the_question_is_gone_once_it_is_answered() -> None:
    asked = layoutview.told(entry(), found(["question", "answer"]))
    assert asked["question"]
    assert asked["words"] == "not recognised yet"
    answered = layoutview.told(entry(format="alpaca"), found(["question", "answer"]))
    assert answered["question"] is None
    assert answered["words"] == FORMATS["alpaca"].title


def test_every_column_and_tag_has_a_plain_name() -> None:
    told = layoutview.told(entry(), found(["a"]))
    for column in {name for each in told["formats"] for name in (*each["needs"], *each["reads"])}:
        assert say(f"layout.column.{column}")
    for tag in told["tags"]:
        assert say(f"layout.tag.{tag}")


def test_a_recognised_layout_says_that_it_was() -> None:
    told = layoutview.told(entry(), found(["text"], format="text", question=None))
    assert "recognised" in told["words"]
    assert told["question"] is None
    assert {each["name"] for each in told["formats"]} == set(FORMATS)


def test_names_of_columns_are_only_text() -> None:
    columns = ["<img src=x>", "\u202egnp.exe", "instruction<b>"]
    told = layoutview.told(
        entry(columns={"a": "b"}), found(columns, question=f"No known layout has {', '.join(columns)}. Map them.")
    )
    assert "<img" not in told["question"]
    for words in (told["question"], *(column["title"] for column in told["columns"])):
        assert "\u202e" not in words
    assert [column["name"] for column in told["columns"]] == columns
