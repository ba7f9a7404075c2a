"""Layouts that judge answers: pairs to compare, and single answers with a label."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.core.example import Example, RowProblem
from studio.core.formats import FORMATS, Layout, to_example
from tests.core.any_example import openai, said, sharegpt, turns

HI, HO, NO = ("user", "Hi"), ("assistant", "Ho"), ("assistant", "No")
PAIR = Example(prompt=turns("Hi"), chosen=said("Ho"), rejected=said("No"))
LONGER = ("user", "a"), ("assistant", "b")


def completions(*scored: tuple[str, Any], key: str = "overall_score") -> list[dict[str, Any]]:
    return [{"response": response, key: score, "model": "m"} for response, score in scored]


GOOD: list[tuple[str, dict[str, Any], Example]] = [
    ("preference", {"prompt": "Hi", "chosen": "Ho", "rejected": "No"},
     Example(prompt="Hi", chosen="Ho", rejected="No")),
    ("preference", {"prompt": openai(HI), "chosen": openai(HO), "rejected": openai(NO)}, PAIR),
    ("preference", {key: json.dumps(openai(said)) for key, said in (("prompt", HI), ("chosen", HO), ("rejected", NO))},
     PAIR),
    ("preference", {"prompt": openai(HI), "chosen": "Ho", "rejected": "No"}, PAIR),
    ("preference", {"prompt": "Hi", "chosen": openai(HO), "rejected": openai(NO)}, PAIR),
    # whole conversations, as UltraFeedback-binarized has them: with the prompt, or without
    ("preference", {"prompt": "Hi", "chosen": openai(HI, HO), "rejected": openai(HI, NO)}, PAIR),
    ("preference", {"prompt": openai(HI), "chosen": openai(HI, HO), "rejected": openai(HI, NO)}, PAIR),
    ("preference", {"chosen": openai(HI, HO), "rejected": openai(HI, NO)}, PAIR),
    ("preference", {"prompt": None, "chosen": openai(HI, HO), "rejected": openai(HI, NO)}, PAIR),
    ("preference", {"chosen": openai(*LONGER, HI, HO), "rejected": openai(*LONGER, HI, NO)},
     Example(prompt=turns("a", "b", "Hi"), chosen=said("Ho"), rejected=said("No"))),
    # they part at the user's turn: what is to be answered is the last question that both share
    ("preference", {"chosen": openai(*LONGER, ("user", "c"), HO), "rejected": openai(*LONGER, ("user", "d"), NO)},
     Example(prompt=turns("a"), chosen=(*said("b"), *turns("c", "Ho")), rejected=(*said("b"), *turns("d", "No")))),
    # text that opens alike, cut at a word's end
    ("preference", {"chosen": "Human: Hi\n\nAssistant: Hello", "rejected": "Human: Hi\n\nAssistant: Her"},
     Example(prompt="Human: Hi\n\nAssistant:", chosen=" Hello", rejected=" Her")),
    ("alpaca_preference", {"instruction": "Hi", "chosen": "Ho", "rejected": "No"}, PAIR),
    ("alpaca_preference",
     {"instruction": "H", "input": "i", "system": "S", "history": [["a", "b"]], "chosen": "Ho", "rejected": "No"},
     Example(prompt=turns("system:S", "a", "b", "H\ni"), chosen=said("Ho"), rejected=said("No"))),
    ("sharegpt_preference",
     sharegpt(("human", "Hi"), chosen={"from": "gpt", "value": "Ho"}, rejected={"from": "gpt", "value": "No"}), PAIR),
    ("sharegpt_preference", sharegpt(("human", "Hi"), chosen="Ho", rejected="No"), PAIR),
    ("sharegpt_preference",
     sharegpt(("human", "Hi"), system="S", chosen={"from": "gpt", "value": "Ho"},
              rejected={"from": "gpt", "value": "No"}),
     Example(prompt=turns("system:S", "Hi"), chosen=said("Ho"), rejected=said("No"))),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("so", 5), ("No", 1.5), ("Ho", 8))}, PAIR),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("Ho", 2), ("No", 1), ("x", 2), ("y", 1))},
     PAIR),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("No", -1), ("Ho", 0), key="score")}, PAIR),
    ("ultrafeedback", {"instruction": "Hi", "completions": json.dumps(completions(("No", 1), ("Ho", 2)))}, PAIR),
    ("unpaired_preference", {"prompt": "Hi", "completion": "Ho", "label": True},
     Example(prompt="Hi", completion="Ho", label=True)),
    ("unpaired_preference", {"prompt": openai(HI), "completion": openai(HO), "label": "False"},
     Example(prompt=turns("Hi"), completion=said("Ho"), label=False)),
    ("alpaca_unpaired", {"instruction": "Hi", "output": "Ho", "kto_tag": False},
     Example(prompt=turns("Hi"), completion=said("Ho"), label=False)),
    ("alpaca_unpaired", {"instruction": "Hi", "output": "Ho", "kto_tag": "true", "history": [["a", "b"]]},
     Example(prompt=turns("a", "b", "Hi"), completion=said("Ho"), label=True)),
    ("sharegpt_unpaired", sharegpt(("human", "a"), ("gpt", "b"), ("human", "Hi"), ("gpt", "Ho"), kto_tag=True),
     Example(prompt=turns("a", "b", "Hi"), completion=said("Ho"), label=True)),
]  # fmt: skip

BAD: list[tuple[str, dict[str, Any], str, str]] = [
    ("preference", {"prompt": "Hi", "chosen": "Ho"}, "missing_column", "rejected is missing"),
    ("preference", {"prompt": "Hi", "chosen": None, "rejected": "No"}, "null", "chosen is null"),
    ("preference", {"prompt": "Hi", "chosen": "Ho", "rejected": " "}, "empty_answer", "rejected is empty"),
    ("preference", {"prompt": " ", "chosen": "Ho", "rejected": "No"}, "empty_prompt", "prompt is empty"),
    ("preference", {"prompt": "Hi", "chosen": "Ho", "rejected": "Ho"}, "chosen_equals_rejected", "are equal"),
    ("preference", {"chosen": openai(HI, HO), "rejected": openai(HI, HO)}, "chosen_equals_rejected", "are equal"),
    ("preference", {"prompt": "Hi", "chosen": "Ho", "rejected": openai(NO)}, "wrong_type", "the other messages"),
    ("preference", {"prompt": "Hi", "chosen": 4, "rejected": 5}, "wrong_type", "chosen should be text or messages"),
    ("preference", {"chosen": "Ho", "rejected": "No"}, "empty_prompt", "share no opening"),
    ("preference", {"chosen": "Hi there", "rejected": "Hi "}, "empty_answer", "rejected holds no more than the prompt"),
    ("preference", {"chosen": openai(HO), "rejected": openai(NO)}, "empty_prompt", "there is no prompt"),
    ("preference", {"chosen": openai(HI, HO), "rejected": openai(("user", "Hey"), NO)}, "empty_prompt",
     "chosen and rejected share no opening"),
    ("preference", {"chosen": openai(("system", "S"), HI, HO), "rejected": openai(("system", "S"), ("user", "x"), NO)},
     "empty_prompt", "share no opening"),
    ("preference", {"chosen": openai(HI, HO, HI), "rejected": openai(HI, HO, HI, NO)}, "empty_answer",
     "chosen holds no more than the prompt"),
    ("preference", {"chosen": openai(HI), "rejected": openai(HI, NO)}, "no_assistant", "no answer by the assistant"),
    ("preference", {"chosen": openai(HI, HI, HO), "rejected": openai(HI, NO)}, "role_order",
     "turn 2 should be the assistant's, but is the user's"),
    ("preference", {"prompt": "Other", "chosen": openai(HI, HO), "rejected": openai(HI, NO)}, "mixed_layout",
     "prompt is not what the conversations"),
    ("preference", {"prompt": openai(("user", "Other")), "chosen": openai(HI, HO), "rejected": openai(HI, NO)},
     "mixed_layout", "prompt is not what the conversations"),
    ("preference", {"prompt": openai(HI), "chosen": openai(HO, HO), "rejected": openai(NO)}, "role_order",
     "turn 3 should be the user's, but is the assistant's"),
    ("alpaca_preference", {"instruction": "Hi", "chosen": "Ho", "rejected": "Ho"}, "chosen_equals_rejected", "equal"),
    ("alpaca_preference", {"instruction": "Hi", "chosen": "Ho", "rejected": ["No"]}, "wrong_type",
     "rejected should be text, not a list"),
    ("alpaca_preference", {"instruction": "", "chosen": "Ho", "rejected": "No"}, "empty_prompt",
     "instruction is empty"),
    ("sharegpt_preference", sharegpt(("human", "Hi"), chosen={"from": "human", "value": "Ho"}, rejected="No"),
     "role_order", "chosen should open with the assistant's turn"),
    ("sharegpt_preference", sharegpt(("human", "Hi"), ("gpt", "So"), chosen="Ho", rejected="No"), "role_order",
     "the prompt ends with the assistant's message"),
    ("sharegpt_preference", sharegpt(("human", "Hi"), chosen={"from": "gpt", "value": None}, rejected="No"), "null",
     "message 1 should hold text"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("a", 3), ("b", 3))}, "chosen_equals_rejected",
     "all completions have the same score"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("Ho", 1), ("Ho", 2))},
     "chosen_equals_rejected", "equal"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("a", 3))}, "empty_answer", "at least two"),
    ("ultrafeedback", {"instruction": "Hi", "completions": []}, "empty_answer", "at least two"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("a", 3), ("b", "N/A"))}, "wrong_type",
     "completion 2 should have a number as its score, not text"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("a", 3), ("b", None))}, "wrong_type",
     "completion 2 should have a number as its score, not null"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("a", 3), ("b", float("nan")))}, "wrong_type",
     "completion 2 should have a number as its score"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("a", True), ("b", False))}, "wrong_type",
     "completion 1 should have a number as its score"),
    ("ultrafeedback", {"instruction": "Hi", "completions": ["a", "b"]}, "wrong_type",
     "completion 1 should be an object"),
    ("ultrafeedback", {"instruction": "Hi", "completions": "a"}, "wrong_type", "completions should be a list"),
    ("ultrafeedback", {"instruction": "Hi", "completions": completions(("", 2), ("b", 1))}, "empty_answer",
     "response is empty"),
    *(("unpaired_preference", {"prompt": "Hi", "completion": "Ho", "label": label}, "label_not_boolean",
       "label should be true or false") for label in (1, 0, 1.0, "yes", "1", "", [], {})),
    ("unpaired_preference", {"prompt": "Hi", "completion": "Ho", "label": None}, "null", "label is null"),
    ("unpaired_preference", {"prompt": "Hi", "completion": "Ho"}, "missing_column", "label is missing"),
    ("unpaired_preference", {"prompt": "Hi", "completion": "", "label": True}, "empty_answer", "completion is empty"),
    ("alpaca_unpaired", {"instruction": "Hi", "output": "Ho", "kto_tag": "good"}, "label_not_boolean",
     "kto_tag should be true or false, not 'good'"),
    ("alpaca_unpaired", {"instruction": "Hi", "output": "Ho"}, "missing_column", "kto_tag is missing"),
    ("sharegpt_unpaired", sharegpt(("human", "Hi"), ("gpt", "Ho"), ("human", "and?"), kto_tag=True), "role_order",
     "the conversation ends with the user's message"),
    ("sharegpt_unpaired", sharegpt(("human", "Hi"), ("gpt", "Ho"), kto_tag=3), "label_not_boolean",
     "kto_tag should be true or false, not 3"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected"), GOOD)
def test_a_good_row_becomes_an_example(name: str, row: dict[str, Any], expected: Example) -> None:
    example = to_example(row, Layout(FORMATS[name]))
    assert example == expected
    assert example.type == FORMATS[name].type


@pytest.mark.parametrize(("name", "row", "kind", "reason"), BAD)
def test_a_bad_row_is_told_with_its_kind_and_reason(name: str, row: Any, kind: str, reason: str) -> None:
    with pytest.raises(RowProblem) as raised:
        to_example(row, Layout(FORMATS[name]))
    assert (raised.value.kind, reason in str(raised.value)) == (kind, True), str(raised.value)


def test_every_layout_that_judges_has_a_good_and_a_bad_row_here() -> None:
    judging = {name for name, format in FORMATS.items() if "preference" in format.type}
    assert {name for name, _, _ in GOOD} == {name for name, _, _, _ in BAD} == judging


def test_tags_name_the_messages_that_are_compared() -> None:
    row = {
        "conversations": [{"role": "user", "content": "Hi"}],
        "chosen": {"role": "assistant", "content": "Ho"},
        "rejected": {"role": "assistant", "content": "No"},
    }
    tags = {"role_tag": "role", "content_tag": "content"}
    assert to_example(row, Layout(FORMATS["sharegpt_preference"], tags=tags)) == PAIR


def test_the_prompt_of_a_preference_ends_with_what_a_tool_said() -> None:
    call = {"name": "time", "arguments": {}}
    opening = (*turns("When?"), {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "noon"})
    example = to_example(
        {"chosen": [*opening, *said("At noon.")], "rejected": [*opening, *said("Never.")]},
        Layout(FORMATS["preference"]),
    )
    assert isinstance(example.prompt, tuple)
    assert [turn["role"] for turn in example.prompt] == ["user", "assistant", "tool"]
    assert (example.chosen, example.rejected) == (said("At noon."), said("Never."))
