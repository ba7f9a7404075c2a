"""The data worker's ops: questions about datasets, answered on a pipe.

In: requests as `serve` reads them. Out: their answers. What an op does is in its module, which is imported when it is
first asked for, so that the process which turns pages is ready at once. Answers that took long are kept in the cache,
under the state of the files and the question they belong to.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.fitting import check_fit
from studio.core.formats import Layout, RowProblem, to_example
from studio.core.inputs import DatasetInput
from studio.core.job import read_json, write_text
from studio.worker.data.source import Cancelled, Source, layouts, open_source
from studio.worker.serve import Part, Server

Op = Callable[[dict[str, Any], Part], dict[str, Any]]

_OPS = {
    "page": ("pages", "page_op"),
    "row": ("pages", "row_op"),
    "columns": ("pages", "columns_op"),
    "search": ("search", "search_op"),
    "hub": ("hub", "hub_op"),
    "fetch": ("hub", "fetch_op"),
    "check": ("check", "check_op"),
    "stats": ("stats", "stats_op"),
    "lengths": ("rowlengths", "lengths_op"),
    "map": ("topics", "map_op"),
    "shape": ("shape", "shape_op"),
    "preview": ("shape", "preview_op"),
    "split": ("split", "split_op"),
}
KEPT = {"check", "stats", "map", "lengths"}
_ONCE = {"lengths"}  # what is asked without a person wanting it anew is answered from what is kept
_ASIDE = {"id", "op", "of", "version"}  # fields of a request that don't change its answer
_LOOKED_AT = 200  # rows that are tried before a run is queued; the run itself reads them all
VERSION = 1  # of the kept answers: raised when what an op finds out has changed


def serve() -> int:
    """Serve questions about datasets on this process's stdin and stdout."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to stdout; the pipe must carry nothing but answers
    stopped = threading.Event()
    Server(out, ops(stopped)).run(sys.stdin, stopped.set)
    os._exit(0)


def ops(stopped: threading.Event) -> dict[str, Op]:
    """Every op by name. A set `stopped` ends the one that is running at its next word of progress."""

    def named(name: str) -> Op:
        def run(request: dict[str, Any], part: Part) -> dict[str, Any]:
            stopped.clear()
            if name in _ONCE and (kept := kept_op({"of": {**request, "op": name}}, part)["result"]) is not None:
                return dict(kept)

            def report(fields: dict[str, Any]) -> None:
                if stopped.is_set():
                    raise Cancelled()
                part(fields)

            answer: dict[str, Any] = _op(name)(request, report)
            if name in KEPT:
                _keep(name, request, answer)
            return answer

        return run

    found = {name: named(name) for name in _OPS}
    return {**found, "look": look_op, "index": index_op, "kept": kept_op, "ping": lambda *_: {}}


def _op(name: str) -> Op:
    module, function = _OPS[name]
    op: Op = getattr(importlib.import_module(f"studio.worker.data.{module}"), function)
    return op


# -- what a run asks before it is queued ------------------------------------------------------------------------------


def look_op(request: dict[str, Any], _part: Part) -> dict[str, Any]:
    """Answers as `look`. Fields of the request: `dataset`, `section`, and `method`, the training method's name."""
    dataset = DatasetInput.from_dict(request["dataset"])
    name = Path(dataset.path).name or dataset.name
    return look(name, open_source(dataset), DatasetSection(**request["section"]), request.get("method"))


def look(name: str, source: Source, section: DatasetSection, method: str | None = None) -> dict[str, Any]:
    """The first rows: which layout they have, and that at least one of them can be used, and by `method`.

    Raises DataError naming the first problem's line. The whole is looked at when a run or a check reads it.
    """
    lines = source.first(_LOOKED_AT)
    if not lines:
        raise DataError(f"{name} has 0 rows.", "Give at least one row with named columns.")
    problems = []
    chosen: list[Layout] = []
    for line in lines:
        if line.problem or not isinstance(line.row, dict):
            problems.append((line, line.problem or "the row is no object with named columns"))
            continue
        chosen = chosen or layouts(section, source)
        layout = chosen[line.part]
        try:
            example = to_example(line.row, layout, section.system_prompt)
        except RowProblem as problem:
            problems.append((line, str(problem)))
            continue
        if method is not None:
            check_fit(example.type, method)
        return {"format": layout.format.name, "type": example.type}
    line, text = problems[0]
    raise DataError(
        f"None of the first {len(lines)} rows of {name} can be used; line {line.where}: {text}.",
        "Mend the rows, choose another layout (dataset.format) or map its columns (dataset.columns).",
        line.number,
    )


# -- answers that are kept --------------------------------------------------------------------------------------------


def index_op(request: dict[str, Any], part: Part) -> dict[str, Any]:
    """Make any page quick to reach, count the rows and take the contents' hash."""
    answer = importlib.import_module("studio.worker.data.pages").index_op(request, part)
    source = open_source(DatasetInput.from_dict(request["dataset"]))
    total = source.bytes
    sha256 = source.sha256(lambda text, done, _: part({"text": text, "done": done, "total": total}))
    return {**answer, "sha256": sha256}


def kept_op(request: dict[str, Any], _part: Part) -> dict[str, Any]:
    """The kept answer to the request `of` (with its op), as `result`; null where there is none for this very state."""
    wanted = request["of"]
    path = _kept_at(wanted["op"], wanted)
    return {"result": read_json(path) if path is not None else None}


def _keep(name: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
    path = _kept_at(name, request)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(answer, ensure_ascii=False, default=str))


def _kept_at(name: str, request: dict[str, Any]) -> Path | None:
    """Where the answer is kept; None where the dataset can't be opened now."""
    try:
        source = open_source(DatasetInput.from_dict(request["dataset"]))
    except DataError:
        return None
    question = {key: value for key, value in request.items() if key not in _ASIDE}
    text = json.dumps({"op": name, "version": VERSION, **question}, sort_keys=True, default=str)
    return source.cache / "answers" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
