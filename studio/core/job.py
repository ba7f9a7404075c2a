"""A job is a folder: these are the files in it, and how its events are appended and read on.

In: a path. Out: names of files; events by byte offset. A torn last line is held back until it is whole. Knows nothing
of processes: who is alive is the workspace's to say.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.events import Event, from_line, to_line


@dataclass(frozen=True)
class JobFolder:
    """The names of the files in a job's folder. A run has run.yaml, an export has export.yaml."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def run_config(self) -> Path:
        return self.path / "run.yaml"

    @property
    def export_config(self) -> Path:
        return self.path / "export.yaml"

    @property
    def inputs(self) -> Path:
        """What the names in the config meant when the job was submitted (`Inputs` as JSON)."""
        return self.path / "inputs.json"

    @property
    def process(self) -> Path:
        """pid, create_time, attempt, versions, device; made exclusively by the worker as its first act."""
        return self.path / "process.json"

    @property
    def exit(self) -> Path:
        """How the worker's process ended, written by whoever was its parent: exit code, forced or not."""
        return self.path / "exit.json"

    @property
    def estimate(self) -> Path:
        """What was forecast when the run was submitted; missing where nothing could be."""
        return self.path / "estimate.json"

    @property
    def memory(self) -> Path:
        """What the worker measured of itself: memory at each step of the ladder, pace, energy."""
        return self.path / "memory.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def stop(self) -> Path:
        return self.path / "stop"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def model(self) -> Path:
        return self.path / "model"


def write_text(path: Path, text: str) -> None:
    """Publish a small file whole: temporary name, fsync, rename. Readers see the old one or the new one."""
    temporary = _temporary(path)
    try:
        _write_through(temporary, text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def create_text(path: Path, text: str) -> bool:
    """Make a file that must not exist yet, whole from its first moment; False if someone else was first."""
    temporary = _temporary(path)
    try:
        _write_through(temporary, text)
        return _link(temporary, path, text)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path, text: str) -> bool:
    try:
        os.link(temporary, path)  # as exclusive as O_EXCL, and never seen half-written
        return True
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links (exFAT, some network shares)
        return _create_exclusively(path, text)


def _temporary(path: Path) -> Path:
    """A name beside `path` that no other process and no other thread of this one uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def _write_through(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _create_exclusively(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        return True
    except FileExistsError:
        return False


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a small JSON file; None if it isn't there or is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


class EventLog:
    """Appends events, one whole line a write. Only the job's worker holds one.

    A line that a killed predecessor left torn is closed first, so that it spoils nothing but itself.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        if size and not _ends_with_newline(path, size):
            os.write(self._file, b"\n")

    def append(self, event: Event) -> None:
        """Append one event. Raises OSError when the disk is full: the caller decides whether to go on."""
        line = to_line(event).encode()
        written = os.write(self._file, line)
        if written < len(line):
            with contextlib.suppress(OSError):
                os.write(self._file, b"\n")
            raise OSError(28, "the event log took only part of a line")

    def sync(self) -> None:
        """Wait until what was appended is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def _ends_with_newline(path: Path, size: int) -> bool:
    with path.open("rb") as file:
        file.seek(size - 1)
        return file.read(1) == b"\n"


class EventTail:
    """Reads events on from a byte offset; `offset` always stands at the start of a line.

    A last line without its newline is still being written: it is left for the next read. Lines that hold no event are
    counted in `damaged` and passed over.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self.damaged = 0

    def read(self) -> Iterator[Event]:
        """The events that have become whole since the last read."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            if size < self.offset:  # another file by the same name: begin again
                self.offset = 0
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                event = from_line(line)
                if event is not None:
                    yield event
                elif line.strip():
                    self.damaged += 1
