"""Rows as HTML: every layout says all of a row, and what can't be used says why."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.ui import rowview
from tests.ui.fake_desk import chat, entry, line
from tests.ui.test_shown import read


def said(row: Any, **fields: Any) -> str:
    """What the conversation of a row says, as a reader sees it."""
    return read(rowview.conversation(line(0, row), entry(**fields))).said


def roles(row: Any) -> list[str]:
    reader = read(rowview.conversation(line(0, row), entry()))
    return [attributes["data-role"] for tag, attributes in reader.tags if "data-role" in attributes]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (chat("Hello?", "Yes."), ["user", "assistant"]),
        ({"prompt": "Hello?", "completion": "Yes."}, ["prompt", "completion"]),
        ({"text": "Hello? Yes."}, ["text"]),
        ({"prompt": "Hello?"}, ["prompt"]),
        ({"prompt": "Hello?", "chosen": "Yes.", "rejected": "No."}, ["prompt", "completion", "completion"]),
        ({"prompt": "Hello?", "completion": "Yes.", "label": False}, ["prompt", "completion"]),
        ({"instruction": "Hello?", "output": "Yes.", "system": "Be brief."}, ["system", "user", "assistant"]),
    ],
)
def test_every_layout_shows_who_says_what(row: dict[str, Any], expected: list[str]) -> None:
    assert roles(row) == expected
    for value in row.values():
        if isinstance(value, str):
            assert value in said(row)


def test_a_pair_stands_side_by_side_under_its_shared_prompt() -> None:
    asked = {"role": "user", "content": "Hello?"}
    pair = {
        "chosen": [asked, {"role": "assistant", "content": "Good day."}],
        "rejected": [asked, {"role": "assistant", "content": "Go away."}],
    }
    html = rowview.conversation(line(0, pair), entry())
    assert html.count("Hello?") == 1
    assert html.index('class="chosen"') < html.index("Good day.") < html.index('class="rejected"')
    assert html.index('class="rejected"') < html.index("Go away.")


@pytest.mark.parametrize(("label", "word"), [(True, "good"), (False, "bad")])
def test_a_label_is_said(label: bool, word: str) -> None:
    assert f"as a {word} answer" in said({"prompt": "a", "completion": "b", "label": label})


def test_tools_calls_and_their_results_are_shown() -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo<b>"}}}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "tells it", "parameters": {}}}
    row = {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "tool_calls": [call], "reasoning_content": "I look it up."},
            {"role": "tool", "name": "get_weather", "content": "3 degrees"},
            {"role": "assistant", "content": "It is cold."},
        ],
        "tools": [tool],
    }
    assert roles(row) == ["user", "assistant", "tool", "assistant"]
    words = said(row)
    for part in ("May call get_weather", "Calls get_weather", "Oslo<b>", "3 degrees", "I look it up.", "tells it"):
        assert part in words


def test_a_row_that_cannot_be_used_says_why_in_every_place() -> None:
    torn = line(4, None, problem="no valid JSON at column 20", kind="unreadable")
    silent = line(5, {"messages": [{"role": "user", "content": "Hello?"}]})
    for bad, word in ((torn, "column 20"), (silent, "no answer")):
        assert word in read(rowview.conversation(bad, entry())).said
        listed = rowview.row_list([bad], 4, entry())
        assert "unusable" in listed
        assert word in listed
    assert "column 20" in rowview.raw(torn)


def test_a_row_whose_layout_is_asked_about_is_shown_as_it_stands() -> None:
    strange = line(0, {"question": "Hello?", "answer": "Yes."})
    listed = rowview.row_list([strange], 0, entry())
    assert "Hello?" in listed
    assert "unusable" not in listed
    assert "Yes." in read(rowview.conversation(strange, entry())).said


def test_a_row_that_was_cut_for_the_page_is_not_called_unusable() -> None:
    cut = line(0, {"messages": [{"role": "user", "content": "Hel"}]}, cut=True)
    assert "unusable" not in rowview.row_list([cut], 0, entry())
    assert "Hel" in rowview.row_list([cut], 0, entry())


def test_columns_and_tags_of_the_dataset_are_applied() -> None:
    row = {"talk": [{"who": "boss", "what": "Hello?"}, {"who": "bot", "what": "Yes."}]}
    fields: dict[str, Any] = {
        "format": "sharegpt",
        "columns": {"conversations": "talk"},
        "tags": {"role_tag": "who", "content_tag": "what", "user_tag": "boss", "assistant_tag": "bot"},
    }
    assert "Hello?" in said(row, **fields)
    assert "Yes." in said(row, **fields)


def test_the_list_marks_the_chosen_row_and_those_left_out() -> None:
    lines = [line(place, chat(f"ask {place}", "x")) for place in range(40, 43)]
    listed = read(rowview.row_list(lines, 41, entry(exclude_rows=(42,))))
    buttons = [attributes for tag, attributes in listed.tags if tag == "button"]
    assert [button["aria-selected"] for button in buttons] == ["false", "true", "false"]
    assert [button["tabindex"] for button in buttons] == ["-1", "0", "-1"]
    assert ["left-out" in button["class"] for button in buttons] == [False, False, True]
    assert [button["data-pick"] for button in buttons] == ["40", "41", "42"]


def test_a_row_says_its_line_where_that_is_another_than_its_number() -> None:
    assert read(rowview.place(line(4, {}))).said == "Row 5"
    assert read(rowview.place(line(4, {}, where=9))).said == "Row 5 · line 9"
    assert read(rowview.place(line(4, {}, where="a<b>.jsonl:9"))).said == "Row 5 · a<b>.jsonl:9"


def test_a_row_to_be_changed_is_its_own_json_or_nothing_where_it_is_not_whole() -> None:
    row = {"id": 12345678901234567890123, "text": "é\n"}
    assert json.loads(rowview.written(line(0, row))) == row
    assert rowview.written(line(0, row, cut=True)) == ""
    assert rowview.written(line(0, None, problem="torn")) == "{}"


def test_a_row_of_a_mix_is_read_by_its_own_columns() -> None:
    """The parts of a mix have layouts of their own, whatever the mix itself says."""
    mixed = entry(kind="mix", format="alpaca")
    assert "Hello?" in read(rowview.conversation(line(0, {"text": "Hello?"}, part=1), mixed)).said
