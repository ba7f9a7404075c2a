"""What the card "Will it fit?" asks: a forecast of the form as it stands, which methods fit, and the exact trace.

In: the form's values by the controls' names, and a card that one might have instead of this machine's. Out: JSON for
the page's script. The first answer takes some milliseconds and never waits for the hub or for rows to be counted;
`more` asks for what takes many estimates.
"""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from studio.core.config import RunConfig
from studio.core.errors import ConfigError, StudioError
from studio.core.forecast import Forecast, forecast
from studio.core.schedule import optimizer_steps
from studio.ui import choices, exportplanview, fitmend, fitview, form, plan, shown
from studio.ui.api import Nothing, answer
from studio.ui.context import Studio
from studio.ui.text_fit import say
from studio.workspace.estimating import Estimating, ShapeState
from studio.workspace.hardware import read_machine
from studio.workspace.tasks import Task

_MODEL = "model.name_or_path"
_REMEMBERED = 20  # exact traces whose answers can still be asked for


class Asked(BaseModel):
    """The form, and on what: `card` in GB of 2^30 bytes, None for this machine."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, Any] = Field(max_length=500)
    card: float | None = Field(None, gt=0, le=10_000)
    more: bool = False


class AskedOf(Asked):
    """The same form with another model; empty for the form's own."""

    model: str = Field("", max_length=4000)


def router(studio: Studio) -> APIRouter:
    """All routes under /api/estimate."""
    api = APIRouter(prefix="/api/estimate")
    _add_card(api, studio)
    _add_methods(api, studio)
    _add_exact(api, studio)
    return api


def _add_card(api: APIRouter, studio: Studio) -> None:
    @api.post("")
    def estimate(body: Asked) -> Response:
        """`state`: ready, or busy, unknown, invalid with a sentence. `again`: something is still being found out."""
        began = time.perf_counter()
        told = _told(studio, body)
        return answer({**told, "took": round(1000 * (time.perf_counter() - began), 1)})

    @api.get("/here")
    def here() -> Response:
        """What this machine is called in the list of cards."""
        gpus = read_machine(studio.home).gpus
        name = gpus[0].name.removeprefix("NVIDIA ").removeprefix("GeForce ") if len(gpus) == 1 else ""
        name = name or ("" if gpus else "RAM")
        named = say("fit.card.here.named", name=shown.plain(name, 40))
        return answer({"label": named if name else say("fit.card.here")})


def _told(studio: Studio, body: Asked) -> dict[str, Any]:
    try:
        config = _config(body.values)
    except ConfigError:  # said at its field
        return {"state": "invalid"}
    estimating, name = studio.estimating, shown.plain(config.model.name_or_path, 60)
    if estimating is None:
        return {"state": "unknown", "text": say("fit.unavailable"), "note": ""}
    merge = exportplanview.later(config, estimating)
    try:
        shape = estimating.shape_soon(*_named(config))
        if shape.shape is None:
            return {"again": shape.busy, "merge": merge, **_shapeless(name, shape)}
        lengths = estimating.lengths_soon(config)
        found = estimating.forecast(config, _bytes(body.card))
        told = {"state": "ready", "again": lengths.busy, "merge": merge}
        told |= fitview.card(found, lengths, _steps(found))
        if body.more:
            told["more"] = fitmend.more(found)
        here = found if body.card is None else estimating.forecast(config)
        return {**told, "here": here.verdict}
    except StudioError as error:
        return {"state": "unknown", "text": say("fit.unknown"), "note": _plain(str(error))}


def _shapeless(name: str, state: ShapeState) -> dict[str, Any]:
    """What is said of a model whose shape isn't known, or not yet."""
    if state.busy:
        return {"state": "fetching", "text": say("fit.fetching", model=name), "note": say("fit.fetching.note")}
    return {"state": "unknown", "text": say("fit.unknown"), "note": _plain(state.problem)}


def _plain(problem: str) -> str:
    """A sentence of core's without the name of the knob that it is about: it stands at the card, not in a terminal."""
    sentence = problem.removeprefix(f"{_MODEL}: ")
    return f"{sentence[:1].upper()}{sentence[1:]}"


def _steps(found: Forecast) -> int | None:
    """Optimizer steps; while rows are being counted in tokens, by the rows there are."""
    if found.steps is not None:
        return found.steps
    config = found.config
    rows = choices.rows_of_named(config.dataset.path)
    return None if rows is None else optimizer_steps(config, plan.split(config, rows)[0])


def _config(values: dict[str, Any]) -> RunConfig:
    """The form's config; a control that isn't named is as by default. Raises ConfigError."""
    known = {name: value for name, value in values.items() if name in form.NAMES}
    return form.to_config({**form.to_values(RunConfig()), **known})


def _bytes(card: float | None) -> int | None:
    return None if card is None else int(card * fitview.GB)


# -- which methods fit ------------------------------------------------------------------------------------------------


def _add_methods(api: APIRouter, studio: Studio) -> None:
    @api.get("/models")
    def models() -> Response:
        """The models to choose from, and the ways to train each. Those that aren't `here` are asked for on request."""
        named = [{"title": label, "name": name, "here": True} for label, name in choices.models()]
        named += [{"title": label, "name": name, "here": False} for label, name in choices.models_of_presets()]
        return answer({"models": named, "methods": [fitmend.adapter_title(kind) for kind in form.ADAPTERS]})

    @api.post("/methods")
    def methods(body: AskedOf) -> Response:
        """For each way to train a model, whether it fits; `busy` while its shape is being fetched."""
        if studio.estimating is None:
            return answer({"methods": [], "busy": False})
        try:
            found, busy = _methods(studio.estimating, body)
        except StudioError:
            found, busy = [], False
        return answer({"methods": found, "busy": busy})


def _methods(estimating: Estimating, body: AskedOf) -> tuple[list[dict[str, str]], bool]:
    """Rows are as long for every model as they are for the form's: counting them anew for each would take long."""
    config, memory = _config(body.values), _bytes(body.card)
    state = estimating.shape_soon(body.model) if body.model else estimating.shape_soon(*_named(config))
    if state.shape is None:
        return [], state.busy
    known, told = estimating.lengths_soon(config), []
    for kind in form.ADAPTERS:
        changed = _config({**body.values, form.ADAPTER: kind})
        device, correction = estimating.device(changed, memory), estimating.correction(changed, memory)
        found = forecast(
            changed, state.shape, lengths=known.lengths, rows=known.rows, device=device, correction=correction
        )
        told.append({"kind": kind, "title": fitmend.adapter_title(kind), **fitview.method(found)})
    return told, False


def _named(config: RunConfig) -> tuple[str, str | None]:
    return config.model.name_or_path, config.model.revision


# -- the exact trace --------------------------------------------------------------------------------------------------


def _add_exact(api: APIRouter, studio: Studio) -> None:
    begun: dict[str, tuple[Task, int]] = {}

    @api.post("/exact")
    def begin(body: Asked) -> Response:
        if studio.estimating is None:
            raise StudioError(say("fit.unavailable"), "")
        config, memory = _config(body.values), _bytes(body.card)
        instant = studio.estimating.forecast(config, memory).device
        task = studio.estimating.exact_soon(config, memory)
        begun[str(task.id)] = task, instant
        for old in list(begun)[:-_REMEMBERED]:
            del begun[old]
        return answer(_traced(task, instant))

    @api.get("/exact/{number}")
    def look(number: str) -> Response:
        return answer(_traced(*_of(number)))

    @api.post("/exact/{number}/stop")
    def stop(number: str, body: Nothing) -> Response:
        task, instant = _of(number)
        task.cancel()
        return answer(_traced(task, instant))

    def _of(number: str) -> tuple[Task, int]:
        if number not in begun:
            raise StudioError(say("fit.exact.failed"), "")
        return begun[number]


def _traced(task: Task, instant: int) -> dict[str, Any]:
    """A trace as the card shows it: how far it is, and then its answer beside the instant one."""
    text = task.text or say("fit.exact.now")
    if task.state == "done" and task.result:
        exact = int(task.result["device"])
        error = fitview.signed((instant - exact) / exact)
        text = say("fit.exact.result", exact=fitview.gb(exact), instant=fitview.gb(instant), error=error)
    elif task.state == "failed":
        text = f"{task.error} {task.hint}".strip() or say("fit.exact.failed")
    elif task.state == "cancelled":
        text = say("fit.exact.stopped")
    return {"id": str(task.id), "state": task.state, "text": text, "done": task.done, "total": task.total}
