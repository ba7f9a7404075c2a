"""Rows of a dataset as HTML: in a list, as a conversation, and raw.

In: lines as the data worker answers them (contract of `page`), the dataset's entry. Out: HTML. Rows are other people's:
all of it goes through `shown`, and what is endless is cut with a word about it. How a row is trained on is
`tokenview`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from studio.core.errors import DataError
from studio.core.example import Example, RowProblem
from studio.core.formats import FORMATS, Layout, recognise, to_example
from studio.ui import shown
from studio.ui.text_data import say
from studio.workspace.registration import DatasetEntry

_MOST_TEXT = 20_000  # characters of one message that are shown
_MOST_RAW = 60_000
_MOST_MESSAGES = 200  # of one row
_MOST_NAMES = 8  # of tools, before they are only counted
_KNOWN_ROLES = frozenset(
    {"system", "user", "assistant", "tool", "developer", "function", "prompt", "completion", "text"}
)

SIDES = {"chosen": "rows.chosen", "rejected": "rows.rejected"}  # of a preference pair, and what they are called

Line = Mapping[str, Any]


def example_of(line: Line, entry: DatasetEntry) -> Example:
    """The row as it would be used. Raises RowProblem where it can't be, DataError where its layout isn't known."""
    if line.get("problem"):
        raise RowProblem(str(line.get("kind") or "unreadable"), str(line["problem"]))
    row = line.get("row")
    mixed = entry.kind == "mix"  # each part has a layout of its own
    if entry.format in FORMATS and not mixed:
        chosen = FORMATS[entry.format]
    elif isinstance(row, Mapping):
        chosen = recognise(list(row), None if mixed else entry.columns)
    else:
        raise RowProblem("not_an_object", "the row should be an object with named columns")
    layout = Layout(chosen) if mixed else Layout(chosen, entry.columns, entry.tags)
    return to_example(row, layout)


def row_list(lines: Sequence[Line], chosen: int, entry: DatasetEntry) -> str:
    """The rows of a page, one line each; `chosen` is a position, counted from the dataset's first row."""
    items = []
    for line in lines:
        position = int(line["position"])
        told, bad = _gist(line, entry)
        out = " left-out" if position in entry.exclude_rows else ""
        items.append(
            f'<button type="button" class="pick row{bad}{out}" data-pick="{position}" role="option" '
            f'aria-selected="{str(position == chosen).lower()}" tabindex="{0 if position == chosen else -1}">'
            f'<span class="num">{shown.count(position + 1)}</span><span class="gist">{told}</span></button>'
        )
    return "".join(items)


def _gist(line: Line, entry: DatasetEntry) -> tuple[str, str]:
    """A row in one line, and whether it can't be used; one that was cut for the page may only look so."""
    try:
        return shown.line(_beginning(example_of(line, entry))), ""
    except RowProblem as problem:
        if not line.get("cut") or line.get("problem"):
            return shown.line(str(problem)), " unusable"
    except DataError:
        pass  # the question of its layout is put above the list
    return shown.line(json.dumps(line.get("row"), ensure_ascii=False, default=str)), ""


def _beginning(example: Example) -> str:
    for part in (example.messages, example.prompt, example.chosen, example.completion, example.text):
        if isinstance(part, str) and part.strip():
            return part
        if part and not isinstance(part, str):
            asked = [message for message in part if message.get("role") == "user"]
            return str((asked or list(part))[0].get("content") or "")
    return ""


def conversation(line: Line, entry: DatasetEntry) -> str:
    """The row as bubbles, or why it can't be used."""
    try:
        example = example_of(line, entry)
    except RowProblem as problem:
        return unusable(str(problem))
    except DataError:
        return f'<p class="st-hint">{escape(say("rows.no_layout"))}</p>{raw(line)}'
    return _tools(example.tools) + _said(example) + _pair(example) + _label(example) + _cut(line)


def _said(example: Example) -> str:
    parts: list[tuple[str, Any]] = [("text", example.text), ("", example.messages), ("prompt", example.prompt)]
    if example.chosen is None:
        parts.append(("completion", example.completion))
    told = [bubble for role, part in parts for bubble in _bubbles(role, part)]
    return f'<div class="bubbles">{"".join(told)}</div>' if told else ""


def _bubbles(role: str, part: Any) -> list[str]:
    """A text said by `role`, or messages that name their own."""
    if part is None:
        return []
    if isinstance(part, str):
        return [_bubble(role, part)]
    return [_message(message) for message in part[:_MOST_MESSAGES]]


def _pair(example: Example) -> str:
    """The chosen answer beside the rejected one."""
    if example.chosen is None or example.rejected is None:
        return ""
    sides = "".join(
        f'<section class="{side}"><h3>{escape(say(SIDES[side]))}</h3>'
        f'<div class="bubbles">{"".join(_bubbles("completion", answer))}</div></section>'
        for side, answer in (("chosen", example.chosen), ("rejected", example.rejected))
    )
    return f'<div class="pair">{sides}</div>'


def _label(example: Example) -> str:
    if example.label is None:
        return ""
    kind = "good" if example.label else "bad"
    return f'<p class="row-label {kind}">{escape(say(f"rows.label.{kind}"))}</p>'


def _tools(tools: Sequence[Mapping[str, Any]]) -> str:
    if not tools:
        return ""
    names = [str(_function(tool).get("name") or "?") for tool in tools]
    told = ", ".join(names[:_MOST_NAMES]) + ("…" if len(names) > _MOST_NAMES else "")
    written = json.dumps(list(tools), ensure_ascii=False, indent=2, default=str)
    summary = f"<span>{say('rows.tools', names=shown.line(told))}</span>"
    return f'<details class="st-fold tools"><summary>{summary}</summary>{_code(written)}</details>'


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = call.get("function")
    return inner if isinstance(inner, Mapping) else call


def _message(message: Mapping[str, Any]) -> str:
    role = str(message.get("role") or "")
    content = message.get("content")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if content else ""
    more = ""
    if thinks := message.get("reasoning_content"):
        words = escape(say("rows.thinks"))
        more += f'<details class="st-fold"><summary>{words}</summary>{_paragraph(str(thinks))}</details>'
    for call in message.get("tool_calls") or ():
        more += _call(call)
    return _bubble(role, text, more, str(message.get("name") or ""))


def _call(call: Any) -> str:
    function = _function(call) if isinstance(call, Mapping) else {}
    given = function.get("arguments")
    written = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False, indent=2, default=str)
    name = say("rows.call", name=shown.line(str(function.get("name") or "?"), 80))
    return f'<div class="call"><h5>{name}</h5>{_code(written)}</div>'


def _bubble(role: str, text: str, more: str = "", name: str = "") -> str:
    known = role in _KNOWN_ROLES
    title = escape(say(f"rows.role.{role}")) if known else shown.line(role, 40)
    called = f" {shown.line(name, 60)}" if name else ""
    body = _paragraph(text) if text or not more else ""
    return f'<div class="bubble" data-role="{role if known else "other"}"><h4>{title}{called}</h4>{body}{more}</div>'


def _paragraph(text: str) -> str:
    return f"<p>{shown.text(text, _MOST_TEXT)}</p>"


def _code(text: str) -> str:
    return f'<pre class="st-code" tabindex="0">{shown.text(text, _MOST_TEXT)}</pre>'


def bubbles(parts: Iterable[tuple[str, str, str]]) -> str:
    """Messages under each other: (role, its name, what was said)."""
    told = "".join(
        f'<div class="bubble" data-role="{escape(role)}"><h4>{escape(name)}</h4>{_paragraph(content)}</div>'
        for role, name, content in parts
    )
    return f'<div class="bubbles">{told}</div>'


def unusable(reason: str) -> str:
    return f'<p class="st-note warn">{say("rows.unusable", reason=shown.text(reason.rstrip(".")))}</p>'


def _cut(line: Line) -> str:
    return f'<p class="st-hint">{escape(say("rows.cut"))}</p>' if line.get("cut") else ""


def raw(line: Line) -> str:
    """The row as it stands in the file, as far as it could be read."""
    warning = unusable(str(line["problem"])) if line.get("problem") else ""
    if line.get("row") is None:
        return warning
    written = json.dumps(line["row"], ensure_ascii=False, indent=2, default=str)
    return f'{warning}<pre class="st-code raw" tabindex="0">{shown.text(written, _MOST_RAW)}</pre>{_cut(line)}'


def written(line: Line) -> str:
    """The row as JSON to be changed; nothing where it can't be shown whole, an empty object where it can't be read."""
    if line.get("cut"):
        return ""
    return json.dumps(line["row"] if line.get("row") is not None else {}, ensure_ascii=False, indent=2, default=str)


def place(line: Line) -> str:
    """Which row this is: its number as the list counts, and its line in the file where that is another."""
    position = int(line["position"])
    told = [escape(say("rows.number", number=shown.count(position + 1)))]
    where = line.get("where")
    if isinstance(where, int) and where != position + 1:
        told.append(escape(say("rows.line", line=where)))
    elif isinstance(where, str):  # a file and a line
        told.append(shown.line(where, 120))
    return f'<h3 class="row-place">{" · ".join(told)}</h3>'
