"""Starting worker processes: cold, or from a standby that has its libraries imported already.

In: a job folder, or the wish for a serve worker. Out: a `Popen`. Workers are told apart from the studio: a session of
their own, so that the studio's end is not theirs, and an environment in which training is fast. What they do is not
known here.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from studio.workspace.home import home

# glibc hands large blocks back to the system at every step, which made training on a CPU 1.25-4 times slower in
# measurements (docs/LOG.md); keeping them costs nothing but the peak that was reached anyway.
_MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**26),
}
# OpenMP's threads wait for one another by spinning for milliseconds; beside a busy browser on the same cores that made
# steps over ten times slower. After some ten microseconds of it they now sleep (docs/LOG.md).
_OPENMP = {"GOMP_SPINCOUNT": "10000"}


# Without -P, Python would import a `json.py` that happens to lie in the working folder.
_ISOLATED = ["-P"] if sys.version_info >= (3, 11) else []


def worker_env() -> dict[str, str]:
    """The environment of a worker; what the user has set already wins."""
    ours = {
        **_MALLOC,
        **_OPENMP,
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "BITSANDBYTES_NOWELCOME": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    return {**ours, **os.environ, "STUDIO_HOME": str(home())}


def _spawn(
    arguments: list[str], stdin: int, stdout: int | IO[bytes], stderr: int | IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *_ISOLATED, "-m", "studio.worker", *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=worker_env(),
        cwd=home(),
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


class Launcher:
    """Starts workers; keeps one standby ready where `standby` is True. Safe to use from several threads."""

    def __init__(self, standby: bool) -> None:
        self._wanted = standby
        self._standby: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Start a standby if one is wanted and none is there. Its imports take some seconds, in the background."""
        with self._lock:
            if self._wanted and (self._standby is None or self._standby.poll() is not None):
                with (home() / "standby.log").open("wb") as log:
                    self._standby = _spawn(["--standby"], subprocess.PIPE, subprocess.PIPE, log)

    def job(self, folder: Path) -> subprocess.Popen[bytes]:
        """A worker for a job folder. Its output goes to the job's worker.log, never into a pipe."""
        process = self._take({"job": str(folder)})
        if process is None:
            with (folder / "worker.log").open("ab") as log:
                return _spawn([str(folder)], subprocess.DEVNULL, log, log)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        """A worker that answers requests on its stdin, a JSON object a line, on its stdout; it ends with its stdin."""
        process = self._take({"serve": True})
        if process is not None:
            return process
        with (home() / "serve.log").open("wb") as log:
            return _spawn(["--serve"], subprocess.PIPE, subprocess.PIPE, log)

    def data(self) -> subprocess.Popen[bytes]:
        """A worker that answers questions about datasets, on the same kind of pipe. It starts without torch."""
        with (home() / "data.log").open("ab") as log:
            return _spawn(["--data"], subprocess.PIPE, subprocess.PIPE, log)

    def trace(self) -> subprocess.Popen[bytes]:
        """A worker that goes through a training step without numbers, asked on the same kind of pipe."""
        with (home() / "trace.log").open("ab") as log:
            return _spawn(["--trace"], subprocess.PIPE, subprocess.PIPE, log)

    def close(self) -> None:
        """End the standby; workers at work go on."""
        with self._lock:
            self._wanted = False
            process, self._standby = self._standby, None
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout) if process else ():
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _take(self, task: dict[str, object]) -> subprocess.Popen[bytes] | None:
        with self._lock:
            process, self._standby = self._standby, None
        if process is None or process.poll() is not None or process.stdin is None:
            return None
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            process.kill()
            process.wait()
            return None
        return process
