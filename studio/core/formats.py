"""Dataset layouts: how each is recognised from its columns, and how a row of it becomes an Example.

In: rows as dicts. Out: an Example (a conversation, a prompt with its completion, or a text), or a RowProblem that
says what is wrong with the row. `FORMATS` is the whole of it: a new layout is one entry and a sample file. Knows no
files, no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from studio.core.errors import DataError

Row = Mapping[str, Any]
Message = dict[str, str]

ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
}


class RowProblem(Exception):
    """A row can't be used; the message says why, without the row's number."""


@dataclass(frozen=True)
class Example:
    """One row, in TRL's terms: `messages` (conversational), `prompt` with `completion` (plain), or `text`.

    Exactly one of the three is there.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Format:
    """A layout: the columns it needs, those it also reads, TRL's dataset type, and the mapping of a row."""

    name: str
    title: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    type: Literal["conversational", "prompt_completion", "language_modeling"]
    example: Callable[[Row], Example]


def _string(row: Row, column: str, *, empty: bool = False) -> str:
    value = row.get(column)
    if value is None:
        raise RowProblem(f"{column} is missing")
    if not isinstance(value, str):
        raise RowProblem(f"{column} should be text, not {type(value).__name__}")
    if not value.strip() and not empty:
        raise RowProblem(f"{column} is empty")
    return value


def _message(role: Any, content: Any, number: int, roles: Mapping[str, str]) -> Message:
    if not isinstance(role, str) or role not in roles:
        raise RowProblem(f"message {number} has the unknown role {str(role)[:40]!r}")
    if not isinstance(content, str):
        raise RowProblem(f"message {number} should hold text, not {type(content).__name__}")
    if not content.strip():
        raise RowProblem(f"message {number} is empty")
    return {"role": roles[role], "content": content}


def _conversation(turns: Any, column: str, keys: tuple[str, str], roles: Mapping[str, str]) -> list[Message]:
    if not isinstance(turns, list) or not turns:
        raise RowProblem(f"{column} should be a list of messages")
    messages = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping):
            raise RowProblem(f"message {number} should be an object with {keys[0]!r} and {keys[1]!r}")
        messages.append(_message(turn.get(keys[0]), turn.get(keys[1]), number, roles))
    return messages


def _checked(messages: list[Message]) -> Example:
    spoken = [m["role"] for m in messages]
    if "system" in spoken[1:]:
        raise RowProblem("a system message stands after the first")
    turns = spoken[1:] if spoken[0] == "system" else spoken
    if "assistant" not in turns:
        raise RowProblem("there is no answer by the assistant")
    for number, (role, expected) in enumerate(zip(turns, ("user", "assistant") * len(turns), strict=False), start=1):
        if role != expected:
            raise RowProblem(f"turn {number} should be the {expected}'s, but is the {role}'s")
    return Example(messages=tuple(messages))


def _messages(row: Row) -> Example:
    return _checked(_conversation(row.get("messages"), "messages", ("role", "content"), {r: r for r in ROLES}))


def _sharegpt(row: Row) -> Example:
    messages = _conversation(row.get("conversations"), "conversations", ("from", "value"), SHAREGPT_ROLES)
    system = row.get("system")
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return _checked(messages)


def _alpaca(row: Row) -> Example:
    question = _string(row, "instruction")
    more = row.get("input")
    if isinstance(more, str) and more.strip():
        question = f"{question}\n{more}"
    messages: list[Message] = []
    if isinstance(row.get("system"), str) and str(row["system"]).strip():
        messages.append({"role": "system", "content": str(row["system"])})
    history = row.get("history") or []
    pairs = history if isinstance(history, (list, tuple)) else [None]
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise RowProblem("history should be a list of [question, answer] pairs")
        messages.append(_message("user", pair[0], len(messages) + 1, {"user": "user"}))
        messages.append(_message("assistant", pair[1], len(messages) + 1, {"assistant": "assistant"}))
    messages.append({"role": "user", "content": question})
    messages.append({"role": "assistant", "content": _string(row, "output")})
    return _checked(messages)


def _prompt_completion(row: Row) -> Example:
    prompt, completion = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        roles = {r: r for r in ROLES}
        parts = [
            _conversation(turns, column, ("role", "content"), roles)
            for column, turns in (("prompt", prompt), ("completion", completion))
        ]
        return _checked(parts[0] + parts[1])
    return Example(prompt=_string(row, "prompt", empty=True), completion=_string(row, "completion"))


def _text(row: Row) -> Example:
    return Example(text=_string(row, "text"))


FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        Format("messages", "Chat messages (OpenAI)", ("messages",), (), "conversational", _messages),
        Format("sharegpt", "ShareGPT conversations", ("conversations",), ("system",), "conversational", _sharegpt),
        Format(
            "alpaca",
            "Instruction and answer (Alpaca)",
            ("instruction", "output"),
            ("input", "system", "history"),
            "conversational",
            _alpaca,
        ),
        Format(
            "prompt_completion",
            "Prompt and completion",
            ("prompt", "completion"),
            (),
            "prompt_completion",
            _prompt_completion,
        ),
        Format("text", "Plain text", ("text",), (), "language_modeling", _text),
    )
}


def recognise(columns: list[str], mapping: Mapping[str, str] | None = None) -> Format:
    """The one layout whose columns are all there, after `mapping` (expected -> yours).

    Raises DataError when none fits (listing what is accepted) or several do (asking which).
    """
    present = (set(columns) - set((mapping or {}).values())) | set(mapping or {})
    fitting = [f for f in FORMATS.values() if set(f.needs) <= present]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(f.name for f in fitting)
        raise DataError(f"These columns could be read as {names}.", "Say which by setting dataset.format.")
    accepted = "; ".join(f"{f.name}: {' + '.join(f.needs)}" for f in FORMATS.values())
    raise DataError(
        f"No known layout has the columns {', '.join(map(str, columns))[:300] or '(none)'}.",
        f"Accepted are {accepted}. Where only names differ, map them with dataset.columns.",
    )


def to_example(
    row: Any, format: Format, mapping: Mapping[str, str] | None = None, system: str | None = None
) -> Example:
    """A row as an Example; `system` is put before conversations that open without a system message.

    Raises RowProblem.
    """
    if not isinstance(row, Mapping):
        raise RowProblem("the row should be an object with named columns")
    if mapping:
        row = {**row, **{expected: row.get(yours) for expected, yours in mapping.items()}}
    example = format.example(row)
    if system and example.messages and example.messages[0]["role"] != "system":
        return Example(messages=({"role": "system", "content": system}, *example.messages))
    return example
