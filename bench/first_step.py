"""From Start to the end of the first optimizer step: a cold worker, and the standby."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bench.rows import Row
from studio.core.configfile import load_config
from studio.core.events import Event, Metrics, Stage
from studio.core.job import EventTail
from studio.workspace.home import bundled
from studio.workspace.supervisor import Supervisor

_ROUNDS = 3
_IMPORTS = 15.0  # seconds to let a standby finish its imports


def measure(home: Path) -> list[Row]:
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for _ in range(_ROUNDS):
        for standby in (False, True):
            supervisor = Supervisor(standby=standby)
            supervisor.launcher.prepare()
            time.sleep(_IMPORTS if standby else 0)
            found[standby].append(_one(supervisor))
            supervisor.close()
    cold, warm = (statistics.median(total for total, _ in found[kind]) for kind in (False, True))
    load = statistics.median(seconds for _, seconds in found[True])
    return [
        Row("Start to first optimizer step, cold worker", cold, "s", note=f"median of {_ROUNDS}"),
        Row("Start to first optimizer step, standby worker", warm, "s", "cold", warm / cold),
        Row("  of which loading the model", load, "s"),
    ]


def _one(supervisor: Supervisor) -> tuple[float, float]:
    """Seconds to the first step, and of loading the model."""
    preset = bundled("presets") / "quickstart.yaml"
    config = load_config(preset, ["training.max_steps=1", "dataset.validation_split=0"])
    began = time.time()
    run_id = supervisor.submit(config)
    tail = EventTail(supervisor.runs.job(run_id).events)
    events: list[Event] = []
    while not any(isinstance(event, Metrics) for event in events):
        events += tail.read()
        time.sleep(0.01)
    step = next(event.t for event in events if isinstance(event, Metrics))
    stages = [event for event in events if isinstance(event, Stage)]
    load = next(s.t for s in stages if s.name == "trainer") - next(s.t for s in stages if s.name == "model")
    supervisor.stop(run_id) if supervisor.runs.get(run_id).live else None
    while supervisor.runs.get(run_id).live:
        time.sleep(0.1)
    return step - began, load
