"""Run folders as a worker leaves them, made without one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil

from studio.core.config import RunConfig
from studio.core.configfile import config_to_yaml
from studio.core.events import Ended, Event, Metrics, Stage, to_line
from studio.core.inputs import DatasetInput, Inputs, ModelInput

STARTED = 1_700_000_000.0


def metrics(step: int, **values: float) -> Metrics:
    """A step of a run of 100, two seconds a step."""
    return Metrics(step, 100, step / 50, 2.0 * step, values or {"loss": 3.0 - step / 100}, t=STARTED + 2 * step)


def make_run(runs: Path, run_id: str, *events: Event, label: str = "A run", alive: bool = False) -> Path:
    """A run with these events after its start. `alive`: its worker is the process that runs the tests."""
    folder = runs / run_id
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(config_to_yaml(RunConfig()), encoding="utf-8")
    inputs = Inputs(label, ModelInput("starter", "starter"), DatasetInput("quickstart-sft", "rows.jsonl"))
    (folder / "inputs.json").write_text(inputs.to_json(), encoding="utf-8")
    this = psutil.Process()
    record = {"pid": os.getpid() if alive else 2**22 + 1, "create_time": this.create_time(), "attempt": 1}
    (folder / "process.json").write_text(json.dumps(record), encoding="utf-8")
    add(folder, Stage("starting", "Starting", attempt=1, t=STARTED), *events)
    return folder


def add(folder: Path, *events: Event) -> None:
    """Append events as the worker does."""
    with (folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(to_line(event) for event in events)


def ended(status: str = "finished", cause: str = "") -> Ended:
    return Ended(status, cause, t=STARTED + 300)  # type: ignore[arg-type]
