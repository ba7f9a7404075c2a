"""Rows that show one answer, or none: text, instructions, conversations, prompts.

In: a row under its expected column names, and tags. Out: an Example, or a RowProblem. Knows not how a layout is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.cells import Row, need, opened, optional_text, text, type_name, whole
from studio.core.conversation import OPENAI, SHAREGPT, Names, ordered, read_turns, says_messages
from studio.core.example import Example, Message, RowProblem, Words
from studio.core.toolcalls import read_tools

Tags = Mapping[str, str]


def plain_text(row: Row, tags: Tags) -> Example:
    return Example(text=text(row, "text", "empty_answer"))


def messages(row: Row, tags: Tags) -> Example:
    return _whole(row, "messages", OPENAI.changed(tags))


def sharegpt(row: Row, tags: Tags) -> Example:
    return _whole(row, "conversations", SHAREGPT.changed(tags))


def _whole(row: Row, column: str, names: Names) -> Example:
    return Example(messages=ordered(conversation(row, column, names)), tools=read_tools(row.get("tools")))


def conversation(row: Row, column: str, names: Names) -> list[Message]:
    """The column's messages, opened by the `system` column's where they have no system message of their own."""
    read = read_turns(need(row, column), column, names)
    system = optional_text(row, "system")
    if system and read[0]["role"] != "system":
        read.insert(0, {"role": "system", "content": system})
    return read


def alpaca(row: Row, tags: Tags) -> Example:
    answer: Message = {"role": "assistant", "content": text(row, "output", "empty_answer")}
    return Example(messages=ordered([*alpaca_prompt(row), answer]), tools=read_tools(row.get("tools")))


def alpaca_prompt(row: Row) -> list[Message]:
    """The system message, the history's turns, and the question: instruction and input, a line apart."""
    system, more = optional_text(row, "system"), optional_text(row, "input")
    instruction = text(row, "instruction", "" if more else "empty_prompt")
    read: list[Message] = [{"role": "system", "content": system}] if system else []
    history = row.get("history")
    pairs = opened(history) if history else []
    if not isinstance(pairs, (list, tuple)):
        raise RowProblem("wrong_type", "history should be a list of [question, answer] pairs")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RowProblem("wrong_type", "history should be a list of [question, answer] pairs")
        for role, content in zip(("user", "assistant"), pair, strict=True):
            read.append(_turn(role, content, len(read) + 1))
    question = "\n".join(part for part in (instruction, more) if part.strip())
    return [*read, {"role": "user", "content": question}]


def _turn(role: str, content: Any, number: int) -> Message:
    if not isinstance(content, str):
        kind = "null" if content is None else "wrong_type"
        raise RowProblem(kind, f"message {number} should hold text, not {type_name(content)}")
    if not content.strip():
        raise RowProblem("empty_answer" if role == "assistant" else "empty_prompt", f"message {number} is empty")
    return {"role": role, "content": whole(content, f"message {number}")}


def words(row: Row, column: str, names: Names, empty: str) -> Words:
    """A column that is text, or messages (also as JSON text, in csv)."""
    value = need(row, column)
    if isinstance(value, str) and not says_messages(value, names):
        return text(row, column, empty)
    if not isinstance(value, (str, list, tuple, Mapping)):
        raise RowProblem("wrong_type", f"{column} should be text or messages, not {type_name(value)}")
    return tuple(read_turns(value, column, names, empty))


def prompt_of(row: Row, names: Names) -> Words:
    """The `prompt` column: text, or messages that the assistant is to answer."""
    prompt = words(row, "prompt", names, "empty_prompt")
    return prompt if isinstance(prompt, str) else awaiting(prompt)


def awaiting(prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages, if an answer by the assistant can follow them."""
    prompt = ordered(prompt, answered=False)
    if prompt[-1]["role"] not in ("user", "tool"):
        raise RowProblem("role_order", f"the prompt ends with the {prompt[-1]['role']}'s message")
    return prompt


def answered(prompt: Words, answer: Words, column: str) -> tuple[Words, Words]:
    """Prompt and answer, both text or both messages: text beside messages is the user's, or the assistant's."""
    if isinstance(prompt, str) and isinstance(answer, str):
        return prompt, answer
    asked = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    said = ({"role": "assistant", "content": answer},) if isinstance(answer, str) else answer
    if said[0]["role"] != "assistant":
        raise RowProblem("role_order", f"{column} should open with the assistant's turn, not the {said[0]['role']}'s")
    ordered([*asked, *said])
    return asked, said


def prompt_completion(row: Row, tags: Tags) -> Example:
    names = OPENAI.changed(tags)
    words_of_answer = words(row, "completion", names, "empty_answer")
    prompt, completion = answered(prompt_of(row, names), words_of_answer, "completion")
    return Example(prompt=prompt, completion=completion, tools=read_tools(row.get("tools")))


def prompt_only(row: Row, tags: Tags) -> Example:
    return Example(prompt=prompt_of(row, OPENAI.changed(tags)), tools=read_tools(row.get("tools")))
