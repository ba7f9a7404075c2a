"""Marks in a conversation's text that survive its chat template, to tell afterwards what came from where.

In: messages. Out: the same with characters of Unicode's private planes around (or within) their texts, which a
template passes on as it does any other; and where they stand once they are taken out again. Knows no template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from studio.core.example import Message

_PLANES = (0xF0000, 0x100000)
_SIZE = 0xFFFE  # the last two of a plane are no characters
_TEXTS = ("content", "reasoning_content", "thinking")
_THOUGHT = "</think>"


@dataclass(frozen=True)
class Mark:
    """Stands before the character at `place` of the text without marks; `message` is whose, -1 a point's."""

    place: int
    message: int
    opens: bool


def free_plane(text: str) -> int | None:
    """A plane of which the text has no character; None if it has of each."""
    return next((plane for plane in _PLANES if not _marks(plane).search(text)), None)


def _marks(plane: int) -> re.Pattern[str]:
    return re.compile(f"[{chr(plane)}-{chr(plane + _SIZE - 1)}]")


def around(messages: Sequence[Message], plane: int) -> list[Message]:
    """Each message with its own marks around its words: contents, thoughts, and what tool calls say.

    White space at the ends stays outside, for templates strip it; so does what has been thought, for they leave it out.
    """
    if 2 * len(messages) >= _SIZE:
        return list(messages)
    return [_around(message, chr(plane + 2 * i), chr(plane + 2 * i + 1)) for i, message in enumerate(messages)]


def _around(message: Message, opening: str, closing: str) -> Message:
    def wrapped(text: str) -> str:
        core = text.strip()
        if not core:
            return text
        start = text.index(core)
        thought = core.rfind(_THOUGHT) + len(_THOUGHT) if _THOUGHT in core else 0
        rest = core[thought:].lstrip()
        said = opening + core[: len(core) - len(rest)] + opening + rest if thought and rest else opening + core
        return text[:start] + said + closing + text[start + len(core) :]

    changed = {key: wrapped(message[key]) for key in _TEXTS if isinstance(message.get(key), str)}
    calls = message.get("tool_calls")
    return {**message, **changed, **({"tool_calls": _in_strings(calls, wrapped)} if calls else {})}


def at_specials(value: Any, special: re.Pattern[str], plane: int) -> Any:
    """Messages or tools with a mark behind the first character of each special token that their strings spell."""
    mark = chr(plane)
    return _in_strings(
        value, lambda text: special.sub(lambda found: found[0][0] + mark + found[0][1:], text), keys=True
    )


def _in_strings(value: Any, change: Callable[[str], str], keys: bool = False) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {
            change(key) if keys and isinstance(key, str) else key: (
                part if key in ("role", "type", "id") and not keys else _in_strings(part, change, keys)
            )
            for key, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_in_strings(part, change, keys) for part in value]
    return value


def strings(value: Any) -> list[str]:
    """Every string in messages or tools, names of fields too."""
    found: list[str] = []
    _in_strings(value, lambda text: found.append(text) or text, keys=True)  # type: ignore[func-returns-value]
    return found


def taken_out(text: str, plane: int) -> tuple[str, list[Mark]]:
    """The text without its marks, and where they stood, in order."""
    pieces, found, last, length = [], [], 0, 0
    for match in _marks(plane).finditer(text):
        pieces.append(text[last : match.start()])
        length += match.start() - last
        last = match.end()
        number = ord(match[0]) - plane
        found.append(Mark(length, number // 2, number % 2 == 0))
    pieces.append(text[last:])
    return "".join(pieces), found
