"""What the page asks of searches for better settings, and does to them.

In: the form's values with what was typed beside them; a search's id. Out: JSON for the page's scripts. Everything that
is asked for is judged by core again. The list is read anew only where something has changed: a page that watches a
search asks once a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from studio.core.config import RunConfig
from studio.core.errors import StudioError
from studio.ui import sweepview, sweepwish
from studio.ui.api import Nothing, answer
from studio.ui.context import Studio
from studio.ui.sweepwish import Wish
from studio.ui.text_sweep import say
from studio.workspace.sweeps import Sweeps

_ONE_CLICK = 3.0  # seconds within which the same wish, started again, is the same search: a double click, two windows


class Form(BaseModel):
    """The form's values alone."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, Any] = Field(max_length=500)


def router(studio: Studio) -> APIRouter:
    """All routes under /api/sweeps."""
    api = APIRouter(prefix="/api/sweeps")
    _add_form(api, studio)
    _add_list(api, studio)
    return api


def _sweeps(studio: Studio) -> Sweeps:
    if studio.sweeps is None:
        raise StudioError(say("sweep.unavailable"), "")
    return studio.sweeps


# -- from the form ----------------------------------------------------------------------------------------------------


def _add_form(api: APIRouter, studio: Studio) -> None:
    once = _Once()

    @api.post("/check")
    def check(body: Wish) -> Response:
        """What can be varied, what is wrong with the wish so far, and how long it would take."""
        config, problems = sweepwish.judge(body)
        try:
            base = sweepwish.base_of(body.values)
        except StudioError:
            return answer({"knobs": None, "figures": None, "first": [], "problems": problems, "time": ""})
        knobs = sweepwish.variable(base)
        there = {knob["path"] for knob in knobs}
        first = [path for path in sweepwish.FIRST if path in there]
        told = {"knobs": knobs, "figures": sweepwish.figures(base), "first": first}
        seconds = _seconds(studio, base) if config is not None else None
        took = sweepwish.time_told(config.trials, seconds, config.prune) if config is not None and seconds else ""
        return answer({**told, "problems": problems, "time": took})

    @api.post("")
    def start(body: Wish) -> Response:
        """Start a search."""
        sweeps, config = _sweeps(studio), sweepwish.config_of(body)
        return answer({"sweep": once.do(config.model_dump_json(), lambda: sweeps.start(config))})

    @api.post("/rate")
    def find_rate(body: Form) -> Response:
        """Start the short run that finds a learning rate."""
        config = sweepwish.base_of(body.values, finds=True)
        name = say("sweep.rate.name")
        run = once.do(config.model_dump_json(), lambda: studio.supervisor.submit(config, name))
        return answer({"run": run})


class _Once:
    """Does the same thing once, however often it is asked for within a moment."""

    def __init__(self) -> None:
        self._done: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def do(self, key: str, act: Callable[[], str]) -> str:
        with self._lock:
            now = time.monotonic()
            self._done = {key: seen for key, seen in self._done.items() if now - seen[0] < _ONE_CLICK}
            if key not in self._done:
                self._done[key] = now, act()
            return self._done[key][1]


def _seconds(studio: Studio, config: RunConfig) -> float | None:
    """How long one run takes, where it is known at once."""
    estimating = studio.estimating
    if estimating is None:
        return None
    with contextlib.suppress(StudioError):
        if estimating.shape_soon(config.model.name_or_path, config.model.revision).shape is not None:
            return estimating.forecast(config).seconds
    return None


# -- those there are --------------------------------------------------------------------------------------------------


def _add_list(api: APIRouter, studio: Studio) -> None:
    lines = _Lines(studio)

    @api.get("")
    def listed(version: str = Query("", max_length=40)) -> Response:
        """Every search, newest first; null where nothing has changed since `version`."""
        told = [] if studio.sweeps is None else lines.read()
        return answer(_if_new("sweeps", told, version))

    @api.get("/{sweep_id}")
    def one(sweep_id: str, version: str = Query("", max_length=40)) -> Response:
        sweeps = _sweeps(studio)
        told = sweepview.opened(sweeps.get(sweep_id), sweeps.problem(sweep_id))
        return answer(_if_new("sweep", told, version))

    for verb in ("stop", "resume", "delete"):
        api.add_api_route(f"/{{sweep_id}}/{verb}", _action(studio, verb), methods=["POST"])


def _action(studio: Studio, verb: str) -> Callable[..., Response]:
    def action(sweep_id: str, body: Nothing) -> Response:
        getattr(_sweeps(studio), verb)(sweep_id)
        return answer({"sweep": sweep_id})

    return action


def _if_new(name: str, told: Any, version: str) -> dict[str, Any]:
    now = hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()[:16]
    return {"version": now, name: None if now == version else told}


class _Lines:
    """The list of searches. One that has ended is read again only after a file of it, or the runs, changed."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._known: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def read(self) -> list[dict[str, Any]]:
        sweeps = _sweeps(self._studio)
        with self._lock:
            known = {}
            for sweep_id in sweeps.ids():
                with contextlib.suppress(StudioError, OSError):  # deleted in between, or its file is damaged
                    known[sweep_id] = self._line(sweeps, sweep_id)
            self._known = known
            return [told for _, told in known.values()]

    def _line(self, sweeps: Sweeps, sweep_id: str) -> tuple[tuple[int, ...], dict[str, Any]]:
        folder, runs = sweeps.folder / sweep_id, self._studio.supervisor.runs.folder
        trials = folder / "trials.jsonl"
        mark = tuple(each.stat().st_mtime_ns if each.exists() else 0 for each in (folder, trials, runs))
        before = self._known.get(sweep_id)
        if before is not None and before[0] == mark and before[1]["status"] in ("finished", "stopped", "failed"):
            return before
        return mark, sweepview.line(sweeps.get(sweep_id), sweeps.problem(sweep_id))
