"""The table of layouts: how one is recognised from its columns, chosen for a dataset, and held to by every row."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.config import DatasetSection
from studio.core.conversation import TAGS
from studio.core.errors import DataError
from studio.core.example import Example, RowProblem, Type
from studio.core.formats import FORMATS, Layout, choose_layout, fitting, recognise, suggest, to_example
from studio.core.inputs import DatasetInput
from studio.core.problems import PROBLEMS
from tests.core import test_formats_preference, test_formats_rows
from tests.core.any_example import messages, openai, said, sharegpt, turns

CHAT = messages(("user", "Hi"), ("assistant", "Ho"))


def choose(row: Any, section: dict[str, Any] | None = None, **dataset: Any) -> Layout:
    return choose_layout(DatasetSection(**(section or {})), DatasetInput("d", **dataset), row)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_a_run_can_name_every_layout_and_no_other() -> None:
    named = typing.get_args(DatasetSection.model_fields["format"].annotation)
    assert sorted(named) == sorted(["auto", *FORMATS])


def test_every_type_of_TRLs_has_a_layout() -> None:
    assert {format.type for format in FORMATS.values()} == set(typing.get_args(Type))


@pytest.mark.parametrize("name", FORMATS)
def test_a_layout_is_recognised_from_its_columns(name: str) -> None:
    format = FORMATS[name]
    assert format.name == name
    assert recognise(list(format.needs)) is format
    assert recognise([*format.needs, *format.reads, "id", "source"]) is format


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if format.beats])
def test_a_layout_beats_only_those_whose_columns_it_has_and_more(name: str) -> None:
    columns = {*FORMATS[name].needs, *FORMATS[name].reads}
    for loser in FORMATS[name].beats:
        assert columns > set(FORMATS[loser].needs)
        assert set(FORMATS[name].needs) != set(FORMATS[loser].needs)
        assert name not in FORMATS[loser].beats


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["prompt", "completion", "label"], "unpaired_preference"),
        (["prompt", "completion"], "prompt_completion"),
        (["prompt", "chosen", "rejected"], "preference"),
        (["chosen", "rejected"], "preference"),
        (["instruction", "input", "chosen", "rejected"], "alpaca_preference"),
        (["conversations", "chosen", "rejected"], "sharegpt_preference"),
        (["instruction", "output", "kto_tag"], "alpaca_unpaired"),
        (["conversations", "kto_tag"], "sharegpt_unpaired"),
        (["prompt"], "prompt_only"),
    ],
)
def test_columns_that_contain_anothers_mean_the_larger_layout(columns: list[str], name: str) -> None:
    assert recognise(columns).name == name


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["messages", "text"], ("messages", "text")),
        (["instruction", "output", "text"], ("alpaca", "text")),
        (["prompt", "completion", "messages", "conversations"], ("messages", "sharegpt", "prompt_completion")),
        (["prompt", "chosen", "rejected", "messages"], ("messages", "preference")),  # UltraFeedback-binarized
        (["instruction", "output", "chosen", "rejected"], ("alpaca", "alpaca_preference")),
        (["instruction", "prompt", "chosen", "rejected"], ("preference", "alpaca_preference")),
        (["prompt", "completion", "chosen", "rejected"], ("prompt_completion", "preference")),
        (["instruction", "completions", "output"], ("alpaca", "ultrafeedback")),
        (["conversations", "chosen", "rejected", "kto_tag"], ("sharegpt_preference", "sharegpt_unpaired")),
    ],
)
def test_columns_of_two_layouts_are_a_question(columns: list[str], names: tuple[str, ...]) -> None:
    assert {format.name for format in fitting(columns)} == set(names)
    with pytest.raises(DataError, match=r"dataset\.format") as raised:
        recognise(columns)
    assert f"as {' or '.join(names)}." in raised.value.message


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        (["prompt", "response"], ("prompt_only", "alpaca")),
        (["Prompt_id", "prompt", "answer"], ("prompt_only", "alpaca")),
        (["system", "question", "chosen", "rejected"], ("preference", "alpaca_preference")),
    ],
)
def test_a_question_or_answer_of_another_name_is_not_passed_over(columns: list[str], names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"dataset\.format") as raised:
        recognise(columns)
    assert f"as {names[0]} or {names[1]} (with dataset.columns instruction: " in raised.value.message
    settled = suggest(columns)
    assert recognise(columns, settled).name == names[1]


def test_a_mapping_can_settle_the_question() -> None:
    assert recognise(["messages", "text"], {"instruction": "text", "output": "messages"}).name == "alpaca"
    assert recognise(["prompt", "response"], {"completion": "response"}).name == "prompt_completion"
    assert recognise(["prompt", "chosen", "rejected", "text"], {"text": ""}).name == "preference"


@pytest.mark.parametrize("columns", [[], ["question", "answer"], ["instruction"], ["Text"]])
def test_unknown_columns_are_told_with_what_is_accepted(columns: list[str]) -> None:
    with pytest.raises(DataError) as raised:
        recognise(columns)
    for name, format in FORMATS.items():
        assert f"{name}: {' + '.join(format.needs)}" in raised.value.hint
    assert (columns[0] if columns else "(none)") in raised.value.message


# -- proposals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "proposed"),
    [
        (["question", "answer"], {"instruction": "question", "output": "answer"}),
        (["id", "Question", "Context", "Response"],
         {"instruction": "Question", "output": "Response", "input": "Context"}),
        (["instruction", "response"], {"output": "response"}),
        (["system_prompt", "question", "response"],
         {"system": "system_prompt", "instruction": "question", "output": "response"}),
        (["conversation"], {"conversations": "conversation"}),
        (["Messages"], {"messages": "Messages"}),
        (["question", "chosen", "rejected"], {"instruction": "question"}),
        (["content"], {"text": "content"}),
        (["instruction", "output"], {}),
        (["a", "b"], {}),
        ([], {}),
    ],
)  # fmt: skip
def test_columns_of_other_names_are_proposed(columns: list[str], proposed: dict[str, str]) -> None:
    assert suggest(columns) == proposed
    if proposed:
        assert recognise(columns, proposed)


def test_a_proposal_is_told_but_not_applied() -> None:
    with pytest.raises(DataError, match="perhaps instruction: question, output: answer"):
        choose({"question": "Hi", "answer": "Ho"})


@given(st.lists(st.sampled_from(["prompt", "question", "answer", "chosen", "rejected", "text", "chat", "output"])))
def test_a_proposal_always_settles_it(columns: list[str]) -> None:
    if proposed := suggest(columns):
        assert set(proposed.values()) <= set(columns)
        assert len(fitting(columns, proposed)) == 1


# -- choosing ----------------------------------------------------------------------------------------------------------


def test_the_runs_choice_comes_first_then_the_datasets_then_the_columns() -> None:
    row = {**CHAT, "text": "Once"}
    assert choose(row, {"format": "text"}, format="messages").format.name == "text"
    assert choose(row, format="messages").format.name == "messages"
    assert choose(CHAT).format.name == "messages"
    assert (choose(row, format="messages").auto, choose(CHAT).auto) == (False, True)
    with pytest.raises(DataError, match="messages or text"):
        choose(row)


def test_columns_and_tags_are_the_runs_or_else_the_datasets() -> None:
    row = {"q": "Hi", "a": "Ho", "b": "No"}
    own, other = {"instruction": "q", "output": "a"}, {"instruction": "q", "output": "b"}
    assert choose(row, {"columns": own}, columns=other).columns == own
    assert choose(row, columns=other).columns == other
    assert choose(CHAT, {"tags": {"user_tag": "me"}}, tags={"user_tag": "you"}).tags == {"user_tag": "me"}
    assert choose(CHAT, tags={"user_tag": "you"}).tags == {"user_tag": "you"}
    assert choose(CHAT, tags={"user_tag": ""}).tags == {}, "a field left blank names nothing"


@pytest.mark.parametrize("row", [None, "Hi", ["Hi"], 3])
def test_a_first_row_without_columns_says_nothing(row: Any) -> None:
    with pytest.raises(DataError, match="no object"):
        choose(row)
    assert choose(row, {"format": "text"}).format.name == "text"


def test_an_unknown_layout_or_tag_is_told() -> None:
    with pytest.raises(DataError, match=r"no layout 'alpacca'.*alpaca"):
        choose(CHAT, format="alpacca")
    with pytest.raises(DataError, match=r"no tag 'human_tag'") as raised:
        choose(CHAT, {"tags": {"human_tag": "me"}})
    assert all(tag in raised.value.hint for tag in TAGS)
    with pytest.raises(DataError, match="the name 'assistant' to two roles"):
        choose(CHAT, {"tags": {"assistant_tag": "assistant", "function_tag": "assistant"}})


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": CHAT["messages"]},
        {"messages": sharegpt(("human", "Hi"), ("gpt", "Ho"))["conversations"]},
        {"conversations": CHAT["messages"], "kto_tag": True},
        {"prompt": sharegpt(("human", "Hi"))["conversations"], "completion": "Ho"},
        {"conversations": openai(("user", "Hi")), "chosen": openai(("assistant", "Ho"))[0], "rejected": "No"},
        CHAT,
    ],
)
def test_the_first_row_says_how_its_messages_are_spelled(row: dict[str, Any]) -> None:
    layout = choose(row)
    assert set(layout.tags) <= set(TAGS)
    example = to_example(row, layout)
    assert (example.messages or example.prompt)[:1] == turns("Hi")  # type: ignore[index]


# -- names that differ -------------------------------------------------------------------------------------------------


def test_columns_of_other_names_are_mapped() -> None:
    row = {"question": "Hi", "answer": "Ho", "instruction": "not this"}
    mapping = {"instruction": "question", "output": "answer"}
    assert recognise(list(row), mapping).name == "alpaca"
    assert to_example(row, Layout(FORMATS["alpaca"], mapping)).messages == turns("Hi", "Ho")
    assert row == {"question": "Hi", "answer": "Ho", "instruction": "not this"}


def test_a_mapped_column_that_is_not_there_is_missing_even_if_the_usual_one_is() -> None:
    with pytest.raises(RowProblem, match="body \\(as text\\) is missing") as raised:
        to_example({"text": "a"}, Layout(FORMATS["text"], {"text": "body"}))
    assert raised.value.kind == "missing_column"


def test_a_problem_names_the_column_as_the_dataset_does() -> None:
    with pytest.raises(RowProblem, match="answer \\(as output\\) is empty"):
        to_example({"q": "Hi", "answer": ""}, Layout(FORMATS["alpaca"], {"instruction": "q", "output": "answer"}))


def test_a_column_mapped_to_nothing_is_not_read() -> None:
    row = {"instruction": "Hi", "input": "there", "output": "Ho"}
    assert to_example(row, Layout(FORMATS["alpaca"], {"input": ""})).messages == turns("Hi", "Ho")


def test_a_column_stands_for_one_thing_only() -> None:
    layout = Layout(FORMATS["preference"], {"chosen": "prompt"})
    with pytest.raises(RowProblem, match="share no opening"):
        to_example({"prompt": "Ho", "rejected": "No"}, layout)


# -- rows of another layout --------------------------------------------------------------------------------------------

ALPACA = {"instruction": "Hi", "output": "Ho"}


@pytest.mark.parametrize(
    ("first", "row"),
    [
        (CHAT, ALPACA),
        (ALPACA, CHAT),
        (CHAT, {**CHAT, **ALPACA}),
        (CHAT, {**CHAT, "text": "Once"}),
        ({"prompt": "Hi"}, {"prompt": "Hi", "completion": "Ho"}),
        ({"prompt": "Hi", "completion": "Ho"}, {"prompt": "Hi", "completion": "Ho", "label": True}),
        ({"prompt": "Hi", "chosen": "Ho", "rejected": "No"}, {"instruction": "Hi", "chosen": "Ho", "rejected": "No"}),
        (CHAT, {"messages": sharegpt(("human", "Hi"), ("gpt", "Ho"))["conversations"]}),
    ],
)
def test_a_row_of_another_layout_than_the_first_is_told(first: dict[str, Any], row: dict[str, Any]) -> None:
    layout = choose(first)
    to_example(first, layout)
    with pytest.raises(RowProblem) as raised:
        to_example(row, layout)
    assert raised.value.kind == "mixed_layout"


@pytest.mark.parametrize(
    ("first", "row", "kind"),
    [
        (CHAT, {"id": 3}, "missing_column"),
        (CHAT, {**CHAT, "text": None, "instruction": None}, None),
        ({"prompt": "Hi", "completion": "Ho"}, {"prompt": "Hi"}, "missing_column"),
        ({"prompt": "Hi", "completion": "Ho"}, {"prompt": "Hi", "completion": None}, "null"),
        ({**ALPACA, "kto_tag": True}, ALPACA, "missing_column"),
        ({"prompt": "Hi", "chosen": "Ho", "rejected": "No"}, {"prompt": "Hi", "chosen": "Ho"}, "missing_column"),
    ],
)
def test_a_row_that_only_lacks_something_is_not_of_another_layout(first: Any, row: Any, kind: str | None) -> None:
    layout = choose(first)
    if kind is None:
        assert to_example(row, layout) == to_example(first, layout)
        return
    with pytest.raises(RowProblem) as raised:
        to_example(row, layout)
    assert raised.value.kind == kind


def test_where_the_layout_was_named_other_columns_do_no_harm() -> None:
    row = {**CHAT, "text": "Once"}
    assert to_example(row, choose(row, format="messages")).messages == turns("Hi", "Ho")
    assert to_example(row, choose(row, format="text")).text == "Once"
    with pytest.raises(RowProblem) as raised:
        to_example(ALPACA, choose(row, format="messages"))
    assert raised.value.kind == "mixed_layout"


# -- anything ----------------------------------------------------------------------------------------------------------

ROLES = st.sampled_from(["user", "assistant", "system", "tool", "human", "gpt", "function_call", "observation"])
KEYS = st.sampled_from(
    ["role", "content", "from", "value", "tool_calls", "name", "arguments", "function", "type", "text", "response",
     "score"]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | ROLES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)
COLUMNS = st.sampled_from(sorted({column for format in FORMATS.values() for column in (*format.needs, *format.reads)}))
GOOD_ROWS = [(name, row) for name, row, _ in (*test_formats_rows.GOOD, *test_formats_preference.GOOD)]
SPELLED = st.dictionaries(
    st.sampled_from(TAGS), st.sampled_from(["role", "content", "from", "user", "gpt"]), max_size=2
)


def spoiled(value: Any) -> st.SearchStrategy[Any]:
    """A good value with something in it replaced, or as it is."""
    if isinstance(value, dict):
        return st.fixed_dictionaries({}, optional={key: spoiled(inner) for key, inner in value.items()})
    if isinstance(value, list):
        return st.tuples(*(spoiled(inner) for inner in value)).map(list)
    return st.sampled_from([value] * 9 + [None, "", 0, [], {}, "user", "\ud800"])


ROWS = st.sampled_from(GOOD_ROWS).flatmap(lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]) | spoiled(pair[1])))
ANY = st.tuples(st.sampled_from(sorted(FORMATS)), st.dictionaries(COLUMNS, JSON, max_size=6) | JSON)


@given(
    ROWS | ANY,
    st.just({}) | st.dictionaries(COLUMNS, COLUMNS | st.just(""), max_size=2),
    st.just({}) | SPELLED,
    st.booleans(),
)
def test_F33_no_row_makes_a_layout_raise_anything_but_a_row_problem(
    case: tuple[str, Any], columns: dict[str, str], tags: dict[str, str], auto: bool
) -> None:
    name, row = case
    try:
        example = to_example(row, Layout(FORMATS[name], columns, tags, auto), system="Be kind.")
    except RowProblem as problem:
        assert PROBLEMS[problem.kind].severity == "error"
        return
    assert example.type == FORMATS[name].type
    assert_good(example)


def assert_good(example: Example) -> None:
    parts = [example.messages, example.prompt, example.completion, example.chosen, example.rejected]
    there = [part for part in parts if part not in ((), None)]
    assert len({isinstance(part, tuple) for part in there}) <= 1, "all text, or all messages"
    assert all(part.strip() for part in [*there, example.text] if isinstance(part, str))
    for message in (message for part in there if isinstance(part, tuple) for message in part):
        assert message["role"] in ("system", "user", "assistant", "tool")
        assert message["content"].strip() or message["role"] == "tool" or message["tool_calls"]
    assert example.conversational == any(isinstance(part, tuple) for part in there)


def test_a_row_nested_beyond_reason_is_a_problem() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    for row in (
        {"messages": deep},
        {"messages": [{"role": deep, "content": deep}]},
        {"messages": openai(("user", deep))},
    ):
        with pytest.raises(RowProblem):
            to_example(row, Layout(FORMATS["messages"]))


def test_what_an_example_is_follows_from_what_it_holds() -> None:
    cases: list[tuple[Example, str, bool]] = [
        (Example(text="a"), "language_modeling", False),
        (Example(messages=turns("a", "b")), "language_modeling", True),
        (Example(prompt="a"), "prompt_only", False),
        (Example(prompt=turns("a")), "prompt_only", True),
        (Example(prompt="a", completion="b"), "prompt_completion", False),
        (Example(prompt=turns("a"), completion=said("b"), label=False), "unpaired_preference", True),
        (Example(prompt="a", chosen="b", rejected="c"), "preference", False),
    ]
    for example, type, conversational in cases:
        assert (example.type, example.conversational) == (type, conversational)
