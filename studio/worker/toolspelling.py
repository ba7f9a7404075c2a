"""Tool calls whose arguments are JSON text instead of objects, as OpenAI sends them and some templates expect them.

In: messages. Out: the same with text, or None where there are no arguments to spell out. Knows no templates.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from studio.core.example import Message


def as_text(messages: Sequence[Message]) -> list[Message] | None:
    """The messages with every call's arguments as JSON text; None if no call has an object."""
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    if not any(isinstance(call.get("function", {}).get("arguments"), dict) for call in calls):
        return None
    return [
        {**message, "tool_calls": [_spelled(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _spelled(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", {})
    if not isinstance(function.get("arguments"), dict):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}
