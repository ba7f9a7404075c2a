"""Datasets as HTML: the list to choose from, and what is known of the one that was chosen.

In: entries of the workspace. Out: HTML. Counts only what can be counted at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from studio.ui import choices, shown
from studio.ui.text_forms import say
from studio.workspace.datasets import DatasetEntry


def dataset_list(entries: Sequence[DatasetEntry], chosen: str) -> str:
    """The registered datasets, one button each."""
    items = []
    for entry in entries:
        owner = "" if entry.bundled else f'<span class="st-pill">{escape(say("data.own"))}</span>'
        items.append(
            f'<button type="button" class="pick" data-pick="{escape(entry.name)}" '
            f'aria-pressed="{str(entry.name == chosen).lower()}">'
            f'<span class="name">{shown.line(entry.title, 80)}</span>{owner}'
            f'<span class="under">{_under(entry)}</span></button>'
        )
    return f'<h2>{escape(say("data.title"))}</h2><div class="picks">{"".join(items)}</div>'


def _under(entry: DatasetEntry) -> str:
    if not entry.path.is_file():
        return f'<span class="bad">{escape(say("data.broken"))}</span>'
    rows = choices.rows_of(entry)
    counted = [say("data.rows", rows=shown.count(rows))] if rows is not None else []
    licence = shown.line(entry.licence, 40) if entry.licence else escape(say("data.no_licence"))
    return ", ".join([*map(escape, counted), shown.size(entry.bytes), licence])


def head(entry: DatasetEntry, rows: int) -> str:
    """Title, description and facts of a dataset."""
    layout = entry.format if entry.format != "auto" else say("pick.dataset.auto")
    pairs = [
        (say("data.facts.rows"), f"{shown.count(rows)}, {shown.size(entry.bytes)}"),
        (say("data.facts.layout"), escape(layout)),
        (say("data.facts.licence"), shown.text(entry.licence or say("data.no_licence"), 200)),
    ]
    if entry.manner:
        pairs.append((say("data.facts.manner"), shown.text(entry.manner, 500)))
    description = f"<p>{shown.text(entry.description, 1000)}</p>" if entry.description else ""
    return f'<div class="data-head"><h2>{shown.line(entry.title, 120)}</h2>{description}{shown.facts(pairs)}</div>'
