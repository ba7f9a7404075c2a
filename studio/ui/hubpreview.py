"""The first rows of a hub dataset that hasn't been downloaded yet, streamed, so that it can be looked at before.

In: a dataset's entry. Out: answers like the desk's own about pages, rows and columns; None once the rows are here. The
hub is asked once for each dataset as long as the studio runs.
"""

from __future__ import annotations

import threading
from typing import Any

from studio.core.errors import DataError, StudioError
from studio.core.formats import fitting, recognise
from studio.ui.text_data import say
from studio.workspace.desk import DataDesk
from studio.workspace.registration import DatasetEntry


class HubPreviews:
    """What the hub answered, by dataset."""

    def __init__(self, desk: DataDesk) -> None:
        self._desk = desk
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def page(self, entry: DatasetEntry, start: int, size: int) -> dict[str, Any] | None:
        found = self._of(entry)
        if found is None:
            return None
        lines = found["lines"][start : start + size]
        return {"lines": lines, "start": start, "total": len(found["lines"]), "indexed": False}

    def row(self, entry: DatasetEntry, position: int) -> dict[str, Any] | None:
        found = self._of(entry)
        if found is None:
            return None
        if not 0 <= position < len(found["lines"]):
            raise StudioError(say("hub.not_here"), say("hub.not_here.next"))
        line: dict[str, Any] = found["lines"][position]
        return line

    def columns(self, entry: DatasetEntry) -> dict[str, Any] | None:
        found = self._of(entry)
        if found is None:
            return None
        rows = [line["row"] for line in found["lines"] if isinstance(line["row"], dict)]
        columns = list(rows[0]) if rows else []
        try:
            name, question = recognise(columns, entry.columns).name, None
        except DataError as error:
            name, question = None, str(error)
        fit = [each.name for each in fitting(columns, entry.columns)]
        return {"columns": columns, "format": name, "question": question, "fitting": fit}

    def size(self, entry: DatasetEntry) -> dict[str, Any]:
        """`rows` and `bytes` as the hub knows them; nulls where it doesn't say."""
        found = self._of(entry) or {}
        return {"rows": found.get("rows"), "bytes": found.get("bytes")}

    def _of(self, entry: DatasetEntry) -> dict[str, Any] | None:
        if entry.kind != "hub" or self._fetched(entry.name):
            return None
        key = "\n".join(str(part) for part in (entry.source, entry.config, entry.split, entry.revision))
        with self._lock:
            found = self._known.get(key)
        if found is None:
            found = self._desk.hub(entry.source, entry.config, entry.split)
            with self._lock:
                self._known[key] = found
        return found

    def _fetched(self, name: str) -> bool:
        """Whether something that reads all rows has been done with them since the studio runs."""
        done = ("fetch", "check", "stats", "map", "search", "index")
        return any(task.state == "done" and task.op in done for task in self._desk.tasks(name))
