"""Rows of a dataset as HTML: in a list, as a conversation, raw, and as a model is trained on them.

In: lines as they were read, a layout, what the worker says of a row's tokens. Out: HTML. Rows are other people's: all
of it goes through `shown`, and what is endless is cut with a word about it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from studio.core.errors import DataError
from studio.core.formats import FORMATS, Example, RowProblem, recognise, to_example
from studio.core.rows import Line
from studio.ui import shown
from studio.ui.text_forms import say
from studio.workspace.datasets import DatasetEntry, Page

_MOST_TEXT = 20_000  # characters of one message that are shown
_MOST_RAW = 60_000
_MOST_TOKENS = 4096


def example_of(line: Line, entry: DatasetEntry) -> Example:
    """The row as it would be used. Raises RowProblem with the reason where it can't be."""
    if line.problem:
        raise RowProblem(line.problem)
    try:
        if entry.format in FORMATS:
            layout = FORMATS[entry.format]
        else:
            layout = recognise(list(line.row) if isinstance(line.row, dict) else [], entry.columns)
    except DataError as error:
        raise RowProblem(error.message.rstrip(".")) from None
    return to_example(line.row, layout, entry.columns)


def row_list(page: Page, chosen: int, entry: DatasetEntry) -> str:
    """The rows of a page, one line each; `chosen` counts from the dataset's first row."""
    items = []
    for place, line in enumerate(page.lines, start=page.start):
        try:
            told, bad = shown.line(_gist(example_of(line, entry))), ""
        except RowProblem as problem:
            told, bad = shown.line(str(problem)), " unusable"
        pressed = str(place == chosen).lower()
        items.append(
            f'<button type="button" class="pick row{bad}" data-pick="{place}" aria-pressed="{pressed}">'
            f'<span class="num">{shown.count(place + 1)}</span><span class="gist">{told}</span></button>'
        )
    return f'<div class="picks">{"".join(items)}</div>'


def _gist(example: Example) -> str:
    if example.messages:
        asked = [message["content"] for message in example.messages if message["role"] == "user"]
        return asked[0] if asked else example.messages[0]["content"]
    return example.text or f"{example.prompt or ''} {example.completion or ''}"


def conversation(line: Line, entry: DatasetEntry) -> str:
    """The row as bubbles, or why it can't be used."""
    try:
        example = example_of(line, entry)
    except RowProblem as problem:
        return unusable(str(problem))
    parts = [(message["role"], message["content"]) for message in example.messages]
    if example.text is not None:
        parts = [("text", example.text)]
    elif example.completion is not None:
        parts = [("prompt", example.prompt or ""), ("completion", example.completion)]
    return bubbles((role, say(f"data.role.{role}"), content) for role, content in parts)


def bubbles(parts: Iterable[tuple[str, str, str]]) -> str:
    """Messages under each other: (role, its name, what was said)."""
    told = "".join(
        f'<div class="bubble" data-role="{escape(role)}"><h4>{escape(name)}</h4>'
        f"<p>{shown.text(content, _MOST_TEXT)}</p></div>"
        for role, name, content in parts
    )
    return f'<div class="bubbles">{told}</div>'


def unusable(reason: str) -> str:
    return f'<p class="st-note warn">{say("data.unusable", reason=shown.text(reason.rstrip(".")))}</p>'


def raw(line: Line) -> str:
    """The row as it stands in the file, as far as it could be read."""
    warning = unusable(line.problem) if line.problem else ""
    if line.row is None:
        return warning
    written = json.dumps(line.row, ensure_ascii=False, indent=2, default=str)
    return f'{warning}<pre class="st-code" tabindex="0">{shown.text(written, _MOST_RAW)}</pre>'


def trained(told: dict[str, Any]) -> str:
    """Every token of a row, told apart by whether it is learned from; those behind the cut are grey."""
    tokens, loss = list(told["tokens"]), list(told["loss"])
    kept = told["cut"] if told.get("cut") is not None else len(tokens)
    spans = "".join(
        _token(token, learned, place < kept)
        for place, (token, learned) in enumerate(zip(tokens[:_MOST_TOKENS], loss, strict=False))
    )
    more = "…" if len(tokens) > _MOST_TOKENS else ""
    return (
        f'{_token_count(loss, kept)}{_legend(kept < len(tokens))}<div class="tokens" tabindex="0">{spans}{more}</div>'
    )


def _token(token: str, learned: bool, kept: bool) -> str:
    kind = "cut" if not kept else "loss" if learned else "context"
    breaks = "\n" * token.count("\n")
    return f'<span class="token {kind}">{shown.text(token.replace(chr(10), "↵"))}</span>{breaks}'


def _token_count(loss: Sequence[bool], kept: int) -> str:
    learned = sum(map(bool, loss[1:kept]))  # the first token is never predicted
    sentences = [say("data.tokens", total=shown.count(len(loss)), loss=shown.count(learned))]
    if kept < len(loss):
        lost = len(loss) - kept
        sentences = [
            say("data.tokens.cut", kept=shown.count(kept), total=shown.count(len(loss)), lost=shown.count(lost))
        ]
    warning = "" if learned else f'<p class="st-note warn">{escape(say("data.tokens.no_loss"))}</p>'
    return f'<p class="st-hint">{escape(" ".join(sentences))}</p>{warning}'


def _legend(with_cut: bool) -> str:
    kinds = ["loss", "context", *(["cut"] if with_cut else [])]
    keys = "".join(
        f'<span><i class="token {kind}">abc</i> {escape(say(f"data.legend.{kind}"))}</span>' for kind in kinds
    )
    return f'<p class="legend">{keys}</p>'
