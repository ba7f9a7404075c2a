"""The page's own questions, answered as JSON beside Gradio.

In: a GET once a second from a page that is looked at; POSTs from its buttons. Out: what is new. Nothing is taken on
trust: a run's id is looked up in the workspace, and the supervisor decides whether what is asked for can be done.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from studio import __version__
from studio.core.errors import StudioError
from studio.ui import runview
from studio.ui.context import Studio
from studio.ui.port import fingerprint
from studio.ui.runlist import Look, RunList
from studio.ui.system import learnt
from studio.workspace.hardware import Machine, read_machine, torch_build_problem, versions
from studio.workspace.home import datasets_dir, exports_dir, models_dir, runs_dir
from studio.workspace.memory import holders
from studio.workspace.models import hub_cache

_MOST_LISTED = 10_000
_MOST_HOLDERS = 6  # of RAM, where there is no card whose processes could be shown


class Nothing(BaseModel):
    """The body of a POST whose path says all: an empty JSON object."""

    model_config = ConfigDict(extra="forbid")


def router(studio: Studio) -> APIRouter:
    """All routes under /api."""
    api = APIRouter(prefix="/api")
    runs = RunList(studio.supervisor.runs)
    _add_machine(api, studio)
    _add_live(api, studio, runs)
    _add_actions(api, studio, runs)
    return api


def _add_machine(api: APIRouter, studio: Studio) -> None:
    @api.get("/hello")
    def hello() -> Response:
        return answer({"app": "studio", "version": __version__, "home": fingerprint(studio.home)})

    @api.get("/machine")
    def machine() -> Response:
        machine = read_machine(studio.home)
        seen = {**dataclasses.asdict(machine), "learnt": learnt(studio.supervisor.learning, machine)}
        seen["holders"] = [] if machine.gpus else [holder._asdict() for holder in holders(_MOST_HOLDERS)]
        return answer({**seen, "problem": torch_build_problem(), "versions": versions(), "places": _places(studio)})


def _add_live(api: APIRouter, studio: Studio, runs: RunList) -> None:
    @api.get("/live")
    def live(
        run: str = Query("", max_length=200),
        offset: int = Query(0, ge=0),
        log_offset: int | None = Query(None),
    ) -> Response:
        """What changed; `log_offset` asks for the log too (-1: from near its end)."""
        look = runs.look()
        return answer(
            {
                "live": _live(look),
                "queued": look.queued,
                "device": _device(read_machine(studio.home)),
                "runs_version": look.version,
                "runs_total": look.total,
                "run": _news(studio, run, offset, log_offset) if run else None,
            }
        )

    @api.get("/runs")
    def listed(most: int = Query(100, ge=1, le=_MOST_LISTED)) -> Response:
        return answer([dataclasses.asdict(line) for line in runs.look(most).lines[:most]])

    @api.get("/runs/{run_id}")
    def details(run_id: str) -> Response:
        return answer(runview.details(studio.supervisor.runs.get(run_id)))


def _add_actions(api: APIRouter, studio: Studio, runs: RunList) -> None:
    for verb in ("stop", "resume", "delete"):
        api.add_api_route(f"/runs/{{run_id}}/{verb}", _action(getattr(studio.supervisor, verb), runs), methods=["POST"])


def _action(act: Callable[[str], None], runs: RunList) -> Callable[..., Response]:
    def action(run_id: str, body: Nothing) -> Response:
        try:
            act(run_id)
        finally:
            runs.forget()
        return answer({"run": run_id})

    return action


def _live(look: Look) -> dict[str, Any] | None:
    line = look.live
    if line is None:
        return None
    wanted = ("id", "name", "status", "step", "max_steps", "eta")
    return {name: getattr(line, name) for name in wanted}


def _device(machine: Machine) -> dict[str, Any]:
    """The header's meter: the card with the most memory in use, or the processor and its RAM where there is no card."""
    if machine.gpus:
        card = max(machine.gpus, key=lambda gpu: gpu.memory_used or 0)
        return {
            "label": card.name,
            "used": card.memory_used,
            "total": card.memory_total,
            "load": card.load,
            "temperature": card.temperature,
        }
    used, total = machine.ram_used, machine.ram_total
    return {"label": "CPU", "used": used, "total": total, "load": machine.cpu_load, "temperature": None}


def _news(studio: Studio, run_id: str, offset: int, log_offset: int | None) -> dict[str, Any] | None:
    try:
        told = runview.news(studio.supervisor.runs, run_id, offset)
    except StudioError as error:  # deleted, or never there: the page says so
        return {"id": run_id, "status": None, "cause": error.message, "hint": error.hint}
    if log_offset is not None:
        log = studio.supervisor.runs.job(run_id).log
        told["log"], told["log_offset"] = runview.log_since(log, log_offset)
    return told


def _places(studio: Studio) -> dict[str, str]:
    return {
        "home": str(studio.home),
        "runs": str(runs_dir()),
        "models": str(models_dir()),
        "datasets": str(datasets_dir()),
        "exports": str(exports_dir()),
        "hub": str(hub_cache()),
    }


async def studio_error(_request: Request, error: Exception) -> Response:
    """A StudioError as the page shows it: one sentence and the next step."""
    assert isinstance(error, StudioError)
    return answer({"message": error.message, "hint": error.hint}, 400)


def answer(content: Any, status: int = 200) -> Response:
    """JSON that is never kept by the browser; numbers that JSON doesn't have are null."""
    body = json.dumps(_plain(content), ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    return Response(body, status, {"cache-control": "no-store"}, "application/json")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value
