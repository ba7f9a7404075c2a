"""What the Data tab asks, answered as JSON beside Gradio: pieces of the page as HTML, and the few figures it acts on.

In: a dataset's name, what is looked at. Out: answers at once; long work is begun and asked after (`api_tasks`). Names
are looked up among the registered datasets: a path in a request opens nothing.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response

from studio.core.errors import ConfigError, DataError, StudioError
from studio.core.problems import PROBLEMS
from studio.ui import checkview, choices, datasetview, layoutview, mapview, rowview, shown, statsview, tokenview
from studio.ui.api import answer
from studio.ui.context import Studio
from studio.ui.dataquestion import Reading, check_question, map_question, stats_question
from studio.ui.hubpreview import HubPreviews
from studio.ui.leftover import remaining
from studio.ui.text_data import say
from studio.workspace.registration import DatasetEntry

PAGE = 20
Asked = Annotated[Reading, Query()]


def router(studio: Studio) -> APIRouter:
    """All routes under /api/data that only look."""
    api = APIRouter(prefix="/api/data")
    previews = HubPreviews(studio.desk)
    _add_datasets(api, studio)
    _add_findings(api, studio)
    _add_rows(api, studio, previews)
    _add_layout(api, studio, previews)
    return api


def entry_of(studio: Studio, name: str) -> DatasetEntry:
    """A registered dataset. Raises ConfigError."""
    found = next((entry for entry in studio.desk.entries() if entry.name == name), None)
    if found is None:
        raise ConfigError("", say("data.gone"), say("data.gone.next"))
    return found


def _add_datasets(api: APIRouter, studio: Studio) -> None:
    @api.get("/list")
    def listed() -> Response:
        entries = studio.desk.entries()
        names = [datasetview.named(entry) for entry in entries]
        return answer({"html": datasetview.dataset_list(entries), "datasets": names})

    @api.get("/models")
    def models() -> Response:
        return answer([{"name": name, "title": title} for title, name in choices.models()])

    @api.get("/of/{name}")
    def one(name: str) -> Response:
        entry = entry_of(studio, name)
        known = datasetview.known(entry)
        running = [task.id for task in studio.desk.tasks(name) if task.state == "running"]
        return answer({**known, "html": datasetview.head(entry, known["rows"]), "running": running})


def _add_findings(api: APIRouter, studio: Studio) -> None:
    @api.get("/of/{name}/check")
    def check(name: str, asked: Asked) -> Response:
        """The kept report for this question, in short and whole; nulls where there is none."""
        entry = entry_of(studio, name)
        question = check_question(asked)
        report = studio.desk.last("check", name, **question)
        if report is None:
            return answer({"strip": None, "full": None, "kinds": []})
        kinds = [
            {**{key: p[key] for key in ("kind", "severity", "count")}, "title": PROBLEMS[p["kind"]].title}
            for p in report["problems"]
        ]
        told = {"strip": checkview.strip(report, entry, question), "full": checkview.full(report, entry)}
        return answer({**told, "kinds": kinds, "rows": report["rows"]})

    @api.get("/of/{name}/stats")
    def stats(name: str, asked: Asked) -> Response:
        entry = entry_of(studio, name)
        figures = studio.desk.last("stats", name, **stats_question(asked))
        report = studio.desk.last("check", name, **check_question(asked)) if figures else None
        left = remaining(report, entry.exclude, entry.exclude_rows) if report else None
        return answer({"html": statsview.panel(figures, entry, asked, left) if figures else None})

    @api.get("/of/{name}/map")
    def topics(name: str, asked: Asked) -> Response:
        entry_of(studio, name)
        found = studio.desk.last("map", name, **map_question(asked))
        return answer({"map": mapview.drawn(found) if found else None})


def _add_rows(api: APIRouter, studio: Studio, previews: HubPreviews) -> None:
    @api.get("/of/{name}/rows")
    def rows(
        name: str,
        asked: Asked,
        start: int = Query(0, ge=0),
        chosen: int = Query(-1),
        search: int | None = None,
        kind: str | None = None,
    ) -> Response:
        """A page of the rows; of those that a search found, or that a check found a problem in."""
        entry = entry_of(studio, name)
        positions = _positions(studio, name, asked, search, kind)
        preview = None if positions else previews.page(entry, start, PAGE)
        page = preview or studio.desk.page(name, start, PAGE, positions)
        lines = page["lines"]
        if lines and all(line["position"] != chosen for line in lines):
            chosen = lines[0]["position"]
        return answer(
            {
                "html": rowview.row_list(lines, chosen, entry),
                "chosen": chosen if lines else None,
                "start": page["start"],
                "count": len(lines),
                "total": page["total"] if positions or page["total"] is not None else choices.rows_of(entry),
                "indexed": page["indexed"],
                "preview": previews.size(entry) if preview else None,
            }
        )

    @api.get("/of/{name}/row/{position}")
    def row(name: str, position: int, asked: Asked, light: str = "conversation") -> Response:
        entry = entry_of(studio, name)
        line = previews.row(entry, position) or studio.desk.row(name, max(position, 0))
        told = {"place": rowview.place(line), "position": line["position"]}
        if light == "raw":
            return answer({**told, "html": rowview.raw(line)})
        if light == "edit":
            return answer({**told, "written": rowview.written(line)})
        if light == "trained":
            return answer({**told, "html": _trained(studio, name, line, asked)})
        return answer({**told, "html": rowview.conversation(line, entry)})


def _trained(studio: Studio, name: str, line: dict[str, Any], asked: Reading) -> str:
    if line.get("problem"):
        return rowview.unusable(str(line["problem"]))
    if not asked.model:
        return f'<p class="st-hint">{say("rows.no_model")}</p>'
    try:
        return tokenview.trained(studio.desk.trained(name, line["position"], asked.model, asked.max_length))
    except DataError as error:
        return rowview.unusable(error.message)
    except StudioError as error:
        return shown.problem(str(error))


def _positions(studio: Studio, name: str, asked: Reading, search: int | None, kind: str | None) -> str | None:
    """The list of rows that is meant: its place is known here, never taken from a request."""
    if search is not None:
        task = studio.desk.task(search)
        if task.name != name or task.op != "search" or task.result is None:
            raise StudioError("That search is over.", "Search again.")
        return str(task.result["positions"])
    if kind is None:
        return None
    report = studio.desk.last("check", name, **check_question(asked)) if kind in PROBLEMS else None
    if report is None:
        raise StudioError("These rows were found by a check that is no longer kept.", "Check again.")
    return f"{report['findings']}/{kind}.npy"


def _add_layout(api: APIRouter, studio: Studio, previews: HubPreviews) -> None:
    @api.get("/of/{name}/layout")
    def layout(name: str) -> Response:
        """Which layout the rows have, or the question; and what the form that changes it is made of."""
        entry = entry_of(studio, name)
        found = previews.columns(entry) or studio.desk.columns(name)
        return answer(layoutview.told(entry, found))
