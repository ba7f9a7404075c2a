"""An export job: which run, to what, where; checked, written beside the target, then given its name.

In: a Job whose folder holds export.yaml, inputs.json and source.json. Out: the target folder, progress events, one
Ended with path, bytes, seconds and the peak of memory. How a format is written is in its module.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from studio.core.config import ExportConfig
from studio.core.configfile import parse_as, read_yaml
from studio.core.errors import RunError, TargetError
from studio.core.inputs import Inputs
from studio.core.job import read_json
from studio.worker.checkpoints import publish_folder
from studio.worker.export.adapter import copy_adapter
from studio.worker.export.merge import write_merged
from studio.worker.export.source import Source
from studio.worker.job import Job, Stopped, peak_rss
from studio.worker.models import fetch

WRITERS: dict[str, Callable[[Source, Path], None]] = {"adapter": copy_adapter, "merged": write_merged}


def export(job: Job) -> None:
    """Do the export. Raises StudioError, Stopped; a target that isn't there whole isn't there at all."""
    job.starting(0)
    began = time.monotonic()
    config = parse_as(ExportConfig, read_yaml(job.folder.export_config))
    inputs = Inputs.read(job.folder.inputs)
    where = read_json(job.folder.path / "source.json")
    if where is None or not Path(where["output"]).is_dir():
        raise RunError("The run's output is gone.", "Resume or repeat the run.")
    base = fetch(inputs.model, lambda text, done, total: job.stage("fetch", text, done, total, "bytes"))

    def report(text: str, done: int, total: int) -> None:
        job.check_stop()
        job.stage("write", text, done, total, "bytes")

    target = Path(config.out)
    source = Source(base, Path(where["output"]), config.dtype, report)
    _check_space(target, source.bytes_to_write(config.format))
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.partial-{job.folder.id}")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        WRITERS[config.format](source, staging)
        job.check_stop()
        _publish(staging, target)
    except Stopped:
        job.end("stopped", "Cancelled; nothing was written.")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if not job.ended:
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
        seconds = round(time.monotonic() - began, 3)
        job.end("finished", result={"path": str(target), "bytes": size, "seconds": seconds, "peak_rss": peak_rss()})


def _publish(staging: Path, target: Path) -> None:
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise TargetError(f"{target} exists and isn't empty.", "Give a new or an empty folder.")
    if target.is_dir():
        target.rmdir()  # empty: what is renamed there must be all that is there
    publish_folder(staging, target)


def _check_space(target: Path, needed: int) -> None:
    place = next(parent for parent in (target, *target.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed * 1.02 + 2**20:
        raise TargetError(
            f"{place} has {free / 1e9:.1f} GB free, and the export needs {needed / 1e9:.1f} GB.",
            "Free some space, or give a folder on another disk.",
        )
