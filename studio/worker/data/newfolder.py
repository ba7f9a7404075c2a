"""A new folder of rows, there whole or not at all.

In: where it shall be. Out: a place to write into, which gets that name once all is written. Touches nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from studio.core.errors import TargetError
from studio.worker.checkpoints import publish_folder


@contextmanager
def published(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` at the end, whole; nothing is left of it where that isn't reached."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise TargetError(f"{out} is there already.", "Give the new dataset another name.")
    out.parent.mkdir(parents=True, exist_ok=True)
    for old in out.parent.glob(f".{out.name}.partial-*"):  # left by processes that were killed
        number = old.name.rpartition("-")[2]
        if number.isdigit() and (int(number) == os.getpid() or not psutil.pid_exists(int(number))):
            shutil.rmtree(old, ignore_errors=True)
    staging = out.with_name(f".{out.name}.partial-{os.getpid()}")
    staging.mkdir()
    try:
        yield staging
        if out.is_dir():
            out.rmdir()  # empty: what is renamed there must be all that is there
        publish_folder(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
