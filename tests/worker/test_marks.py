"""Marks come out again as they went in, whatever a text holds."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from studio.worker.marks import around, at_specials, free_plane, strings, taken_out
from tests.written import CALL, TURNS

PLANE = 0xF0000


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_marked_texts_are_the_same_without_their_marks(said: list[str]) -> None:
    plane = free_plane("".join(said))
    assert plane is not None or any(ord(letter) >= 0x100000 for letter in "".join(said))
    if plane is None:
        return
    marked = around([{"role": "user", "content": text} for text in said], plane)
    text, marks = taken_out("|".join(message["content"] for message in marked), plane)
    assert text == "|".join(said)
    for number, words in enumerate(said):
        places = [mark.place for mark in marks if mark.message == number]
        if words.strip():
            assert text[places[0] : places[-1]] in (words.strip(), words.strip().rpartition("</think>")[2].strip())
        else:
            assert places == []


def test_marks_stand_within_the_white_space_and_behind_what_was_thought() -> None:
    marked = around([{"role": "assistant", "content": " <think>a</think>\n\nb \n"}], PLANE)
    text, marks = taken_out(marked[0]["content"], PLANE)
    assert [(text[mark.place :][:1], mark.opens) for mark in marks] == [("<", True), ("b", True), (" ", False)]


def test_what_a_tool_call_says_is_marked_but_not_what_it_is() -> None:
    call = around([CALL], PLANE)[0]["tool_calls"][0]
    assert call["id"] == CALL["tool_calls"][0]["id"]
    assert call["type"] == "function"
    assert call["function"]["name"] != "weather"
    assert taken_out(call["function"]["name"], PLANE)[0] == "weather"
    assert taken_out(call["function"]["arguments"]["city"], PLANE)[0] == "Rome"


def test_a_plane_is_free_where_the_text_has_none_of_its_characters() -> None:
    assert free_plane("plain") == PLANE
    assert free_plane("\U000f1234") == 0x100000
    assert free_plane("\U000f1234\U00101234") is None


def test_special_tokens_get_a_mark_behind_their_first_character() -> None:
    value = [{"role": "user", "content": "a<s>b<s>"}, {"<s>": ["<s>"]}]
    marked = at_specials(value, re.compile("<s>"), PLANE)
    text, marks = taken_out(marked[0]["content"], PLANE)
    assert text == "a<s>b<s>"
    assert [text[mark.place - 1 :][:3] for mark in marks] == ["<s>", "<s>"]
    assert all("<s>" not in each for each in strings(marked))


def test_every_string_of_a_row_is_looked_at() -> None:
    assert strings([TURNS[:1], {"a": ("b", {"c": 1})}]) == [
        "role",
        "user",
        "content",
        TURNS[0]["content"],
        "a",
        "b",
        "c",
    ]
