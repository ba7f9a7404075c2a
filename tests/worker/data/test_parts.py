"""What a row says, by part, for every type of row."""

from __future__ import annotations

import pytest

from studio.core.example import Example
from studio.worker.data.parts import Parts, answers_of, messages_of, parts_of

SYSTEM = {"role": "system", "content": "Be kind."}
ASKED = {"role": "user", "content": "How are you?"}
SAID = {"role": "assistant", "content": "Well."}
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}],
}
TOLD = {"role": "tool", "content": "rain"}


@pytest.mark.parametrize(
    ("example", "parts", "answers", "messages"),
    [
        (Example(text="once upon"), Parts("", "once upon"), ["once upon"], 0),
        (Example(prompt="a", completion="b"), Parts("a", "b"), ["b"], 0),
        (Example(prompt="a"), Parts("a", ""), [], 0),
        (Example(prompt="a", chosen="b", rejected="c"), Parts("a", "b", "c"), ["b"], 0),
        (Example(prompt="a", completion="b", label=False), Parts("a", "b"), ["b"], 0),
        (
            Example(messages=(SYSTEM, ASKED, SAID, ASKED, SAID)),
            Parts("Be kind.\nHow are you?\nHow are you?", "Well.\nWell."),
            ["Well.", "Well."],
            5,
        ),
        (Example(prompt=(SYSTEM, ASKED), completion=(SAID,)), Parts("Be kind.\nHow are you?", "Well."), ["Well."], 3),
        (
            Example(prompt=(ASKED,), chosen=(SAID,), rejected=({"role": "assistant", "content": "No."},)),
            Parts("How are you?", "Well.", "No."),
            ["Well."],
            2,
        ),
    ],
)
def test_a_row_is_taken_apart(example: Example, parts: Parts, answers: list[str], messages: int) -> None:
    assert parts_of(example) == parts
    assert answers_of(example) == answers
    assert len(messages_of(example)) == messages


def test_a_tool_call_is_an_answer_and_what_the_tool_says_is_not() -> None:
    parts = parts_of(Example(messages=(ASKED, CALLED, TOLD, SAID)))
    assert parts.prompt == "How are you?\nrain"
    assert "weather" in parts.answer and "Köln" in parts.answer and parts.answer.endswith("Well.")


def test_the_whole_has_no_empty_lines_for_parts_that_are_not_there() -> None:
    assert Parts("", "b").whole == "b"
    assert Parts("a", "b", "c").whole == "a\nb\nc"
