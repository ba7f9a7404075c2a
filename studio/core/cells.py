"""One value of a row: there, of the right type and not empty; or a RowProblem that says which of these it isn't.

In: a row and a column's name. Out: text, JSON, a boolean. csv knows only text, so JSON and booleans written as text
are read as what they say. Knows no layouts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from studio.core.example import RowProblem

Row = Mapping[str, Any]


def need(row: Row, column: str) -> Any:
    """The column's value. Raises RowProblem where it is missing or null."""
    if column not in row:
        raise RowProblem("missing_column", f"{column} is missing")
    if row[column] is None:
        raise RowProblem("null", f"{column} is null")
    return row[column]


def text(row: Row, column: str, empty: str = "") -> str:
    """The column's text; `empty` is the kind of problem it is to hold none, "" where it may."""
    value = need(row, column)
    if not isinstance(value, str):
        raise RowProblem("wrong_type", f"{column} should be text, not {type_name(value)}")
    if empty and not value.strip():
        raise RowProblem(empty, f"{column} is empty")
    return whole(value, column)


def optional_text(row: Row, column: str) -> str:
    """The column's text; "" where the column is missing, null or blank."""
    value = row.get(column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowProblem("wrong_type", f"{column} should be text, not {type_name(value)}")
    return whole(value, column) if value.strip() else ""


def whole(value: str, what: str) -> str:
    """The text, if it is UTF-8 throughout: JSON's escapes can spell half a character, which no tokenizer takes."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowProblem("encoding", f"{what} holds half a character at {error.start}") from None
    return value


def boolean(row: Row, column: str) -> bool:
    """true or false, or their names as text (csv has no booleans). 0 and 1 may be grades or classes: not guessed."""
    value = need(row, column)
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word not in ("true", "false"):
        raise RowProblem("label_not_boolean", f"{column} should be true or false, not {shown(value)}")
    return word == "true"


def opened(value: Any) -> Any:
    """What JSON text says, where `value` is text that opens a list or an object and is JSON; else `value`."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def type_name(value: Any) -> str:
    """What JSON calls a value's type."""
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", tuple: "a list"}
    return names.get(type(value), type(value).__name__)


def shown(value: Any) -> str:
    """A value in a sentence: short text as it is, lists and objects by their type."""
    if isinstance(value, (str, int, float)):
        return repr(value[:40] if isinstance(value, str) else value)[:60]
    return type_name(value)
