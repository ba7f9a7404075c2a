"""From Start to the end of the first optimizer step: a cold worker, and the standby."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import NamedTuple

from bench.rows import Row
from studio.core.configfile import load_config
from studio.core.events import Event, Metrics, Stage
from studio.core.job import EventTail
from studio.workspace.home import bundled
from studio.workspace.supervisor import Supervisor

_ROUNDS = 3
_IMPORTS = 15.0  # seconds to let a standby finish its imports


def measure(home: Path) -> list[Row]:
    found: dict[bool, list[Moments]] = {False: [], True: []}
    for _ in range(_ROUNDS):
        for standby in (False, True):
            supervisor = Supervisor(standby=standby)
            supervisor.launcher.prepare()
            time.sleep(_IMPORTS if standby else 0)
            found[standby].append(_one(supervisor))
            supervisor.close()
    cold, warm = (Moments(*map(statistics.median, zip(*found[kind], strict=True))) for kind in (False, True))
    return [
        Row("Start to first optimizer step begun, cold worker", cold.begun, "s", note=f"median of {_ROUNDS}"),
        Row("Start to first optimizer step begun, standby", warm.begun, "s", "cold", warm.begun / cold.begun),
        Row("  of which loading the model", warm.loading, "s"),
        Row(
            "Start to first optimizer step done, cold worker", cold.done, "s", note="the step: 8 rows, some 700 tokens"
        ),
        Row("Start to first optimizer step done, standby", warm.done, "s", "cold", warm.done / cold.done),
    ]


class Moments(NamedTuple):
    """Seconds from Start to the first step's beginning and end, and of loading the model in between."""

    begun: float
    done: float
    loading: float


def _one(supervisor: Supervisor) -> Moments:
    preset = bundled("presets") / "quickstart.yaml"
    config = load_config(preset, ["training.max_steps=1", "dataset.validation_split=0"])
    began = time.time()
    run_id = supervisor.submit(config)
    tail = EventTail(supervisor.runs.job(run_id).events)
    events: list[Event] = []
    while not any(isinstance(event, Metrics) for event in events):
        events += tail.read()
        time.sleep(0.01)
    done = next(event.t for event in events if isinstance(event, Metrics))
    at = {event.name: event.t for event in reversed(events) if isinstance(event, Stage)}
    supervisor.stop(run_id) if supervisor.runs.get(run_id).live else None
    while supervisor.runs.get(run_id).live:
        time.sleep(0.1)
    return Moments(at["train"] - began, done - began, at["trainer"] - at["model"])
