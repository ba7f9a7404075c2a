"""Rows that judge answers: two to compare (preference), or one with a label (unpaired preference).

In: a row under its expected column names, and tags. Out: an Example whose prompt stands apart from its answers, or a
RowProblem. Knows not how a layout is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from typing import Any

from studio.core.cells import Row, boolean, need, opened, text, type_name
from studio.core.conversation import OPENAI, SHAREGPT, ordered
from studio.core.example import Example, Message, RowProblem, Words
from studio.core.supervised import (
    Tags,
    alpaca_prompt,
    answered,
    awaiting,
    conversation,
    prompt_completion,
    prompt_of,
    words,
)
from studio.core.toolcalls import read_tools

ANSWERS = ("chosen", "rejected")
SCORES = ("overall_score", "score")  # UltraFeedback's own name first


def preference(row: Row, tags: Tags) -> Example:
    names = OPENAI.changed(tags)
    prompt = prompt_of(row, names) if row.get("prompt") is not None else None
    chosen, rejected = (words(row, column, names, "empty_answer") for column in ANSWERS)
    if chosen == rejected:
        raise RowProblem("chosen_equals_rejected", "chosen and rejected are equal")
    if isinstance(chosen, str) and isinstance(rejected, str):
        return _pair(row, *(_split_text(chosen, rejected) if prompt is None else (prompt, chosen, rejected)))
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise RowProblem("wrong_type", "one of chosen and rejected is text, the other messages")
    if chosen[0]["role"] == rejected[0]["role"] == "assistant":
        if prompt is None:
            raise RowProblem("empty_prompt", "chosen and rejected hold answers only, and there is no prompt")
        return _pair(row, prompt, chosen, rejected)
    return _pair(row, *_split_whole(prompt, chosen, rejected))


def _pair(row: Row, prompt: Words, chosen: Words, rejected: Words) -> Example:
    if chosen == rejected:
        raise RowProblem("chosen_equals_rejected", "chosen and rejected are equal")
    asked, better = answered(prompt, chosen, "chosen")
    _, worse = answered(prompt, rejected, "rejected")
    return Example(prompt=asked, chosen=better, rejected=worse, tools=read_tools(row.get("tools")))


def _split_text(chosen: str, rejected: str) -> tuple[str, str, str]:
    """What both texts open with is the prompt, up to its last word's end (the answers keep the space, as TRL has it).

    Where exactly it is cut matters little: what both answers share cancels out of a preference loss.
    """
    letters = zip(chosen, rejected, strict=False)
    shared = chosen[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], letters))]
    end = next((place for place in range(len(shared) - 1, -1, -1) if shared[place].isspace()), 0)
    prompt, answers = shared[:end], (chosen[end:], rejected[end:])
    if not prompt.strip():
        raise RowProblem("empty_prompt", "chosen and rejected share no opening, and there is no prompt")
    for column, answer in zip(ANSWERS, answers, strict=True):
        if not answer.strip():
            raise RowProblem("empty_answer", f"{column} holds no more than the prompt")
    return (prompt, *answers)


def _split_whole(
    prompt: Words | None, chosen: tuple[Message, ...], rejected: tuple[Message, ...]
) -> tuple[Words, Words, Words]:
    """Two whole conversations: what both open with, up to the last question, is the prompt."""
    chosen, rejected = ordered(chosen), ordered(rejected)
    asked = 0
    for number, (one, other) in enumerate(zip(chosen, rejected, strict=False), start=1):
        if one != other:
            break
        asked = number if one["role"] in ("user", "tool") else asked
    shared = chosen[:asked]
    if not shared:
        raise RowProblem("empty_prompt", "chosen and rejected share no opening that could be the prompt")
    if isinstance(prompt, str) and not any(prompt.strip() == turn["content"].strip() for turn in shared):
        raise RowProblem("mixed_layout", "prompt is not what the conversations in chosen and rejected open with")
    if isinstance(prompt, tuple) and shared != prompt:
        raise RowProblem("mixed_layout", "prompt is not what the conversations in chosen and rejected open with")
    for column, whole in zip(ANSWERS, (chosen, rejected), strict=True):
        if len(whole) == asked:
            raise RowProblem("empty_answer", f"{column} holds no more than the prompt")
    return shared, chosen[asked:], rejected[asked:]


def alpaca_preference(row: Row, tags: Tags) -> Example:
    chosen, rejected = (text(row, column, "empty_answer") for column in ANSWERS)
    return _pair(row, awaiting(tuple(alpaca_prompt(row))), chosen, rejected)


def sharegpt_preference(row: Row, tags: Tags) -> Example:
    """Each answer is one message, or text."""
    names = SHAREGPT.changed(tags)
    prompt = awaiting(tuple(conversation(row, "conversations", names)))
    chosen, rejected = (words(row, column, names, "empty_answer") for column in ANSWERS)
    return _pair(row, prompt, chosen, rejected)


def ultrafeedback(row: Row, tags: Tags) -> Example:
    """The answer with the highest score against the one with the lowest; of equals, the first."""
    prompt: Message = {"role": "user", "content": text(row, "instruction", "empty_prompt")}
    completions = opened(need(row, "completions"))
    if not isinstance(completions, (list, tuple)):
        raise RowProblem("wrong_type", f"completions should be a list of answers, not {type_name(completions)}")
    if len(completions) < 2:
        raise RowProblem("empty_answer", "completions should hold at least two answers")
    scored = [(_score(answer, number), answer) for number, answer in enumerate(completions, start=1)]
    best, worst = max(scored, key=lambda pair: pair[0]), min(scored, key=lambda pair: pair[0])
    if best[0] == worst[0]:
        raise RowProblem("chosen_equals_rejected", "all completions have the same score")
    chosen, rejected = (text(pair[1], "response", "empty_answer") for pair in (best, worst))
    return _pair(row, (prompt,), chosen, rejected)


def _score(answer: Any, number: int) -> float:
    if not isinstance(answer, Mapping):
        raise RowProblem("wrong_type", f"completion {number} should be an object with a response and a score")
    value = next((answer[name] for name in SCORES if answer.get(name) is not None), None)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise RowProblem("wrong_type", f"completion {number} should have a number as its score, not {type_name(value)}")
    return value


def unpaired(row: Row, tags: Tags) -> Example:
    return replace(prompt_completion(row, tags), label=boolean(row, "label"))


def alpaca_unpaired(row: Row, tags: Tags) -> Example:
    answer = text(row, "output", "empty_answer")
    prompt, completion = answered(awaiting(tuple(alpaca_prompt(row))), answer, "output")
    tools = read_tools(row.get("tools"))
    return Example(prompt=prompt, completion=completion, label=boolean(row, "kto_tag"), tools=tools)


def sharegpt_unpaired(row: Row, tags: Tags) -> Example:
    """The conversation's last message is the answer that the label judges."""
    turns = ordered(conversation(row, "conversations", SHAREGPT.changed(tags)))
    if turns[-1]["role"] != "assistant":
        raise RowProblem("role_order", f"the conversation ends with the {turns[-1]['role']}'s message, not an answer")
    tools = read_tools(row.get("tools"))
    return Example(prompt=turns[:-1], completion=turns[-1:], label=boolean(row, "kto_tag"), tools=tools)
