"""Pages of rows, as the window shows them.

In: requests of the data worker's pipe. Out: lines whose texts are cut to what a page can carry, and where they stand.
Rows themselves are left as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.core.rows import Line
from studio.worker.data.source import Source, open_source

Part = Callable[[dict[str, Any]], None]
MOST_ROWS = 100
_CELL, _ROW = 2000, 20_000  # characters of one text, and of a row's JSON in bytes
_WHOLE_ROW = 200_000
_opened: dict[str, tuple[str, Source]] = {}  # the source last used of each dataset, as long as its files stay the same


def page_op(request: dict[str, Any], _part: Part) -> dict[str, Any]:
    """Rows from `start`, at most `size`; of `positions` (a file of them) only, where it is given."""
    source = source_of(request["dataset"])
    start = max(int(request.get("start") or 0), 0)
    size = min(max(int(request.get("size") or MOST_ROWS), 1), MOST_ROWS)
    if request.get("positions"):
        chosen = read_positions(request["positions"])
        lines = list(source.rows(chosen[start : start + size].tolist())) if start < len(chosen) else []
        total: int | None = len(chosen)
    else:
        lines, total = source.page(start, size), source.total
    return {
        "lines": [as_dict(line, _CELL, _ROW) for line in lines],
        "start": start,
        "total": total,
        "indexed": source.indexed,
    }


def row_op(request: dict[str, Any], _part: Part) -> dict[str, Any]:
    """One row, at `position`, nearly whole."""
    source, position = source_of(request["dataset"]), int(request["position"])
    line = None
    if source.indexed:
        total = source.total or 0
        line = next(source.rows([position]), None) if 0 <= position < total else None
    else:
        line = next(iter(source.page(position, 1)), None) if position >= 0 else None
    if line is None:
        raise DataError(f"There is no row {position} in {source.name}.", "Rows count from 0.")
    return as_dict(line, _WHOLE_ROW, _WHOLE_ROW)


def index_op(request: dict[str, Any], part: Part) -> dict[str, Any]:
    """Make any page reachable, and count the rows."""
    source = source_of(request["dataset"])

    def progress(text: str, done: int | None, total: int | None) -> None:
        part({"text": text, "done": done, "total": total})

    source.build_index(progress)
    return {"total": source.total}


def columns_op(request: dict[str, Any], _part: Part) -> dict[str, Any]:
    """The columns, a sample, and the layout recognised from them or the question that has to be answered first."""
    from studio.core.formats import fitting, recognise

    source = source_of(request["dataset"])
    lines = [line for line in source.first(200) if not line.problem][:3]
    first = next((line.row for line in lines if isinstance(line.row, dict)), None)
    columns = [str(name) for name in first] if first else []
    name, question, mapping = None, None, dict(request["dataset"].get("columns") or {})
    fit: list[str] = []
    if first is None:
        question = "The first rows are no objects with named columns." if lines else f"{source.name} has 0 rows."
    else:
        try:
            name = recognise(columns, mapping).name
        except DataError as error:
            question = str(error)
        fit = [format.name for format in fitting(columns, mapping)]
    sample = [as_dict(line, _CELL, _ROW)["row"] for line in lines]
    return {"columns": columns, "sample": sample, "format": name, "question": question, "fitting": fit}


def source_of(dataset: dict[str, Any]) -> Source:
    """The source of a dataset; the one opened before, where its files haven't changed since."""
    key = json.dumps(dataset, sort_keys=True)
    known = _opened.get(key)
    if known is not None and known[0] == known[1].fingerprint():
        return known[1]
    source = open_source(DatasetInput.from_dict(dataset))
    if len(_opened) >= 8:
        _opened.pop(next(iter(_opened)))
    _opened[key] = (source.fingerprint(), source)
    return source


def read_positions(path: str) -> Any:
    """Row positions kept by a search or a check. Raises DataError where they are gone."""
    try:
        return np.load(Path(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise DataError("What was found is no longer in the cache.", "Search or check again.") from None


def as_dict(line: Line, cell: int, whole: int) -> dict[str, Any]:
    """A line for the window: each text cut to `cell` characters, the row's JSON to about `whole` bytes."""
    cutter = _Cutter(cell, whole)
    row = None if line.problem else cutter.cut(line.row)
    return {
        "position": line.position,
        "number": line.number,
        "where": line.where,
        "file": line.file,
        "part": line.part,
        "row": row,
        "cut": cutter.did,
        "problem": line.problem,
        "kind": line.kind,
    }


class _Cutter:
    """Copies a row up to a budget. Every value costs what its JSON does."""

    def __init__(self, cell: int, left: int) -> None:
        self._cell, self._left, self.did = cell, left, False

    def cut(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._dict(value)
        if isinstance(value, (list, tuple)):
            return self._list(value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, float) and value not in (float("inf"), float("-inf")) and value == value:
            self._left -= 24
            return value
        if (isinstance(value, int) and abs(value) < 2**53) or value is None:
            self._left -= 16
            return value
        return self._text(str(value))  # what a browser's JSON can't say

    def _text(self, value: str) -> str:
        kept = value[: max(min(self._cell, self._left), 0)]
        kept = kept.encode("utf-8", "replace").decode("utf-8")  # no halves of characters
        while (size := len(json.dumps(kept, ensure_ascii=False).encode())) > max(self._left, 2):
            kept = kept[: len(kept) // 2]
        self._left -= size
        if len(kept) < len(value):
            self.did = True
            kept += "…"
        return kept

    def _list(self, values: Any) -> list[Any]:
        found = []
        self._left -= 2
        for value in values:
            if self._left <= 0:
                self.did = True
                break
            found.append(self.cut(value))
            self._left -= 2
        return found

    def _dict(self, values: dict[Any, Any]) -> dict[str, Any]:
        found = {}
        self._left -= 2
        for key, value in values.items():
            if self._left <= 0:
                self.did = True
                break
            name = self._text(str(key)[:200])
            found[name] = self.cut(value)
            self._left -= 4
        return found
