"""Conversations: lists of messages as datasets spell them, read into Messages in a good order.

In: a list of turns and how it names roles and contents (`Names`, changed by tags as LLaMA-Factory calls them). Out:
Messages, or a RowProblem that counts messages (all) or turns (without the system message) from 1. Knows no columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.core.cells import opened, shown, type_name, whole
from studio.core.example import Message, RowProblem
from studio.core.toolcalls import read_calls

ROLE_TAGS = {
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
    "observation_tag": "tool",
    "function_tag": "call",
}
TAGS = ("role_tag", "content_tag", *ROLE_TAGS)
KEPT = ("name", "tool_call_id", "reasoning_content", "thinking")  # what else of a message chat templates read


@dataclass(frozen=True)
class Names:
    """The keys of a message, and which spelling is which role; "call" is an assistant that calls a tool."""

    role: str
    content: str
    roles: Mapping[str, str]

    def changed(self, tags: Mapping[str, str]) -> Names:
        """With the tags' names instead; a role that a tag names is known by that name only."""
        named = {tags[tag]: role for tag, role in ROLE_TAGS.items() if tag in tags}
        others = {spelled: role for spelled, role in self.roles.items() if role not in named.values()}
        return Names(tags.get("role_tag", self.role), tags.get("content_tag", self.content), others | named)


OPENAI = Names(
    "role",
    "content",
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"},
)
SHAREGPT = Names(
    "from",
    "value",
    {role: role for role in ("system", "user", "assistant", "tool")}
    | {"human": "user"}
    | dict.fromkeys(("gpt", "chatgpt", "bing", "bard"), "assistant")
    | {"observation": "tool", "function_call": "call"},
)
_OTHER_KEYS = (OPENAI.role, SHAREGPT.role)


def says_messages(value: str, names: Names) -> bool:
    """Whether text is the JSON of messages, as in csv. An answer may well be JSON, so only known roles will do."""
    turns = opened(value) if value.lstrip()[:1] == "[" else None
    return (
        isinstance(turns, list)
        and bool(turns)
        and all(isinstance(turn, Mapping) and {names.role, names.content} <= set(turn) for turn in turns)
        and all(isinstance(turn[names.role], str) and turn[names.role] in names.roles for turn in turns)
    )


def read_turns(turns: Any, column: str, names: Names, empty: str = "empty_prompt") -> list[Message]:
    """The messages of a list (or the JSON text of one), each good in itself; their order is not looked at."""
    turns = opened(turns)
    if isinstance(turns, Mapping):
        turns = [turns]
    if not isinstance(turns, (list, tuple)):
        raise RowProblem("wrong_type", f"{column} should be a list of messages, not {type_name(turns)}")
    if not turns:
        raise RowProblem(empty, f"{column} holds no message")
    return [_message(turn, number, names) for number, turn in enumerate(turns, start=1)]


def _message(turn: Any, number: int, names: Names) -> Message:
    if not isinstance(turn, Mapping):
        keys = f"{names.role!r} and {names.content!r}"
        raise RowProblem("wrong_type", f"message {number} should be an object with {keys}, not {type_name(turn)}")
    if names.role not in turn and (other := next((key for key in _OTHER_KEYS if key in turn), None)):
        raise RowProblem("mixed_layout", f"message {number} names its role by {other!r} instead of {names.role!r}")
    spelled = turn.get(names.role)
    role = names.roles.get(spelled) if isinstance(spelled, str) else None
    if role is None:
        raise RowProblem("unknown_role", f"message {number} has the unknown role {shown(spelled)}")
    if role == "assistant" and turn.get("weight") == 0 and turn["weight"] is not False:
        raise RowProblem("wrong_type", f"message {number} has the weight 0, but every answer of a row is learned")
    message: Message = {"role": "assistant" if role == "call" else role, "content": ""}
    calls = turn.get(names.content) if role == "call" else turn.get("tool_calls")
    if calls or role == "call":
        if message["role"] != "assistant":
            raise RowProblem("bad_tool_call", f"message {number} calls a tool, but is the {role}'s")
        message["tool_calls"] = read_calls(calls, number)
    if role != "call":
        message["content"] = _content(turn.get(names.content), number, role, bool(calls))
    extra = {key: turn[key] for key in KEPT if isinstance(turn.get(key), str) and turn[key].strip()}
    return message | {key: whole(value, f"message {number}") for key, value in extra.items()}


def _content(value: Any, number: int, role: str, calls: bool) -> str:
    if isinstance(value, (list, tuple)):
        value = _joined(value, number)
    if value is None and calls:
        return ""
    if value is None:
        raise RowProblem("null", f"message {number} should hold text, not null")
    if not isinstance(value, str):
        raise RowProblem("wrong_type", f"message {number} should hold text, not {type_name(value)}")
    if not value.strip() and not calls and role != "tool":  # a tool may well have nothing to say
        raise RowProblem("empty_answer" if role == "assistant" else "empty_prompt", f"message {number} is empty")
    return whole(value, f"message {number}")


def _joined(parts: Sequence[Any], number: int) -> str:
    """OpenAI's list of parts, as one text; anything but text can't be taught."""
    texts = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else type_name(part)
        if not isinstance(part, Mapping) or kind != "text" or not isinstance(part.get("text"), str):
            raise RowProblem("wrong_type", f"message {number} should hold text, not a part of type {shown(kind)}")
        texts.append(part["text"])
    return "".join(texts)


def ordered(messages: Sequence[Message], *, answered: bool = True) -> tuple[Message, ...]:
    """The messages, if their roles take turns and, with `answered`, the assistant speaks.

    A tool answers a call of the assistant's; some datasets write calls as plain text, so it may follow any answer.
    """
    spoken = [message["role"] for message in messages]
    if "system" in spoken[1:]:
        raise RowProblem("role_order", "a system message stands after the first")
    turns = messages[1:] if spoken[:1] == ["system"] else messages
    if answered and not any(turn["role"] == "assistant" for turn in turns):
        raise RowProblem("no_assistant", "there is no answer by the assistant")
    expected: tuple[str, ...] = ("user",)
    for number, turn in enumerate(turns, start=1):
        if turn["role"] not in expected:
            raise RowProblem("role_order", f"turn {number} should be the {expected[0]}'s, but is the {turn['role']}'s")
        expected = _next(turn)
    return tuple(messages)


def _next(turn: Message) -> tuple[str, ...]:
    if turn["role"] == "user":
        return ("assistant",)
    if turn["role"] == "tool":
        return ("assistant", "tool")
    return ("tool",) if turn.get("tool_calls") else ("user", "tool")
