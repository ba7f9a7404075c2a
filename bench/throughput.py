"""Tokens a second of a real run against a bare PyTorch loop over the very same batches, alternating."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.rows import Row
from studio.core.configfile import load_config
from studio.workspace.home import bundled
from studio.workspace.launcher import worker_env
from studio.workspace.supervisor import Supervisor

_ROUNDS = 3
_STEPS = 12


def measure(home: Path) -> list[Row]:
    speeds: dict[str, list[float]] = {"worker": [], "compact": [], "full": []}
    peak = 0.0
    run_id = ""
    for _ in range(_ROUNDS):
        run_id, steps, peak = _worker_run()
        speeds["worker"] += steps
        for variant in ("compact", "full"):
            speeds[variant] += _bare(home / "runs" / run_id, variant)
    ours, compact, full = (statistics.median(speeds[name]) for name in ("worker", "compact", "full"))
    note = f"median over {_ROUNDS} x {_STEPS - 1} steps of the quickstart"
    return [
        Row("training, worker", ours, "tokens/s", "bare loop, same arithmetic", ours / compact, note),
        Row("training, bare loop, head on label positions only", compact, "tokens/s"),
        Row("training, bare loop, head on every position", full, "tokens/s", "worker", full / ours),
        Row("training, worker's peak memory", peak / 1e6, "MB"),
    ]


def _worker_run() -> tuple[str, list[float], float]:
    supervisor = Supervisor()
    preset = bundled("presets") / "quickstart.yaml"
    overrides = [f"training.max_steps={_STEPS}", "dataset.validation_split=0", "training.save_steps=1000"]
    run_id = supervisor.submit(load_config(preset, overrides))
    while len(supervisor.runs.get(run_id).progress.series.get("loss", ())) < _STEPS:
        time.sleep(0.2)
        if not supervisor.runs.get(run_id).live:
            break
    supervisor.runs.get(run_id).folder.stop.touch()  # the held-out questions aren't part of it
    while supervisor.runs.get(run_id).live:
        time.sleep(0.2)
    run = supervisor.runs.get(run_id)
    supervisor.close()
    assert run.progress.ended is not None, run.state.cause
    steps = [value for step, value in run.progress.series["tokens_per_second"] if step > 1]
    return run_id, steps, float(run.progress.ended.result["peak_rss"])


def _bare(run: Path, variant: str) -> list[float]:
    command = [sys.executable, "-m", "bench.bare", str(run), variant, str(_STEPS)]
    done = subprocess.run(command, env=worker_env(), capture_output=True, text=True, check=True)
    return [float(value) for value in json.loads(done.stdout.splitlines()[-1])]
