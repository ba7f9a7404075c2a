"""How a search for better settings stands: a line of the list, or all its trials with the axes of their picture.

In: a sweep of the workspace, and why it couldn't go on. Out: plain dicts for the page's scripts. Names and problems are
given as text; the page sets them as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from studio.core.sweep import Trial, Vary
from studio.ui import shown
from studio.ui.sweepwish import variable
from studio.ui.text_sweep import say
from studio.workspace.sweeps import Sweep


def line(sweep: Sweep, problem: str) -> dict[str, Any]:
    """A search as one line of the list. `runs` are its trials' runs in their order."""
    best = sweep.best
    ended = sum(trial.outcome != "running" for trial in sweep.trials)
    status = sweep.status
    if status == "stopped":
        status = "stopping" if ended < len(sweep.trials) else "failed" if problem else "stopped"
    return {
        "id": sweep.id,
        "name": sweep.config.name or _unnamed(sweep),
        "status": status,
        "ended": ended,
        "trials": sweep.config.trials,
        "best": None if best is None else best.value,
        "metric": sweep.config.metric,
        "figure": figure_title(sweep.config.metric),
        "problem": problem if status in ("failed", "waiting") else "",
        "runs": [trial.run_id for trial in sweep.trials],
    }


def _unnamed(sweep: Sweep) -> str:
    """What a search is called that nobody gave a name: its model, and the arguments that vary."""
    model = PurePath(sweep.config.base.model.name_or_path).name
    return f"{model}: {', '.join(vary.path.rpartition('.')[2] for vary in sweep.config.ranges)}"


def opened(sweep: Sweep, problem: str) -> dict[str, Any]:
    """A search with all its trials, and the axes of their picture."""
    config = sweep.config
    known = {knob["path"]: knob for knob in variable(config.base)}
    return {
        **line(sweep, problem),
        "maximize": config.maximize,
        "prune": config.prune,
        "model": config.base.model.name_or_path,
        "dataset": config.base.dataset.label,
        "method": config.base.method.name,
        "best_trial": None if sweep.best is None else sweep.best.number,
        "axes": [_axis(vary, known.get(vary.path, {})) for vary in config.ranges],
        "rows": [_trial(trial) for trial in sweep.trials],
    }


def figure_title(metric: str) -> str:
    """A figure's plain name; the command line takes any, and one that isn't known here goes by its own."""
    try:
        return say(f"sweep.figure.{metric}")
    except KeyError:
        return shown.plain(metric, 60)


def _axis(vary: Vary, knob: Mapping[str, Any]) -> dict[str, Any]:
    name = vary.path.rpartition(".")[2]
    return {
        "path": vary.path,
        "title": knob.get("title", name),
        "name": name,
        "low": vary.low,
        "high": vary.high,
        "log": vary.log,
        "whole": vary.whole,
        "choices": list(vary.choices),
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "run": trial.run_id,
        "values": dict(trial.values),
        "outcome": trial.outcome,
        "value": trial.value,
    }
