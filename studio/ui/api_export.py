"""What the Export tab asks and does: what an export would take, starting and ending one, the zip, the hub.

In: a run's id and choices; an export's id. Out: JSON, pieces of the page as HTML, a streamed archive. An export is
known by its id alone: its folder is what the studio itself wrote down, never a path from a request.
"""

from __future__ import annotations

import hashlib
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from studio.core.config import ExportConfig
from studio.core.configfile import parse_as
from studio.core.errors import ConfigError, RunError, StudioError
from studio.core.progress import LIVE
from studio.ui import exportplanview, exportview, exportzip
from studio.ui.api import Nothing, answer
from studio.ui.context import Studio
from studio.ui.text_export import ENGLISH, say
from studio.workspace import exportplan
from studio.workspace.home import exports_dir, is_slug, slug
from studio.workspace.push import Pushes, has_token
from studio.workspace.runs import ExportJob, Run, read_export

_MOST_RUNS = 200
_MOST_JOBS = 30  # exports drawn at once; older ones on request


class Asked(BaseModel):
    """The choices on the form. `shard_size` may be half a number, as it is typed."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field("", max_length=200)
    format: str = "merged"
    out: str | None = Field(None, max_length=5000)
    dtype: str = "auto"
    quantization: str = "auto"
    shard_size: float | str = 5.0
    quantized_base: str = "original"
    parity: bool = True


class Pushed(BaseModel):
    """Where to on the hub."""

    model_config = ConfigDict(extra="forbid")

    repo: str = Field(max_length=300)
    private: bool = True


def router(studio: Studio, pushes: Pushes | None = None) -> APIRouter:
    """All routes under /api/export."""
    api = APIRouter(prefix="/api/export")
    pushes = pushes or Pushes()
    _add_form(api, studio)
    _add_jobs(api, studio, pushes)
    _add_away(api, studio, pushes)
    return api


# -- the form ---------------------------------------------------------------------------------------------------------


def _add_form(api: APIRouter, studio: Studio) -> None:
    @api.get("/runs")
    def runs() -> Response:
        found = [{"id": run.id, "label": run.label} for run in _exportable(studio)]
        return answer({"runs": found, "chosen": found[0]["id"] if found else ""})

    @api.post("/plan")
    def plan(body: Asked) -> Response:
        run = _run(studio, body.run)
        taken = {job.config.out for job in studio.supervisor.exports()}
        suggested = str(exportplanview.suggestion(run, body.format, taken))
        config = _config(body, body.out if body.out is not None else suggested, lenient=True)
        live = {job.config.out for job in studio.supervisor.exports() if job.state.status in LIVE}
        return answer(exportplanview.told(exportplan.material(run), config, suggested, live))

    @api.post("/start")
    def start(body: Asked) -> Response:
        run = _run(studio, body.run)
        config = _config(body, (body.out or "").strip())
        stands = exportplan.obstacle(exportplan.material(run), config.format)
        if stands is not None:
            raise RunError(say(f"export.cannot.{stands[0]}", **stands[1]))
        return answer({"job": studio.supervisor.export(config).id})


def _exportable(studio: Studio) -> list[Run]:
    return [run for run in studio.supervisor.runs.list(most=_MOST_RUNS) if run.output is not None]


def _run(studio: Studio, run_id: str) -> Run:
    run = studio.supervisor.runs.get(run_id)
    if run.output is None:
        raise RunError(say("export.empty"), say("export.empty.next"))
    return run


def _config(body: Asked, out: str, *, lenient: bool = False) -> ExportConfig:
    """The choices as a config. `lenient`: an empty target is told on its own line. Raises ConfigError, which says
    what the choice is called.
    """
    if not out and not lenient:
        raise ConfigError("out", say("export.out.needed"))
    try:
        return parse_as(ExportConfig, {**body.model_dump(), "out": out or " "})
    except ConfigError as error:
        title = ENGLISH.get(f"export.{error.field}", error.field)
        raise ConfigError(error.field, f"{title}: {error.message}", error.hint) from None


# -- exports there have been ------------------------------------------------------------------------------------------


def _add_jobs(api: APIRouter, studio: Studio, pushes: Pushes) -> None:
    @api.get("/jobs")
    def jobs(most: int = Query(_MOST_JOBS, ge=1, le=10_000), known: str = Query("", max_length=100)) -> Response:
        """Every export as HTML, newest first; nothing but `live` where all is as the page knows it."""
        found = sorted(studio.supervisor.exports(), key=_asked_for, reverse=True)
        token = any(exportview.written(job) for job in found[:most]) and has_token()
        pieces = []
        for job in found[:most]:
            html = exportview.entry(job, pushes.of(job.folder), token)
            pieces.append({"id": job.id, "html": html, "config": _choices_of(job)})
        live = pushes.live or any(job.state.status in LIVE for job in found)
        version = hashlib.sha256("".join(str(piece["html"]) for piece in pieces).encode()).hexdigest()[:16]
        more = max(0, len(found) - most)
        return answer({"live": live, "version": version, "more": more, "jobs": None if version == known else pieces})

    @api.post("/jobs/{job_id}/cancel")
    def cancel(job_id: str, body: Nothing) -> Response:
        job = _job(studio, job_id)
        if job.state.status in LIVE:
            studio.supervisor.stop_export(job)
        return answer({"job": job.id})


def _asked_for(job: ExportJob) -> tuple[str, float]:
    """When: ids tell the minute, and the job's first file the rest."""
    try:
        return job.id[:13], job.folder.export_config.stat().st_mtime
    except OSError:
        return job.id[:13], 0.0


def _choices_of(job: ExportJob) -> dict[str, object]:
    return job.config.model_dump(mode="json", exclude={"out"})


def _job(studio: Studio, job_id: str) -> ExportJob:
    if not is_slug(job_id) or (exports_dir() / job_id).is_symlink():
        raise StudioError(say("export.job.gone"), say("export.job.gone.next"))
    return read_export(exports_dir() / job_id, studio.supervisor.runs.watched)


def _written(studio: Studio, job_id: str) -> ExportJob:
    """An export whose files are there."""
    job = _job(studio, job_id)
    if not exportview.written(job):
        raise StudioError(say("export.job.unwritten"), say("export.job.unwritten.next"))
    return job


# -- away from here ---------------------------------------------------------------------------------------------------


def _add_away(api: APIRouter, studio: Studio, pushes: Pushes) -> None:
    @api.get("/jobs/{job_id}/zip")
    def zipped(job_id: str) -> Response:
        folder = exportview.place(_written(studio, job_id))
        name = slug(folder.name, "export")
        headers = {
            "content-length": str(exportzip.length(folder, name)),
            "content-disposition": f"attachment; filename=\"{name}.zip\"; filename*=UTF-8''{quote(folder.name)}.zip",
            "cache-control": "no-store",
        }
        return StreamingResponse(exportzip.stream(folder, name), media_type="application/zip", headers=headers)

    @api.post("/jobs/{job_id}/push")
    def push(job_id: str, body: Pushed) -> Response:
        job = _written(studio, job_id)
        pushes.start(job.folder, exportview.place(job), body.repo, body.private)
        return answer({"job": job.id})

    @api.post("/jobs/{job_id}/push/stop")
    def stop(job_id: str, body: Nothing) -> Response:
        job = _job(studio, job_id)
        pushes.stop(job.folder)
        return answer({"job": job.id})
