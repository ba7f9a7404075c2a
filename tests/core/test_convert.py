"""Examples as rows of other layouts: nothing is lost where the type stays, and nothing is made up where it doesn't."""

from __future__ import annotations

import json
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.convert import targets, to_row
from studio.core.errors import DataError
from studio.core.example import Example, Message, RowProblem, Type
from studio.core.formats import FORMATS, Layout, recognise, to_example
from tests.core.any_example import WEATHER, call, examples, openai, said, sharegpt, turns

CHAT = Example(messages=turns("system:S", "a", "b", "c", "d"))
PAIR = Example(prompt=turns("Hi"), chosen=said("Ho"), rejected=said("No"))
CALLED: tuple[Message, ...] = (
    *turns("warm?"),
    {"role": "assistant", "content": "", "tool_calls": [call("weather", {"city": "Röm"})]},
    {"role": "tool", "content": "30"},
    {"role": "assistant", "content": "Yes."},
)

ROWS: list[tuple[Example, str, dict[str, Any]]] = [
    (CHAT, "messages",
     {"messages": openai(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))}),
    (CHAT, "sharegpt", sharegpt(("system", "S"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"))),
    (CHAT, "alpaca",
     {"instruction": "c", "input": "", "output": "d", "system": "S", "history": [["a", "b"]]}),
    (CHAT, "prompt_completion",
     {"prompt": openai(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c")),
      "completion": openai(("assistant", "d"))}),
    (CHAT, "prompt_only", {"prompt": openai(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"))}),
    (Example(prompt="Hi", completion="Ho"), "messages", {"messages": openai(("user", "Hi"), ("assistant", "Ho"))}),
    (Example(prompt="Hi", completion="Ho"), "alpaca", {"instruction": "Hi", "input": "", "output": "Ho"}),
    (Example(prompt="Once", completion=" upon"), "text", {"text": "Once upon"}),
    (Example(prompt="Once", completion=" upon"), "prompt_only", {"prompt": "Once"}),
    # of two judged answers the chosen one is kept
    (PAIR, "messages", {"messages": openai(("user", "Hi"), ("assistant", "Ho"))}),
    (PAIR, "prompt_completion",
     {"prompt": openai(("user", "Hi")), "completion": openai(("assistant", "Ho"))}),
    (PAIR, "alpaca_preference", {"instruction": "Hi", "input": "", "chosen": "Ho", "rejected": "No"}),
    (PAIR, "sharegpt_preference",
     sharegpt(("human", "Hi"), chosen={"from": "gpt", "value": "Ho"}, rejected={"from": "gpt", "value": "No"})),
    (Example(prompt="Hi", chosen="Ho", rejected="No"), "preference",
     {"prompt": "Hi", "chosen": "Ho", "rejected": "No"}),
    (Example(prompt="Hi", completion="Ho", label=True), "messages",
     {"messages": openai(("user", "Hi"), ("assistant", "Ho"))}),
    (Example(prompt="Hi", completion="Ho", label=False), "prompt_only", {"prompt": "Hi"}),
    (Example(prompt="Hi", completion="Ho", label=False), "alpaca_unpaired",
     {"instruction": "Hi", "input": "", "output": "Ho", "kto_tag": False}),
    (Example(prompt="Hi", completion="Ho", label=False), "sharegpt_unpaired",
     sharegpt(("human", "Hi"), ("gpt", "Ho"), kto_tag=False)),
    (Example(messages=CALLED, tools=(WEATHER,)), "sharegpt",
     sharegpt(("human", "warm?"), ("function_call", '{"name": "weather", "arguments": {"city": "Röm"}}'),
              ("observation", "30"), ("gpt", "Yes."), tools=json.dumps([WEATHER]))),
]  # fmt: skip

UNSAID: list[tuple[Example, str, str]] = [
    (Example(text="Once"), "messages", "plain text has no prompt and answer"),
    (Example(text="Once"), "alpaca", "plain text has no"),
    (Example(text="Once"), "prompt_only", "plain text has no prompt"),
    (CHAT, "text", "no text without a model's chat template"),
    (PAIR, "text", "no text without a model's chat template"),
    (CHAT, "preference", "can't be said as preference"),
    (CHAT, "unpaired_preference", "can't be said as unpaired_preference"),
    (PAIR, "sharegpt_unpaired", "can't be said as sharegpt_unpaired"),
    (Example(prompt="Hi"), "prompt_completion", "can't be said as prompt_completion"),
    (Example(prompt="Hi", completion="Ho", label=False), "messages", "labelled false"),
    (Example(messages=turns("a", "b", "c")), "prompt_completion", "ends with the user's turn"),
    (Example(messages=turns("a", "b", "c")), "alpaca", "ends with the user's turn"),
    (Example(messages=CALLED), "alpaca", "tools, names and reasoning can't be said"),
    (Example(messages=(*turns("a"), {"role": "assistant", "content": "b", "reasoning_content": "Hm"})), "alpaca",
     "with tools or reasoning"),
    (Example(messages=(*turns("a"), {**CALLED[1], "content": "Mm."})), "sharegpt", "speaks and calls a tool"),
    (Example(prompt=turns("a"), chosen=(*said("b"), *turns("c", "d")), rejected=said("e")), "sharegpt_preference",
     "several messages"),
    (Example(prompt=turns("a"), chosen=(*said("b"), *turns("c", "d")), rejected=said("e")), "alpaca_preference",
     "several messages"),
    (Example(prompt=turns("a"), completion=(*said("b"), *turns("c", "d")), label=True), "sharegpt_unpaired",
     "several messages"),
]  # fmt: skip


@pytest.mark.parametrize(("example", "name", "row"), ROWS)
def test_an_example_as_a_row(example: Example, name: str, row: dict[str, Any]) -> None:
    assert to_row(example, name) == row


@pytest.mark.parametrize(("example", "name", "reason"), UNSAID)
def test_what_a_layout_cannot_say_is_told(example: Example, name: str, reason: str) -> None:
    with pytest.raises(RowProblem, match=reason):
        to_row(example, name)


@pytest.mark.parametrize("name", ["ultrafeedback", "auto", "alpacca"])
def test_a_layout_that_is_never_written_is_told_with_those_that_are(name: str) -> None:
    with pytest.raises(DataError, match=f"as '{name}'") as raised:
        to_row(CHAT, name)
    assert all(target in raised.value.hint for target in targets("language_modeling"))


def test_scores_and_labels_are_never_made_up() -> None:
    for type in typing.get_args(Type):
        assert type in {FORMATS[name].type for name in targets(type)}
        for judging in {"preference", "unpaired_preference"} - {type}:
            assert judging not in {FORMATS[name].type for name in targets(type)}
        assert "ultrafeedback" not in targets(type)


def test_calls_and_tools_are_written_as_JSON_text() -> None:
    """Objects of different keys in one column would be filled up with nulls by parquet."""
    row = to_row(Example(messages=CALLED, tools=(WEATHER,)), "messages")
    assert row["messages"][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Röm"}'}
    assert json.loads(row["tools"]) == [WEATHER]
    assert CALLED[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Röm"}, "the example is as it was"


def written(example: Example, name: str) -> dict[str, Any] | None:
    """The row as a jsonl file holds it; None where the layout can't say it."""
    try:
        row = to_row(example, name)
    except RowProblem:
        return None
    return typing.cast("dict[str, Any]", json.loads(json.dumps(row, ensure_ascii=False)))


@given(examples())
def test_every_example_has_a_layout_that_says_it_whole(example: Example) -> None:
    same = [name for name in targets(example.type) if FORMATS[name].type == example.type]
    assert example in [to_example(row, Layout(FORMATS[name])) for name in same if (row := written(example, name))]


@given(examples(), st.data())
def test_a_row_reads_back_as_what_was_written(example: Example, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(targets(example.type)))
    row = written(example, name)
    if row is None:
        return
    assert recognise(list(row)) is FORMATS[name], "the layout is recognised again"
    back = to_example(row, Layout(FORMATS[name], auto=True))
    assert back.type == FORMATS[name].type
    again = written(back, name)
    assert again == row
    assert to_example(again, Layout(FORMATS[name])) == back
    if back.type == example.type and back.conversational == example.conversational:
        assert back == example


@given(examples())
def test_what_is_kept_of_a_conversation_is_its_turns(example: Example) -> None:
    """However it is spelled, a conversation that two layouts can say is the same conversation."""
    rows = {
        name: written(example, name) for name in ("messages", "sharegpt", "alpaca") if name in targets(example.type)
    }
    read = [to_example(row, Layout(FORMATS[name])) for name, row in rows.items() if row is not None]
    assert all(one == read[0] for one in read)
    if isinstance(example.chosen, tuple) and read:
        assert read[0].messages[-len(example.chosen) :] == example.chosen
