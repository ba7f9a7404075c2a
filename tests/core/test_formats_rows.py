"""Layouts with one answer, or none: what a good row becomes, and why a bad one can't be used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.core.example import Example, RowProblem
from studio.core.formats import FORMATS, Layout, to_example
from tests.core.any_example import messages, openai, said, sharegpt, turns

HI, HO = ("user", "Hi"), ("assistant", "Ho")
TAGGED = {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "it", "system_tag": "rule"}

GOOD: list[tuple[str, dict[str, Any], Example]] = [
    ("messages", messages(HI, HO), Example(turns("Hi", "Ho"))),
    ("messages", messages(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
     Example(turns("system:S", "a", "b", "c", "d"))),
    ("messages", messages(("developer", "S"), HI, HO), Example(turns("system:S", "Hi", "Ho"))),
    ("messages", messages(HI, HO, ("user", "and then?")), Example(turns("Hi", "Ho", "and then?"))),
    ("messages", messages(HI, HO, system="S"), Example(turns("system:S", "Hi", "Ho"))),
    ("messages", {"messages": json.dumps(openai(HI, HO))}, Example(turns("Hi", "Ho"))),
    ("messages", messages(("user", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), HO),
     Example(turns("ab", "Ho"))),
    ("messages", {"messages": [*openai(HI), {"role": "assistant", "content": "Ho", "weight": 1, "name": None}]},
     Example(turns("Hi", "Ho"))),
    ("messages", {"messages": [*openai(HI), {"role": "assistant", "content": "Ho", "reasoning_content": "Hm"}]},
     Example((*turns("Hi"), {"role": "assistant", "content": "Ho", "reasoning_content": "Hm"}))),
    ("sharegpt", sharegpt(("human", "Hi"), ("gpt", "Ho")), Example(turns("Hi", "Ho"))),
    ("sharegpt", sharegpt(("user", "Hi"), ("assistant", "Ho"), system="S"), Example(turns("system:S", "Hi", "Ho"))),
    ("sharegpt", sharegpt(("system", "own"), ("human", "Hi"), ("bing", "Ho"), system="S"),
     Example(turns("system:own", "Hi", "Ho"))),
    ("sharegpt", sharegpt(("human", "Hi"), ("chatgpt", "Ho"), system=" "), Example(turns("Hi", "Ho"))),
    ("sharegpt", {"conversations": json.dumps(sharegpt(("human", "Hi"), ("gpt", "Ho"))["conversations"])},
     Example(turns("Hi", "Ho"))),
    ("alpaca", {"instruction": "Hi", "output": "Ho"}, Example(turns("Hi", "Ho"))),
    ("alpaca", {"instruction": "Sum", "input": "1 2", "output": "3"}, Example(turns("Sum\n1 2", "3"))),
    ("alpaca", {"instruction": "", "input": "1 2", "output": "3"}, Example(turns("1 2", "3"))),
    ("alpaca", {"instruction": "Sum", "input": "", "output": "3", "system": "", "history": None},
     Example(turns("Sum", "3"))),
    ("alpaca", {"instruction": "c", "output": "d", "system": "S", "history": [["a", "b"]]},
     Example(turns("system:S", "a", "b", "c", "d"))),
    ("alpaca", {"instruction": "c", "output": "d", "history": '[["a", "b"]]'}, Example(turns("a", "b", "c", "d"))),
    ("alpaca", {"instruction": "c", "output": "d", "history": "", "tools": ""}, Example(turns("c", "d"))),
    ("prompt_completion", {"prompt": "Once", "completion": " upon"}, Example(prompt="Once", completion=" upon")),
    ("prompt_completion", {"prompt": openai(HI), "completion": openai(HO)},
     Example(prompt=turns("Hi"), completion=said("Ho"))),
    ("prompt_completion", {"prompt": json.dumps(openai(HI)), "completion": json.dumps(openai(HO))},
     Example(prompt=turns("Hi"), completion=said("Ho"))),
    ("prompt_completion", {"prompt": openai(HI), "completion": "Ho"},
     Example(prompt=turns("Hi"), completion=said("Ho"))),
    ("prompt_completion", {"prompt": "Hi", "completion": openai(HO)},
     Example(prompt=turns("Hi"), completion=said("Ho"))),
    # answers that are JSON are answers, unless they are messages beyond doubt
    ("prompt_completion", {"prompt": "Extract.", "completion": '{"role": "user", "content": "x"}'},
     Example(prompt="Extract.", completion='{"role": "user", "content": "x"}')),
    ("prompt_completion", {"prompt": "Extract.", "completion": '[{"role": "chef", "content": "x"}]'},
     Example(prompt="Extract.", completion='[{"role": "chef", "content": "x"}]')),
    ("prompt_completion", {"prompt": "List none.", "completion": "[]"}, Example(prompt="List none.", completion="[]")),
    ("prompt_completion", {"prompt": "Open it.", "completion": "[{"}, Example(prompt="Open it.", completion="[{")),
    ("prompt_only", {"prompt": "Once"}, Example(prompt="Once")),
    ("prompt_only", {"prompt": openai(("system", "S"), HI)}, Example(prompt=turns("system:S", "Hi"))),
    ("prompt_only", {"prompt": openai(HI, HO, ("user", "and?"))}, Example(prompt=turns("Hi", "Ho", "and?"))),
    ("text", {"text": "Once upon a time"}, Example(text="Once upon a time")),
    ("text", {"text": '["no", "list"]'}, Example(text='["no", "list"]')),
]  # fmt: skip

BAD: list[tuple[str, Any, str, str]] = [
    ("messages", {}, "missing_column", "messages is missing"),
    ("messages", {"messages": None}, "null", "messages is null"),
    ("messages", {"messages": "Hi"}, "wrong_type", "messages should be a list of messages, not text"),
    ("messages", {"messages": "[not json"}, "wrong_type", "messages should be a list of messages, not text"),
    ("messages", {"messages": 7}, "wrong_type", "messages should be a list of messages, not a number"),
    ("messages", {"messages": []}, "empty_prompt", "messages holds no message"),
    ("messages", {"messages": ["Hi"]}, "wrong_type", "message 1 should be an object with 'role' and 'content'"),
    ("messages", messages(HI, ("robot", "Ho")), "unknown_role", "message 2 has the unknown role 'robot'"),
    ("messages", messages(HI, ("human", "Ho")), "unknown_role", "message 2 has the unknown role 'human'"),
    ("messages", messages((None, "Hi")), "unknown_role", "message 1 has the unknown role null"),
    ("messages", messages((["user"], "Hi")), "unknown_role", "message 1 has the unknown role a list"),
    ("messages", {"messages": [{"who": "user", "content": "Hi"}]}, "unknown_role", "message 1 has the unknown role"),
    ("messages", {"messages": sharegpt(("human", "Hi"))["conversations"]}, "mixed_layout",
     "message 1 names its role by 'from' instead of 'role'"),
    ("messages", messages(("user", None)), "null", "message 1 should hold text, not null"),
    ("messages", {"messages": [{"role": "user"}]}, "null", "message 1 should hold text, not null"),
    ("messages", messages(("user", {"a": 1})), "wrong_type", "message 1 should hold text, not an object"),
    ("messages", messages(("user", [{"type": "image_url"}])), "wrong_type",
     "message 1 should hold text, not a part of type 'image_url'"),
    ("messages", messages(("user", ["Hi"])), "wrong_type", "message 1 should hold text, not a part of type 'text'"),
    ("messages", messages(HI, ("assistant", " \n")), "empty_answer", "message 2 is empty"),
    ("messages", messages(("user", ""), HO), "empty_prompt", "message 1 is empty"),
    ("messages", messages(("user", []), HO), "empty_prompt", "message 1 is empty"),
    ("messages", messages(HI), "no_assistant", "no answer by the assistant"),
    ("messages", messages(("system", "S")), "no_assistant", "no answer by the assistant"),
    ("messages", messages(HO, HI), "role_order", "turn 1 should be the user's, but is the assistant's"),
    ("messages", messages(("system", "S"), ("user", "a"), ("user", "b"), HO), "role_order",
     "turn 2 should be the assistant's, but is the user's"),
    ("messages", messages(("user", "a"), ("system", "S"), HO), "role_order", "a system message stands after the"),
    ("messages", {"messages": [*openai(HI), {"role": "assistant", "content": "Ho", "weight": 0}]}, "wrong_type",
     "message 2 has the weight 0"),
    ("messages", messages(("user", "\ud83d"), HO), "encoding", "message 1 holds half a character at 0"),
    ("messages", messages(HI, HO, system=3), "wrong_type", "system should be text, not a number"),
    ("sharegpt", {"conversations": None}, "null", "conversations is null"),
    ("sharegpt", sharegpt(("human", "Hi"), ("alien", "Ho")), "unknown_role", "message 2 has the unknown role 'alien'"),
    ("sharegpt", {"conversations": openai(HI)}, "mixed_layout", "message 1 names its role by 'role'"),
    ("alpaca", {"output": "Ho"}, "missing_column", "instruction is missing"),
    ("alpaca", {"instruction": "Hi"}, "missing_column", "output is missing"),
    ("alpaca", {"instruction": "Hi", "output": None}, "null", "output is null"),
    ("alpaca", {"instruction": "Hi", "output": ""}, "empty_answer", "output is empty"),
    ("alpaca", {"instruction": " ", "input": "", "output": "Ho"}, "empty_prompt", "instruction is empty"),
    ("alpaca", {"instruction": "Hi", "output": 3}, "wrong_type", "output should be text, not a number"),
    ("alpaca", {"instruction": "Hi", "input": ["x"], "output": "Ho"}, "wrong_type", "input should be text, not a list"),
    ("alpaca", {"instruction": "c", "output": "d", "history": ["a", "b"]}, "wrong_type",
     "history should be a list of [question"),
    ("alpaca", {"instruction": "c", "output": "d", "history": [["a"]]}, "wrong_type",
     "history should be a list of [question"),
    ("alpaca", {"instruction": "c", "output": "d", "history": [["a", None]]}, "null", "message 2 should hold text"),
    ("alpaca", {"instruction": "c", "output": "d", "history": [["a", " "]]}, "empty_answer", "message 2 is empty"),
    ("alpaca", {"instruction": "c", "output": "d", "history": 5}, "wrong_type", "history should be a list of"),
    ("prompt_completion", {"prompt": "a"}, "missing_column", "completion is missing"),
    ("prompt_completion", {"completion": "a"}, "missing_column", "prompt is missing"),
    ("prompt_completion", {"prompt": "a", "completion": " "}, "empty_answer", "completion is empty"),
    ("prompt_completion", {"prompt": "", "completion": "a"}, "empty_prompt", "prompt is empty"),
    ("prompt_completion", {"prompt": 1, "completion": "a"}, "wrong_type", "prompt should be text or messages"),
    ("prompt_completion", {"prompt": openai(HI), "completion": []}, "empty_answer", "completion holds no message"),
    ("prompt_completion", {"prompt": openai(HI), "completion": openai(HI)}, "role_order",
     "completion should open with the assistant's turn, not the user's"),
    ("prompt_completion", {"prompt": openai(HI, HO), "completion": openai(HO)}, "role_order",
     "the prompt ends with the assistant's message"),
    ("prompt_completion", {"prompt": openai(("system", "S")), "completion": openai(HO)}, "role_order",
     "the prompt ends with the system's message"),
    ("prompt_only", {"prompt": " "}, "empty_prompt", "prompt is empty"),
    ("prompt_only", {"prompt": None}, "null", "prompt is null"),
    ("prompt_only", {"prompt": []}, "empty_prompt", "prompt holds no message"),
    ("prompt_only", {"prompt": openai(HI, HO)}, "role_order", "the prompt ends with the assistant's message"),
    ("text", {}, "missing_column", "text is missing"),
    ("text", {"text": 1.5}, "wrong_type", "text should be text, not a number"),
    ("text", {"text": True}, "wrong_type", "text should be text, not a boolean"),
    ("text", {"text": "\t"}, "empty_answer", "text is empty"),
    ("text", {"text": "x\udfff"}, "encoding", "text holds half a character at 1"),
    ("text", "Once", "not_an_object", "the row should be an object"),
    ("text", None, "not_an_object", "the row should be an object"),
    ("text", ["Once"], "not_an_object", "the row should be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected"), GOOD)
def test_a_good_row_becomes_an_example(name: str, row: dict[str, Any], expected: Example) -> None:
    example = to_example(row, Layout(FORMATS[name]))
    assert example == expected
    assert example.type == FORMATS[name].type


@pytest.mark.parametrize(("name", "row", "kind", "reason"), BAD)
def test_F33_a_bad_row_is_told_with_its_kind_and_reason(name: str, row: Any, kind: str, reason: str) -> None:
    with pytest.raises(RowProblem) as raised:
        to_example(row, Layout(FORMATS[name]))
    assert raised.value.kind == kind
    assert reason in str(raised.value)
    assert len(str(raised.value)) < 200, "a reason is a sentence, not the row"


def test_every_layout_with_one_answer_has_a_good_and_a_bad_row_here() -> None:
    single = {name for name, format in FORMATS.items() if "preference" not in format.type}
    assert {name for name, _, _ in GOOD} == {name for name, _, _, _ in BAD} == single


def test_a_long_unknown_role_is_cut() -> None:
    with pytest.raises(RowProblem) as raised:
        to_example(messages(("x" * 10_000, "Hi")), Layout(FORMATS["messages"]))
    assert len(str(raised.value)) < 100


# -- tags --------------------------------------------------------------------------------------------------------------


def spelled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"who": who, "what": what} for who, what in pairs]


@pytest.mark.parametrize(("name", "column"), [("sharegpt", "conversations"), ("messages", "messages")])
def test_tags_name_keys_and_roles(name: str, column: str) -> None:
    row = {column: spelled(("rule", "S"), ("me", "Hi"), ("it", "Ho"))}
    assert to_example(row, Layout(FORMATS[name], tags=TAGGED)).messages == turns("system:S", "Hi", "Ho")


def test_tags_name_keys_and_roles_in_prompts_too() -> None:
    row = {"prompt": spelled(("me", "Hi")), "completion": spelled(("it", "Ho"))}
    example = to_example(row, Layout(FORMATS["prompt_completion"], tags=TAGGED))
    assert (example.prompt, example.completion) == (turns("Hi"), said("Ho"))


def test_a_role_that_a_tag_names_is_known_by_that_name_only() -> None:
    row = sharegpt(("human", "Hi"), ("gpt", "Ho"))
    with pytest.raises(RowProblem, match="message 2 has the unknown role 'gpt'"):
        to_example(row, Layout(FORMATS["sharegpt"], tags={"assistant_tag": "bot"}))


# -- system prompt -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "row", "part"),
    [
        ("messages", messages(HI, HO), "messages"),
        ("alpaca", {"instruction": "Hi", "output": "Ho"}, "messages"),
        ("prompt_completion", {"prompt": openai(HI), "completion": openai(HO)}, "prompt"),
        ("prompt_only", {"prompt": openai(HI)}, "prompt"),
        ("preference", {"prompt": openai(HI), "chosen": "a", "rejected": "b"}, "prompt"),
        ("sharegpt_unpaired", sharegpt(("human", "Hi"), ("gpt", "Ho"), kto_tag=True), "prompt"),
    ],
)
def test_a_system_prompt_opens_conversations_that_have_none(name: str, row: dict[str, Any], part: str) -> None:
    bare = to_example(row, Layout(FORMATS[name]))
    opened = to_example(row, Layout(FORMATS[name]), system="Be kind.")
    assert getattr(opened, part) == ({"role": "system", "content": "Be kind."}, *getattr(bare, part))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("messages", messages(("system", "S"), HI, HO)),
        ("prompt_only", {"prompt": openai(("system", "S"), HI)}),
        ("prompt_completion", {"prompt": "Once", "completion": "upon"}),
        ("text", {"text": "Once"}),
    ],
)
def test_a_system_prompt_leaves_its_own_and_plain_text_alone(name: str, row: dict[str, Any]) -> None:
    layout = Layout(FORMATS[name])
    assert to_example(row, layout, system="Be kind.") == to_example(row, layout)
