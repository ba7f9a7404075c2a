"""Tool calls, and the tools there are: objects or JSON text of several spellings, in the one that chat templates read.

In: a `tool_calls` list, a `function_call` message's text, a `tools` column. Out: `{"type": "function", "function":
{...}}` objects, arguments as an object, or a RowProblem of the kind bad_tool_call. Knows no conversations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studio.core.example import RowProblem


def read_calls(value: Any, number: int) -> list[dict[str, Any]]:
    """The calls of message `number`: one or a list, OpenAI's or bare `{"name", "arguments"}`, as objects or JSON."""
    where = f"message {number} calls a tool, but"
    calls = _loaded(value, f"{where} not in JSON")
    calls = calls if isinstance(calls, (list, tuple)) else [calls]
    if not calls:
        raise RowProblem("bad_tool_call", f"{where} names none")
    return [_sound(_call(call, where), where) for call in calls]


def _call(call: Any, where: str) -> dict[str, Any]:
    call = _loaded(call, f"{where} not in JSON")
    inner = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise RowProblem("bad_tool_call", f"{where} names none")
    arguments = inner.get("arguments")
    arguments = {} if arguments is None or arguments == "" else _loaded(arguments, f"{where} its arguments are no JSON")
    if not isinstance(arguments, Mapping):
        raise RowProblem("bad_tool_call", f"{where} its arguments are no object")
    function = {"name": inner["name"], "arguments": dict(arguments)}
    known = {"id": call["id"]} if isinstance(call.get("id"), str) and call["id"] else {}
    return {**known, "type": "function", "function": function}


def read_tools(value: Any) -> tuple[dict[str, Any], ...]:
    """The functions a row offers; () where its `tools` are missing or empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    tools = _loaded(value, "tools should be JSON")
    if not isinstance(tools, (list, tuple)):
        raise RowProblem("bad_tool_call", "tools should be a list of functions")
    return tuple(_tool(tool, f"tool {number}") for number, tool in enumerate(tools, 1))


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = _loaded(tool, f"{where} should be JSON")
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise RowProblem("bad_tool_call", f"{where} should be a function with a name")
    return _sound({"type": "function", "function": dict(inner)}, where)


def _sound(value: dict[str, Any], where: str) -> dict[str, Any]:
    """The value, if JSON can hold it: parquet has dates and bytes, JSON's escapes half characters."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise RowProblem("bad_tool_call", f"{where} holds what JSON can't") from None
    return value


def _loaded(value: Any, otherwise: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RowProblem("bad_tool_call", otherwise) from None
