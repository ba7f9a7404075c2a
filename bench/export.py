"""Merging a run into its base: seconds and memory, against copying the same file."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

from bench.rows import Row
from studio.core.config import ExportConfig
from studio.core.configfile import load_config
from studio.workspace.follow import follow_export, wait_until_ended
from studio.workspace.home import bundled
from studio.workspace.supervisor import Supervisor

_ROUNDS = 3


def measure(home: Path) -> list[Row]:
    supervisor = Supervisor()
    preset = bundled("presets") / "quickstart.yaml"
    shorten = ["training.max_steps=1", "dataset.validation_split=0", "dataset.max_samples=16"]
    run_id = supervisor.submit(load_config(preset, shorten))
    run = wait_until_ended(supervisor, run_id)
    assert run.output is not None, run.state.cause
    seconds, peaks, copies = [], [], []
    for number in range(_ROUNDS):
        began = time.monotonic()
        shutil.copyfile(home / "models" / "starter" / "model.safetensors", home / "copy")
        copies.append(time.monotonic() - began)
        job = supervisor.export(ExportConfig(run=run_id, out=str(home / f"merged-{number}")))
        job = follow_export(supervisor, job, lambda text: None)
        seconds.append(float(job.result["seconds"]))
        peaks.append(float(job.result["peak_rss"]))
    supervisor.close()
    took, copied = statistics.median(seconds), statistics.median(copies)
    return [
        Row("export merged, inside the worker", took, "s", "copying the file (cached)", took / copied),
        Row("export merged, peak memory of its process", statistics.median(peaks) / 1e6, "MB"),
    ]
