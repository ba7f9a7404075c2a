"""A worker's side of a job: signing for it, saying what it does, hearing a stop, ending in exactly one way.

In: a job folder. Out: process.json, events, one Ended. Knows which kind of job is whose; what a job does is in
`train` and `export`.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from studio.core.errors import StudioError
from studio.core.events import CheckpointSaved, Ended, Event, Metrics, Note, Stage
from studio.core.job import EventLog, EventTail, JobFolder, create_text
from studio.core.progress import Progress
from studio.worker.logfile import cap_log

_SHORTAGES = ("out of memory", "can't allocate memory", "cannot allocate memory")
_STAGE_EVERY = 0.25  # seconds between two reports of the same stage


class Stopped(Exception):
    """The person asked for a stop and the job is in a state that can be left."""


class Job:
    """A job that this process has signed for."""

    def __init__(self, folder: JobFolder, attempt: int) -> None:
        self.folder = folder
        self.attempt = attempt
        self.before = Progress()
        for event in EventTail(folder.events).read():
            self.before.fold(event)
        self.log = EventLog(folder.events)
        self.ended = False
        self.model: Path | None = None  # its folder, once that is here
        self._last_stage = ("", 0.0)

    @classmethod
    def sign(cls, path: Path) -> Job | None:
        """Take the job; None if another worker was first."""
        folder = JobFolder(path)
        attempt = 1 + len(list(path.glob("process-*.json")))
        me = psutil.Process()
        record = {
            "pid": me.pid,
            "create_time": me.create_time(),
            "attempt": attempt,
            "python": sys.version.split()[0],
            "versions": {name: _version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes")},
        }
        return cls(folder, attempt) if create_text(folder.process, json.dumps(record)) else None

    def stop_asked(self) -> bool:
        return self.folder.stop.exists()

    def check_stop(self) -> None:
        """Raises Stopped if a stop was asked for; called wherever leaving is safe."""
        if self.stop_asked():
            raise Stopped

    def stage(self, name: str, text: str, done: int | None = None, total: int | None = None, unit: str = "") -> None:
        """Say what is being done; repeated reports of the same stage are thinned out, the first and last are not."""
        now = time.monotonic()
        if (
            done is not None
            and done != total
            and name == self._last_stage[0]
            and now - self._last_stage[1] < _STAGE_EVERY
        ):
            return
        self._last_stage = (name, now)
        self._append(Stage(name, text, done, total, unit))

    def starting(self, from_step: int) -> None:
        """Open this attempt; what was logged after `from_step` is taken back."""
        self._append(Stage("starting", "Starting", attempt=self.attempt, from_step=from_step))

    def note(self, level: str, text: str) -> None:
        self._append(Note("warning" if level == "warning" else "info", text))

    def metrics(self, event: Metrics) -> None:
        self._append(event)

    def checkpoint(self, step: int, path: str) -> None:
        self._append(CheckpointSaved(step, path))

    def end(self, status: str, cause: str = "", hint: str = "", result: dict[str, Any] | None = None) -> None:
        """The last word; a second one is ignored, so that a finished job is never relabelled."""
        if not self.ended:
            self.ended = True
            self._append(Ended(status, cause, hint, result or {}))  # type: ignore[arg-type]
            self.log.sync()

    def _append(self, event: Event) -> None:
        try:
            self.log.append(event)
        except OSError as error:
            # A point that can't be written is no reason to lose hours of training: the log says so, the work goes on.
            sys.stderr.write(f"event not written ({error}): {event}\n")


def run_job(path: Path) -> int:
    """Do the job in a folder, whichever kind it is. Returns the process's exit code."""
    job = Job.sign(path)
    if job is None:
        sys.stderr.write("another worker has taken this job\n")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: job.folder.stop.touch())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cap_log(job.folder.log)
    try:
        work = _kind(job)
        work(job)
    except Stopped:
        job.end("stopped", "Stopped before there was anything to save.", "Resume starts it again.")
    except StudioError as error:
        traceback.print_exc()
        job.end("failed", error.message, error.hint)
    except BaseException as error:  # noqa: BLE001 - the process's edge: whatever it was, the run must say so
        traceback.print_exc()
        cause, hint = explain(error)
        job.end("failed", cause, _remedies(job, error) or hint)
    return 0 if _ended_well(job) else 1


def _kind(job: Job) -> Callable[[Job], None]:
    if job.folder.export_config.exists():
        from studio.worker.export.run import export

        return export
    from studio.worker.train import train

    return train


def _ended_well(job: Job) -> bool:
    progress = Progress()
    for event in EventTail(job.folder.events).read():
        progress.fold(event)
    return progress.ended is not None and progress.ended.status != "failed"


def explain(error: BaseException) -> tuple[str, str]:
    """An error that is no StudioError, as a cause and a next step in plain words."""
    name, text = type(error).__name__, " ".join(str(error).split())[:300]
    if _is_shortage(error):
        return (
            "The memory wasn't enough (out of memory).",
            "Lower the batch size or the longest row, switch gradient checkpointing on, or train a 4-bit base; "
            "the last checkpoint is kept.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "The disk is full.", "Free some space and resume; the last complete checkpoint is kept."
    if isinstance(error, FileNotFoundError):
        return f"A file is gone: {error.filename or text}.", "Put it back and resume, or start again."
    return f"{name}: {text}" if text else name, "The log has the details."


def _remedies(job: Job, error: BaseException) -> str:
    """What would make a training run fit, if that was the trouble."""
    if not _is_shortage(error) or not job.folder.run_config.exists():
        return ""
    from studio.worker.shortage import remedies

    return remedies(job.folder, job.model)


def _is_shortage(error: BaseException) -> bool:
    """Whether memory ran out: torch on a card, Python, or torch on a processor."""
    named = type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError)
    return named or any(words in str(error).lower() for words in _SHORTAGES)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def peak_rss() -> int:
    """The largest resident set this process has had, in bytes (the present one where the system doesn't keep count)."""
    if os.name == "posix":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return int(psutil.Process().memory_info().rss)
