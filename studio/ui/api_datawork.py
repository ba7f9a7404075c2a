"""What the Data tab does: begins long work and asks after it, changes what is kept of a dataset, adds and removes.

In: POSTs of the page, uploads. Out: what became of it. Which fields a question has is `dataquestion`'s; what can be
done, the desk decides. A task lives in the desk, so that a page that was reloaded finds it again.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from studio.core.errors import ConfigError, DataError, StudioError
from studio.ui import datasetview
from studio.ui.api import Nothing, answer
from studio.ui.api_data import entry_of
from studio.ui.context import Studio
from studio.ui.dataquestion import QUESTIONS, Reading, Search, Shaping, check_question, search_question, shape_question
from studio.ui.shown import plain
from studio.ui.text_data import say
from studio.workspace.home import existing, plain_label
from studio.workspace.tasks import Task

LARGEST_UPLOAD = 8 * 10**9  # bytes
_LEFT_FREE = 500 * 10**6  # bytes of the disk that an upload must leave
_MOST_NAME = 200


class Begin(BaseModel):
    """A task: by which knobs the dataset is read, and for a search or a recipe what it is."""

    model_config = ConfigDict(extra="forbid")

    op: str
    asked: Reading = Field(default_factory=lambda: Reading.model_validate({}))
    search: Search | None = None
    shape: Shaping | None = None


class Change(BaseModel):
    """What is to be kept of a dataset from now on; what isn't named stays."""

    model_config = ConfigDict(extra="forbid")

    title: str | None = Field(None, max_length=_MOST_NAME)
    format: str | None = Field(None, max_length=60)
    columns: dict[str, str] | None = None
    tags: dict[str, str] | None = None
    exclude: list[str] | None = None
    exclude_rows: list[int] | None = None
    leave_out: int | None = None  # one more row
    take_back: int | None = None  # one row less
    knobs: dict[str, Any] | None = None


class Added(BaseModel):
    """Something named: a path, a folder or a name on the hub."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(min_length=1, max_length=4000)
    config: str | None = Field(None, max_length=400)
    split: str | None = Field(None, max_length=400)
    keep_copy: bool = False


class MixPart(BaseModel):
    """One dataset of a mix."""

    name: str
    weight: float | None = Field(None, gt=0)


class Mix(BaseModel):
    """Several datasets as one."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=_MOST_NAME)
    parts: list[MixPart] = Field(min_length=1, max_length=100)
    stopping: str = "first_exhausted"


def router(studio: Studio) -> APIRouter:
    """All routes under /api/data that do something, and the tasks."""
    api = APIRouter(prefix="/api/data")
    _add_tasks(api, studio)
    _add_changes(api, studio)
    _add_adding(api, studio)
    return api


def told(task: Task) -> dict[str, Any]:
    """A task as the page shows it. Of its result only what is short: the rest is asked for where it is drawn."""
    result = {key: value for key, value in (task.result or {}).items() if isinstance(value, (int, float, bool, str))}
    return {
        **{key: getattr(task, key) for key in ("id", "op", "name", "state", "text", "done", "total", "seconds")},
        "error": task.error,
        "hint": task.hint,
        "result": result if task.op in ("search", "shape", "preview") else {},
        "steps": (task.result or {}).get("steps"),
        "search": {key: task.question.get(key) for key in Search.model_fields} if task.op == "search" else None,
    }


def _add_tasks(api: APIRouter, studio: Studio) -> None:
    @api.post("/of/{name}/begin")
    def begin(name: str, body: Begin) -> Response:
        entry_of(studio, name)
        return answer(told(studio.desk.begin(body.op, name, **_question(studio, name, body))))

    @api.get("/of/{name}/tasks")
    def tasks(name: str) -> Response:
        """The last task of each kind, for a page that comes back."""
        last = {task.op: told(task) for task in studio.desk.tasks(name)}
        return answer(last)

    @api.get("/tasks/{number}")
    def one(number: int) -> Response:
        return answer(told(studio.desk.task(number)))

    @api.post("/tasks/{number}/stop")
    def stop(number: int, body: Nothing) -> Response:
        task = studio.desk.task(number)
        task.cancel()
        return answer(told(task))


def _question(studio: Studio, name: str, body: Begin) -> dict[str, Any]:
    if body.op in QUESTIONS:
        return QUESTIONS[body.op](body.asked)
    if body.op in ("index", "fetch"):
        return {}
    if body.shape is not None and body.op == ("preview" if body.shape.preview else "shape"):
        return shape_question(body.shape, body.asked)
    if body.op == "search" and body.search is not None:
        findings = _findings(studio, name, body.asked) if body.search.kind else None
        if body.search.kind and findings is None:
            raise StudioError(say("rows.kind.unknown"), say("check.start.first"))
        return search_question(body.search, findings)
    raise ConfigError("", f"there is no such task: {body.op[:40]!r}.", "Reload the page.")


def _findings(studio: Studio, name: str, asked: Reading) -> str | None:
    report = studio.desk.last("check", name, **check_question(asked))
    return str(report["findings"]) if report else None


def _add_changes(api: APIRouter, studio: Studio) -> None:
    @api.post("/of/{name}/change")
    def change(name: str, body: Change) -> Response:
        entry = entry_of(studio, name)
        fields = body.model_dump(exclude_none=True, exclude={"leave_out", "take_back", "knobs"})
        rows = set(fields.get("exclude_rows", entry.exclude_rows))
        if body.leave_out is not None and body.leave_out >= 0:
            fields["exclude_rows"] = sorted(rows | {body.leave_out})
        if body.take_back is not None:
            fields["exclude_rows"] = sorted(rows - {body.take_back})
        if body.knobs is not None:
            fields["knobs"] = _checked_knobs({**entry.knobs, **body.knobs}, name)
        return answer(datasetview.known(studio.desk.change(name, **fields)))

    @api.post("/of/{name}/remove")
    def remove(name: str, body: Nothing) -> Response:
        entry_of(studio, name)
        studio.desk.remove(name)
        return answer({"removed": name})


def _checked_knobs(knobs: dict[str, Any], name: str) -> dict[str, Any]:
    """Knobs of the dataset section without those that are as by default. Raises ConfigError that names one."""
    from studio.core.config import DatasetSection
    from studio.core.configfile import parse_as

    section = parse_as(DatasetSection, {"path": name, **knobs}).model_dump(mode="json")
    plain = DatasetSection().model_dump(mode="json")
    return {key: section[key] for key in knobs if section[key] != plain[key]}


def _add_adding(api: APIRouter, studio: Studio) -> None:
    @api.post("/add")
    def add(body: Added) -> Response:
        source = body.source.strip()
        try:
            found = studio.desk.add(source, copy=body.keep_copy, config=body.config, split=body.split)
        except ConfigError:
            if existing(source) is None:  # said for those who type names of datasets; here a file is meant
                words = say("data.add.missing", source=plain(source, 300)), say("data.add.missing.next")
                raise ConfigError("", *words) from None
            raise
        return answer({"added": [datasetview.named(entry) for entry in found]})

    @api.get("/hub")
    def hub(id: str = Query(max_length=400), config: str | None = Query(None, max_length=400)) -> Response:
        """The configurations and splits of a dataset on the hub."""
        found = studio.desk.hub(id, config, None)
        return answer({key: list(found.get(key) or []) for key in ("configs", "splits")})

    @api.post("/mix")
    def mix(body: Mix) -> Response:
        parts = [(part.name, part.weight) for part in body.parts]
        entry = studio.desk.mix(plain_label(body.title) or say("data.add.mix.first"), parts, body.stopping)
        return answer({"added": [datasetview.named(entry)]})

    @api.post("/upload")
    async def upload(request: Request, name: str = Query(max_length=1000)) -> Response:
        """A file's bytes. They lie in a folder of their own until they are registered; cut short, nothing stays."""
        folder = studio.home / "uploads" / secrets.token_hex(8)
        try:
            file = await _received(request, folder, name)
            found = await run_in_threadpool(studio.desk.add, str(file), copy=True)
        except _TooLarge as error:
            return answer({"message": error.message, "hint": error.hint}, 413)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return answer({"added": [datasetview.named(entry) for entry in found]})


class _TooLarge(DataError):
    """An upload that is larger than there is room for."""


async def _received(request: Request, folder: Path, name: str) -> Path:
    """The upload as a file. Its name is only its own: no folder of it, nothing hidden."""
    plain = Path(name.replace("\\", "/")).name.lstrip(".") or "rows.jsonl"
    expected = int(length) if (length := request.headers.get("content-length", "")).isdecimal() else 0
    folder.mkdir(parents=True)
    if max(expected, 1) > min(LARGEST_UPLOAD, shutil.disk_usage(folder).free // 2 - _LEFT_FREE):
        raise _TooLarge(say("data.add.too_large", name=plain[:80]), say("data.add.too_large.next"))
    received = 0
    file = folder / plain[-_MOST_NAME:]
    with contextlib.closing(file.open("wb")) as out:
        async for piece in request.stream():
            received += len(piece)
            if received > max(expected, 1):
                raise _TooLarge(say("data.add.too_large", name=plain[:80]), say("data.add.too_large.next"))
            await run_in_threadpool(out.write, piece)
    return file
