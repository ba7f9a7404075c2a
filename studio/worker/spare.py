"""What a standby worker does with its spare time: it has this machine calibrated, once.

In: where the answer is to lie. Out: a process that measures (`calibrate`) while this one waits, and is ended the moment
there is something else to do. Imports nothing heavy: whoever waits must not be held up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

IDLE = 20.0  # seconds without work before it begins: the first minute with the window open is not a quiet one
BUSY = 0.6  # processors at work beyond which nothing is measured: what trains on a card keeps one of them
_LOOK = 1.0  # seconds over which that is seen


class SpareTime:
    """`wanted(answer)` says whether there is anything to do, `quiet()` whether now is a time for it."""

    def __init__(
        self, answer: Path, wanted: Callable[[Path], bool], quiet: Callable[[], bool] | None = None, idle: float = IDLE
    ) -> None:
        self._answer = answer
        self._wanted = wanted
        self._quiet = quiet or quiet_now
        self._idle = idle
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._wait, name="spare time", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """There is work: whatever is being measured is dropped. Takes some milliseconds."""
        self._ended.set()
        with self._lock:
            if self._child is not None:
                self._child.kill()
                self._child.wait()
                if self._child.stdin is not None:
                    self._child.stdin.close()

    def _wait(self) -> None:
        while not self._ended.wait(self._idle):
            if not self._wanted(self._answer):
                return
            if self._quiet():
                self._start()
                return

    def _start(self) -> None:
        with self._lock:
            if not self._ended.is_set():
                # Its stdin ends with this process, and it with its stdin.
                self._child = subprocess.Popen(
                    [sys.executable, *_isolated(), "-m", "studio.worker", "--calibrate", str(self._answer)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                )


def answer_place() -> Path:
    """Where the calibration's answer lies: the launcher tells its workers which folder is the studio's."""
    return Path(os.environ.get("STUDIO_HOME") or ".") / "calibration.json"


def quiet_now() -> bool:
    """Whether the processors have next to nothing to do."""
    return float(psutil.cpu_percent(_LOOK)) / 100 * (psutil.cpu_count() or 1) < BUSY


def _isolated() -> list[str]:
    return ["-P"] if sys.version_info >= (3, 11) else []  # as the launcher starts workers
