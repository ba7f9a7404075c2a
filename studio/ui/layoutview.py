"""Which layout a dataset's rows have, or the question about it, and what can be answered.

In: what the data worker says of the columns, the dataset's entry. Out: values for the page's form; sentences as HTML.
What layouts there are, what they need and which other names are usual is core's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from studio.core.formats import FORMATS, fitting, suggest
from studio.ui import shown
from studio.ui.text_data import say
from studio.workspace.registration import DatasetEntry

_MOST_COLUMNS = 500
TAGS = (
    *("role_tag", "content_tag", "user_tag", "assistant_tag"),
    *("system_tag", "observation_tag", "function_tag"),
)


def told(entry: DatasetEntry, found: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the head and in the form: the layout or the question, a suggestion, everything to choose from."""
    columns = [str(column) for column in found.get("columns") or []]
    name = entry.format if entry.format in FORMATS else found.get("format")
    fits = [each for each in found.get("fitting") or () if each in FORMATS]
    question = None if name else _question(entry, found, fits)
    return {
        "format": name,
        "chosen": entry.format,
        "words": _words(entry, name),
        "question": shown.text(question, 600) if question else None,
        "fitting": [_choice(each) for each in fits],
        "suggestion": suggestion(columns) if question and len(fits) < 2 else None,
        "columns": [{"name": column, "title": shown.plain(column, 80)} for column in columns[:_MOST_COLUMNS]],
        "formats": [
            {**_choice(each.name), "needs": list(each.needs), "reads": list(each.reads)} for each in FORMATS.values()
        ],
        "tags": list(TAGS),
    }


def _question(entry: DatasetEntry, found: Mapping[str, Any], fits: Sequence[str]) -> str:
    """Why it is asked. Where columns were mapped already, the worker knows best what doesn't fit."""
    if len(fits) > 1:
        return say("layout.question.several")
    if found.get("columns") and not fits and not entry.columns:
        return say("layout.question.unknown")
    return plainly(found.get("question") or say("layout.unknown.question"))


def _words(entry: DatasetEntry, name: str | None) -> str:
    if name is None:
        return say("layout.unknown")
    title = FORMATS[name].title if name in FORMATS else name
    return title if entry.format in FORMATS else say("layout.auto.as", layout=title)


def _choice(name: str) -> dict[str, str]:
    return {"name": name, "title": FORMATS[name].title}


def suggestion(columns: Sequence[str]) -> dict[str, Any] | None:
    """The layout that these columns would be under other names, with the mapping; None if core knows none."""
    mapping = suggest(columns)
    if not mapping:
        return None
    format = fitting(columns, mapping)[0]
    pairs = ", ".join(say("layout.pair", expected=mine, yours=yours) for mine, yours in mapping.items())
    words = say("layout.suggested", layout=escape(format.title), pairs=shown.line(pairs, 300))
    return {"format": format.name, "columns": mapping, "words": words}


def plainly(question: str) -> str:
    """The question without what is said to those who write run.yaml: its first sentence."""
    return question.partition(". ")[0].rstrip(".") + "."
