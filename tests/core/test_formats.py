"""Dataset layouts: what a good row becomes, why a bad one can't be used, how a layout is recognised."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.errors import DataError
from studio.core.formats import FORMATS, Example, RowProblem, recognise, to_example


def turns(*contents: str) -> tuple[dict[str, str], ...]:
    """User and assistant in turn; a first `system:` opens them."""
    messages = []
    if contents and contents[0].startswith("system:"):
        messages.append({"role": "system", "content": contents[0].removeprefix("system:")})
        contents = contents[1:]
    for number, content in enumerate(contents):
        messages.append({"role": ("user", "assistant")[number % 2], "content": content})
    return tuple(messages)


def messages(*pairs: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def sharegpt(*pairs: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": content} for role, content in pairs], **more}


GOOD: list[tuple[str, dict[str, Any], Example]] = [
    ("messages", messages(("user", "Hi"), ("assistant", "Ho")), Example(turns("Hi", "Ho"))),
    ("messages", messages(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
     Example(turns("system:S", "a", "b", "c", "d"))),
    ("messages", messages(("user", "Hi"), ("assistant", "Ho"), ("user", "and then?")),
     Example(turns("Hi", "Ho", "and then?"))),
    ("sharegpt", sharegpt(("human", "Hi"), ("gpt", "Ho")), Example(turns("Hi", "Ho"))),
    ("sharegpt", sharegpt(("user", "Hi"), ("assistant", "Ho"), system="S"), Example(turns("system:S", "Hi", "Ho"))),
    ("sharegpt", sharegpt(("system", "own"), ("human", "Hi"), ("bing", "Ho"), system="S"),
     Example(turns("system:own", "Hi", "Ho"))),
    ("sharegpt", sharegpt(("human", "Hi"), ("chatgpt", "Ho"), system=" "), Example(turns("Hi", "Ho"))),
    ("alpaca", {"instruction": "Hi", "output": "Ho"}, Example(turns("Hi", "Ho"))),
    ("alpaca", {"instruction": "Sum", "input": "1 2", "output": "3"}, Example(turns("Sum\n1 2", "3"))),
    ("alpaca", {"instruction": "Sum", "input": "", "output": "3", "system": "", "history": None},
     Example(turns("Sum", "3"))),
    ("alpaca", {"instruction": "c", "output": "d", "system": "S", "history": [["a", "b"]]},
     Example(turns("system:S", "a", "b", "c", "d"))),
    ("prompt_completion", {"prompt": "Once", "completion": " upon"}, Example(prompt="Once", completion=" upon")),
    ("prompt_completion", {"prompt": "", "completion": "upon"}, Example(prompt="", completion="upon")),
    ("prompt_completion", {"prompt": [{"role": "user", "content": "Hi"}],
                           "completion": [{"role": "assistant", "content": "Ho"}]}, Example(turns("Hi", "Ho"))),
    ("text", {"text": "Once upon a time"}, Example(text="Once upon a time")),
]  # fmt: skip

BAD: list[tuple[str, Any, str]] = [
    ("messages", {}, "messages should be a list"),
    ("messages", {"messages": "Hi"}, "messages should be a list"),
    ("messages", {"messages": []}, "messages should be a list"),
    ("messages", {"messages": ["Hi"]}, "message 1 should be an object with 'role' and 'content'"),
    ("messages", messages(("user", "Hi"), ("robot", "Ho")), "message 2 has the unknown role 'robot'"),
    ("messages", messages(("user", "Hi"), ("human", "Ho")), "message 2 has the unknown role 'human'"),
    ("messages", messages((None, "Hi")), "message 1 has the unknown role 'None'"),
    ("messages", messages((["user"], "Hi")), "message 1 has the unknown role"),
    ("messages", messages(("user", None)), "message 1 should hold text, not NoneType"),
    ("messages", messages(("user", [{"type": "image"}])), "message 1 should hold text, not list"),
    ("messages", messages(("user", "Hi"), ("assistant", " \n")), "message 2 is empty"),
    ("messages", messages(("user", "Hi")), "no answer by the assistant"),
    ("messages", messages(("system", "S")), "no answer by the assistant"),
    ("messages", messages(("assistant", "Ho"), ("user", "Hi")), "turn 1 should be the user's, but is the assistant's"),
    ("messages", messages(("system", "S"), ("user", "a"), ("user", "b"), ("assistant", "c")),
     "turn 2 should be the assistant's, but is the user's"),
    ("messages", messages(("user", "a"), ("system", "S"), ("assistant", "b")), "a system message stands after the"),
    ("sharegpt", {"conversations": None}, "conversations should be a list"),
    ("sharegpt", sharegpt(("human", "Hi"), ("alien", "Ho")), "message 2 has the unknown role 'alien'"),
    ("sharegpt", {"conversations": [{"role": "user", "content": "Hi"}]}, "message 1 has the unknown role"),
    ("alpaca", {"output": "Ho"}, "instruction is missing"),
    ("alpaca", {"instruction": "Hi"}, "output is missing"),
    ("alpaca", {"instruction": "Hi", "output": None}, "output is missing"),
    ("alpaca", {"instruction": "Hi", "output": ""}, "output is empty"),
    ("alpaca", {"instruction": "Hi", "output": 3}, "output should be text, not int"),
    ("alpaca", {"instruction": "c", "output": "d", "history": ["a", "b"]}, "history should be a list of [question"),
    ("alpaca", {"instruction": "c", "output": "d", "history": [["a"]]}, "history should be a list of [question"),
    ("alpaca", {"instruction": "c", "output": "d", "history": [["a", None]]}, "message 2 should hold text"),
    ("alpaca", {"instruction": "c", "output": "d", "history": 5}, "history should be a list of [question"),
    ("prompt_completion", {"prompt": "a"}, "completion is missing"),
    ("prompt_completion", {"completion": "a"}, "prompt is missing"),
    ("prompt_completion", {"prompt": "a", "completion": " "}, "completion is empty"),
    ("prompt_completion", {"prompt": "a", "completion": [{"role": "assistant", "content": "Ho"}]},
     "completion should be text, not list"),
    ("prompt_completion", {"prompt": [{"role": "user", "content": "Hi"}], "completion": []},
     "completion should be a list of messages"),
    ("text", {}, "text is missing"),
    ("text", {"text": 1.5}, "text should be text, not float"),
    ("text", {"text": "\t"}, "text is empty"),
    ("text", "Once", "the row should be an object"),
    ("text", None, "the row should be an object"),
    ("text", ["Once"], "the row should be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected"), GOOD)
def test_a_good_row_becomes_an_example(name: str, row: dict[str, Any], expected: Example) -> None:
    assert to_example(row, FORMATS[name]) == expected


@pytest.mark.parametrize(("name", "row", "reason"), BAD)
def test_F33_a_bad_row_is_told_with_its_reason(name: str, row: Any, reason: str) -> None:
    with pytest.raises(RowProblem) as raised:
        to_example(row, FORMATS[name])
    assert str(raised.value).startswith(reason) or reason in str(raised.value)
    assert len(str(raised.value)) < 200, "a reason is a sentence, not the row"


def test_every_layout_has_a_good_and_a_bad_row_here() -> None:
    assert {name for name, _, _ in GOOD} == {name for name, _, _ in BAD} == set(FORMATS)


def test_a_long_unknown_role_is_cut() -> None:
    with pytest.raises(RowProblem) as raised:
        to_example(messages(("x" * 10_000, "Hi")), FORMATS["messages"])
    assert len(str(raised.value)) < 100


# -- system prompt, column names --------------------------------------------------------------------------------------


def test_a_system_prompt_opens_conversations_that_have_none() -> None:
    format = FORMATS["messages"]
    bare, own = (
        messages(("user", "a"), ("assistant", "b")),
        messages(("system", "S"), ("user", "a"), ("assistant", "b")),
    )
    assert to_example(bare, format, system="Be kind.").messages == turns("system:Be kind.", "a", "b")
    assert to_example(own, format, system="Be kind.").messages == turns("system:S", "a", "b")
    assert to_example({"text": "a"}, FORMATS["text"], system="Be kind.") == Example(text="a")


def test_columns_of_other_names_are_mapped() -> None:
    row = {"question": "Hi", "answer": "Ho", "instruction": "not this"}
    mapping = {"instruction": "question", "output": "answer"}
    assert recognise(list(row), mapping).name == "alpaca"
    assert to_example(row, FORMATS["alpaca"], mapping).messages == turns("Hi", "Ho")
    assert row == {"question": "Hi", "answer": "Ho", "instruction": "not this"}


def test_a_mapped_column_that_is_not_there_is_missing() -> None:
    with pytest.raises(RowProblem, match="text is missing"):
        to_example({"text": "a"}, FORMATS["text"], {"text": "body"})


# -- recognising ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_layout_is_recognised_from_its_columns(name: str) -> None:
    format = FORMATS[name]
    assert recognise(list(format.needs)) is format
    assert recognise([*format.needs, *format.reads, "id", "source"]) is format


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["messages", "text"], ("messages", "text")),
        (["instruction", "output", "text"], ("alpaca", "text")),
        (["prompt", "completion", "messages", "conversations"], ("messages", "sharegpt", "prompt_completion")),
    ],
)
def test_columns_of_two_layouts_are_a_question(columns: list[str], names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"dataset\.format") as raised:
        recognise(columns)
    assert f"as {' or '.join(names)}." in raised.value.message


def test_a_mapping_can_settle_the_question() -> None:
    assert recognise(["messages", "text"], {"instruction": "text", "output": "messages"}).name == "alpaca"


@pytest.mark.parametrize("columns", [[], ["question", "answer"], ["instruction"], ["Text"]])
def test_unknown_columns_are_told_with_what_is_accepted(columns: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        recognise(columns)
    for name, format in FORMATS.items():
        assert f"{name}: {' + '.join(format.needs)}" in raised.value.hint
    assert (columns[0] if columns else "(none)") in raised.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]), inner)
    ),
    max_leaves=8,
)
COLUMNS = st.sampled_from(sorted({c for f in FORMATS.values() for c in (*f.needs, *f.reads)}))


@given(st.sampled_from(sorted(FORMATS)), st.dictionaries(COLUMNS, JSON, max_size=6) | JSON)
def test_F33_no_row_makes_a_layout_raise_anything_but_a_row_problem(name: str, row: Any) -> None:
    try:
        example = to_example(row, FORMATS[name])
    except RowProblem:
        return
    kinds = [bool(example.messages), example.prompt is not None, example.text is not None]
    assert kinds.count(True) == 1
    assert all(message["content"].strip() for message in example.messages)
