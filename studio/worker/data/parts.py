"""What a row says, by part: its prompt, its answer, the answer that was rejected.

In: an Example. Out: plain text. Statistics, the topic map and a recipe's filters all see a row through this. Knows no
tokens and no template: what stands between the parts in training is the encoder's.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from studio.core.example import Example, Message, Words


class Parts(NamedTuple):
    """`rejected` is the worse answer of a preference pair. A plain text is all answer: it is what is learnt."""

    prompt: str
    answer: str
    rejected: str = ""

    @property
    def whole(self) -> str:
        return "\n".join(part for part in self if part)


def parts_of(example: Example) -> Parts:
    """A conversation's answer is all that the assistant says in it, tool calls as JSON; the prompt is the rest."""
    if example.text is not None:
        return Parts("", example.text)
    if example.messages:
        asked: list[str] = []
        answered: list[str] = []
        for message in example.messages:
            (answered if message["role"] == "assistant" else asked).append(said(message))
        return Parts("\n".join(asked), "\n".join(answered))
    if example.chosen is not None:
        return Parts(_words(example.prompt), _words(example.chosen), _words(example.rejected))
    return Parts(_words(example.prompt), _words(example.completion))


def messages_of(example: Example) -> tuple[Message, ...]:
    """Every message of the row once, a preference's rejected answer aside; none where the row is plain text."""
    if example.messages:
        return example.messages
    parts = (example.prompt, example.chosen if example.chosen is not None else example.completion)
    return tuple(message for part in parts if isinstance(part, tuple) for message in part)


def answers_of(example: Example) -> list[str]:
    """Each answer by itself, the rejected one aside."""
    if example.text is not None:
        return [example.text]
    messages = messages_of(example)
    if messages:
        return [said(message) for message in messages if message["role"] == "assistant"]
    answer = example.chosen if example.chosen is not None else example.completion
    return [answer] if isinstance(answer, str) else []


def said(message: Message) -> str:
    """A message's words; the calls of one that only calls tools."""
    content = message.get("content")
    words = content if isinstance(content, str) else ""
    calls = message.get("tool_calls")
    return "\n".join(part for part in (words, *map(_call, calls or ())) if part)


def _call(call: Any) -> str:
    return json.dumps(call.get("function", call) if isinstance(call, dict) else call, ensure_ascii=False, default=str)


def _words(words: Words | None) -> str:
    if words is None or isinstance(words, str):
        return words or ""
    return "\n".join(map(said, words))
