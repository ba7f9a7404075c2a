"""Keeps worker.log from filling the disk.

In: the path of a log that this process's stdout and stderr append to. Out: nothing; once the log passes its size, its
older part is dropped in place. A file, not a pipe, so that no reader is ever needed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

LARGEST = 16 * 2**20
KEPT = 2 * 2**20


def cap_log(path: Path, every: float = 2.0) -> None:
    """Watch the log from a daemon thread, looking each `every` seconds."""

    def watch() -> None:
        while True:
            time.sleep(every)
            with contextlib.suppress(OSError):
                trim(path)

    threading.Thread(target=watch, name="log cap", daemon=True).start()


def trim(path: Path) -> None:
    """If the log is over LARGEST, keep its last KEPT bytes from a line's start on."""
    if path.stat().st_size <= LARGEST:
        return
    with path.open("r+b") as file:  # truncating in place: the writers append, so their next line lands at the new end
        file.seek(-KEPT, 2)
        file.readline()
        rest = file.read()
        file.seek(0)
        file.write(b"[older lines dropped]\n" + rest)
        file.truncate()
