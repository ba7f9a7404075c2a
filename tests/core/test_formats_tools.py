"""Tool calls and tools: every spelling becomes the one that chat templates read, and nothing else passes."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from studio.core.example import Message, RowProblem
from studio.core.formats import FORMATS, Layout, to_example
from tests.core.any_example import WEATHER, call, openai, sharegpt

ASK = {"role": "user", "content": "Is it warm in Rome?"}
FOUND = {"role": "tool", "content": "30 degrees"}
ANSWER = {"role": "assistant", "content": "Yes."}
ROME = call("weather", {"city": "Rome"})


def conversation(*calls: Any, content: Any = None, **more: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, "tool_calls": list(calls)}
    return {"messages": [ASK, said, FOUND, ANSWER], **more}


def read(row: dict[str, Any], name: str = "messages", **tags: str) -> tuple[Message, ...]:
    return to_example(row, Layout(FORMATS[name], tags=tags)).messages


def refused(row: dict[str, Any], name: str = "messages") -> str:
    with pytest.raises(RowProblem) as raised:
        to_example(row, Layout(FORMATS[name]))
    assert raised.value.kind == "bad_tool_call"
    return str(raised.value)


@pytest.mark.parametrize(
    "spelled",
    [
        ROME,
        {"function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
        {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}, "id": None},
        {"name": "weather", "arguments": {"city": "Rome"}},
        {"name": "weather", "arguments": '{"city": "Rome"}'},
        '{"name": "weather", "arguments": {"city": "Rome"}}',
    ],
)
def test_a_call_is_read_in_every_spelling(spelled: Any) -> None:
    assert read(conversation(spelled))[1] == {"role": "assistant", "content": "", "tool_calls": [ROME]}


def test_calls_may_be_json_text_as_a_whole() -> None:
    row = {"messages": [ASK, {"role": "assistant", "tool_calls": json.dumps([ROME, ROME])}, FOUND, ANSWER]}
    assert read(row)[1]["tool_calls"] == [ROME, ROME]


def test_a_call_keeps_its_id_and_what_is_said_beside_it() -> None:
    known = call("weather", {}, id="c1")
    row = conversation(
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": ""}}, content="Mm."
    )
    row["messages"][2] = {"role": "tool", "content": "30", "tool_call_id": "c1", "name": "weather"}
    messages = read(row)
    assert messages[1] == {"role": "assistant", "content": "Mm.", "tool_calls": [known]}
    assert messages[2] == {"role": "tool", "content": "30", "tool_call_id": "c1", "name": "weather"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('{"name": "weather", "arguments": {"city": "Rome"}}', [ROME]),
        ('[{"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}]', [ROME]),
        ({"name": "weather", "arguments": {"city": "Rome"}}, [ROME]),
        (json.dumps([ROME["function"], ROME["function"]]), [ROME, ROME]),
    ],
)
def test_ShareGPTs_function_call_is_a_call(value: Any, expected: list[Any]) -> None:
    row = sharegpt(("human", "warm?"), ("function_call", value), ("observation", "30"), ("gpt", "Yes."))
    messages = read(row, "sharegpt")
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": expected}


def test_a_tag_names_the_role_that_calls() -> None:
    row = {"messages": [ASK, {"role": "act", "content": json.dumps(ROME["function"])}, FOUND, ANSWER]}
    assert read(row, function_tag="act")[1]["tool_calls"] == [ROME]


@pytest.mark.parametrize(
    ("spelled", "reason"),
    [
        ("weather(Rome)", "not in JSON"),
        ({"function": {"name": "weather", "arguments": "{city: Rome}"}}, "its arguments are no JSON"),
        ({"function": {"name": "weather", "arguments": "[1]"}}, "its arguments are no object"),
        ({"function": {"name": "weather", "arguments": 7}}, "its arguments are no object"),
        ({"function": {"arguments": {}}}, "names none"),
        ({"name": " ", "arguments": {}}, "names none"),
        ({"name": 3, "arguments": {}}, "names none"),
        ({"function": "weather"}, "names none"),
        (None, "names none"),
        ("[" * 200_000, "not in JSON"),
        ({"name": "weather", "arguments": {"on": datetime.date(2020, 1, 1)}}, "holds what JSON can't"),
        ({"name": "weather", "arguments": {"city": "\ud83d"}}, "holds what JSON can't"),
    ],
)
def test_a_call_that_is_none_is_told(spelled: Any, reason: str) -> None:
    told = refused(conversation(spelled))
    assert told.startswith("message 2 calls a tool, but")
    assert reason in told


@pytest.mark.parametrize("value", ["get the weather", "", "[]", None, [], "{}"])
def test_a_function_call_that_is_none_is_told(value: Any) -> None:
    row = sharegpt(("human", "warm?"), ("function_call", value), ("observation", "30"), ("gpt", "Yes."))
    assert refused(row, "sharegpt").startswith("message 2 calls a tool, but")


def test_only_the_assistant_calls() -> None:
    assert refused({"messages": [{**ASK, "tool_calls": [ROME]}, ANSWER]}) == "message 1 calls a tool, but is the user's"


def test_no_calls_is_no_call() -> None:
    for nothing in (None, [], ""):
        assert "tool_calls" not in read({"messages": [{**ASK, "tool_calls": nothing}, ANSWER]})[0]
    with pytest.raises(RowProblem, match="message 2 should hold text, not null") as raised:
        read(conversation(content=None))
    assert raised.value.kind == "null"


def test_a_tool_may_have_nothing_to_say() -> None:
    row = conversation(ROME)
    row["messages"][2] = {"role": "tool", "content": ""}
    assert read(row)[2] == {"role": "tool", "content": ""}


# -- order -------------------------------------------------------------------------------------------------------------


def roles(*names: str) -> dict[str, Any]:
    turns = {"user": ASK, "tool": FOUND, "assistant": ANSWER, "call": {"role": "assistant", "tool_calls": [ROME]}}
    return {"messages": [turns[name] for name in names]}


@pytest.mark.parametrize(
    "names",
    [
        ("user", "call", "tool", "assistant"),
        ("user", "call", "tool", "tool", "assistant"),
        ("user", "call", "tool", "call", "tool", "assistant", "user", "assistant"),
        ("user", "call"),
        ("user", "assistant", "tool", "assistant"),  # a call written as plain text
    ],
)
def test_tools_answer_calls(names: tuple[str, ...]) -> None:
    assert len(read(roles(*names))) == len(names)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("tool", "assistant"), "turn 1 should be the user's, but is the tool's"),
        (("user", "tool", "assistant"), "turn 2 should be the assistant's, but is the tool's"),
        (("user", "call", "user", "assistant"), "turn 3 should be the tool's, but is the user's"),
        (("user", "call", "assistant"), "turn 3 should be the tool's, but is the assistant's"),
        (("user", "call", "tool", "user"), "turn 4 should be the assistant's, but is the user's"),
    ],
)
def test_tools_out_of_order_are_told(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(RowProblem) as raised:
        read(roles(*names))
    assert (raised.value.kind, str(raised.value)) == ("role_order", reason)


# -- tools -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tools",
    [
        [WEATHER],
        json.dumps([WEATHER]),
        [json.dumps(WEATHER)],
        [WEATHER["function"]],
        json.dumps([WEATHER["function"]]),
        (WEATHER,),
    ],
)
def test_tools_are_read_in_every_spelling(tools: Any) -> None:
    assert to_example(conversation(ROME, tools=tools), Layout(FORMATS["messages"])).tools == (WEATHER,)


@pytest.mark.parametrize("tools", [None, "", " ", [], "[]"])
def test_no_tools_are_none(tools: Any) -> None:
    assert to_example(conversation(ROME, tools=tools), Layout(FORMATS["messages"])).tools == ()


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ("weather", "tools should be JSON"),
        ({"name": "weather"}, "tools should be a list of functions"),
        (5, "tools should be a list of functions"),
        (["weather"], "tool 1 should be JSON"),
        ([WEATHER, {"type": "function"}], "tool 2 should be a function with a name"),
        ([WEATHER, None], "tool 2 should be a function with a name"),
        ([{"name": "f", "default": b"x"}], "tool 1 holds what JSON can't"),
    ],
)
def test_tools_that_are_none_are_told(tools: Any, reason: str) -> None:
    assert refused(conversation(ROME, tools=tools)) == reason


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("alpaca", {"instruction": "a", "output": "b"}),
        ("prompt_completion", {"prompt": openai(("user", "a")), "completion": "b"}),
        ("prompt_only", {"prompt": openai(("user", "a"))}),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "c"}),
        ("alpaca_preference", {"instruction": "a", "chosen": "b", "rejected": "c"}),
        ("sharegpt_preference", sharegpt(("human", "a"), chosen="b", rejected="c")),
        ("unpaired_preference", {"prompt": "a", "completion": "b", "label": True}),
        ("alpaca_unpaired", {"instruction": "a", "output": "b", "kto_tag": True}),
        ("sharegpt_unpaired", sharegpt(("human", "a"), ("gpt", "b"), kto_tag=True)),
        ("sharegpt", sharegpt(("human", "a"), ("gpt", "b"))),
    ],
)
def test_every_layout_that_reads_tools_does(name: str, row: dict[str, Any]) -> None:
    assert "tools" in FORMATS[name].reads
    assert to_example({**row, "tools": [WEATHER]}, Layout(FORMATS[name])).tools == (WEATHER,)
