"""Datasets as HTML: the list to choose from, and what is known of the one that was chosen.

In: entries of the workspace. Out: HTML. Says only what is known without reading rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from studio.core.formats import FORMATS
from studio.ui import choices, shown
from studio.ui.text_data import say
from studio.workspace.registration import DatasetEntry

_PILLS = {"hub": "data.hub", "mix": "data.mix"}
_UNCOUNTED = {"hub": "data.uncounted.hub", "mix": "data.uncounted.mix"}


def dataset_list(entries: Sequence[DatasetEntry]) -> str:
    """The registered datasets, one button each; which of them is chosen is the page's affair."""
    items = []
    titles = Counter(entry.title for entry in entries)
    for entry in entries:
        key = _PILLS.get(entry.kind, "" if entry.bundled else "data.own")
        pill = f'<span class="st-pill">{escape(say(key))}</span>' if key else ""
        items.append(
            f'<button type="button" class="pick" data-pick="{escape(entry.name)}" role="option" aria-selected="false" '
            f'tabindex="-1"><span class="name">{shown.line(entry.title, 80)}</span>{pill}'
            f'<span class="under">{escape(entry.name) + ", " if titles[entry.title] > 1 else ""}{_under(entry)}</span>'
            "</button>"
        )
    return "".join(items)


def _under(entry: DatasetEntry) -> str:
    if not entry.there:
        return f'<span class="bad">{escape(say("data.broken"))}</span>'
    rows = choices.rows_of(entry)
    told = [escape(say("data.rows", rows=shown.count(rows)))] if rows is not None else []
    if entry.bytes:
        told.append(shown.size(entry.bytes))
    if entry.kind == "hub" and entry.split:
        told.append(shown.line(entry.split, 40))
    if entry.licence:
        told.append(shown.line(entry.licence, 40))
    return ", ".join(told) or shown.line(layout_name(entry), 60)


def layout_name(entry: DatasetEntry) -> str:
    """The layout as chosen; the name of `auto` says that it is recognised."""
    return FORMATS[entry.format].title if entry.format in FORMATS else say("layout.auto")


def head(entry: DatasetEntry, rows: int | None) -> str:
    """Title, description and facts of a dataset. The layout's place is filled once the columns are known."""
    unknown = say(_UNCOUNTED.get(entry.kind, "data.uncounted")) if entry.there else "–"
    counted = shown.count(rows) if rows is not None else unknown
    facts = [(say("data.facts.rows"), f'<span id="data-count">{escape(counted)}</span>')]
    if entry.bytes:
        facts.append((say("data.facts.size"), shown.size(entry.bytes)))
    facts.append((say("data.facts.layout"), f'<span id="data-layout">{escape(layout_name(entry))}</span>'))
    facts.append((say("data.facts.licence"), shown.text(entry.licence or say("data.no_licence"), 200)))
    about = [f"<p>{shown.text(entry.description, 1000)}</p>"] if entry.description else []
    more = [(say("data.facts.manner"), shown.text(entry.manner, 500))] if entry.manner else []
    if where := _where(entry):
        more.append((say("data.facts.source"), shown.text(where, 400)))
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f'<h2>{shown.line(entry.title, 120)}</h2>{"".join(about)}<dl class="data-figures">{cells}</dl>'
        f"{shown.facts(more) if more else ''}"
    )


def _where(entry: DatasetEntry) -> str:
    """What the person named, where that isn't inside the studio."""
    if entry.bundled:
        return ""
    if entry.kind == "mix":
        named = (f"{part.path} × {part.weight:g}" if part.weight is not None else part.path for part in entry.parts)
        return " + ".join(named)
    if entry.kind == "hub":
        return " · ".join(filter(None, (entry.source, entry.config, entry.split)))
    if entry.folder is not None and entry.path.is_relative_to(entry.folder):
        return ""  # a copy: where the file once lay tells nothing
    return str(entry.path)


def named(entry: DatasetEntry) -> dict[str, str]:
    """A dataset where there can be no HTML: in a sentence, in a list to choose from."""
    return {"name": entry.name, "title": shown.plain(entry.title)}


def known(entry: DatasetEntry) -> dict[str, Any]:
    """What the page keeps of a dataset, as JSON."""
    return {
        **named(entry),
        "bundled": entry.bundled,
        "kind": entry.kind,
        "there": entry.there,
        "rows": choices.rows_of(entry),
        "format": entry.format,
        "columns": entry.columns,
        "tags": entry.tags,
        "exclude": list(entry.exclude),
        "exclude_rows": list(entry.exclude_rows),
        "knobs": entry.knobs,
    }
