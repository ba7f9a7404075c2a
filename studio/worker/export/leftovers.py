"""The hidden folders that exports are written in before they get their name, and what killed ones leave of them.

In: a target, a job's id; the folder of all export jobs. Out: a staging folder's name; leftovers removed. Only what a
known export job left, whose process is gone, is ever touched.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import psutil

from studio.core.job import JobFolder, read_json

_NAME = re.compile(r"\..+\.partial-(?P<job>[^/]+)")


def staging_for(target: Path, job_id: str) -> Path:
    """Where an export is written: beside the target, so that giving it its name is one rename."""
    return target.with_name(f".{target.name}.partial-{job_id}")


def clear_leftovers(place: Path, jobs: Path) -> None:
    """Remove what killed exports left in `place`."""
    if not place.is_dir():
        return
    for path in place.glob(".*.partial-*"):
        match = _NAME.fullmatch(path.name)
        if match and path.is_dir() and not path.is_symlink() and _has_ended(jobs / match["job"]):
            shutil.rmtree(path, ignore_errors=True)


def _has_ended(folder: Path) -> bool:
    job = JobFolder(folder)
    record = read_json(job.process)
    if record is None or not job.export_config.is_file():
        return False
    try:
        process = psutil.Process(int(record["pid"]))
        return abs(process.create_time() - float(record["create_time"])) > 1.0
    except psutil.NoSuchProcess:
        return True
    except (KeyError, ValueError, TypeError, psutil.Error):
        return False
