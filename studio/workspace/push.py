"""An export, put on the Hugging Face hub: by a process of its own, so that it can be ended at any moment.

In: an export's folder, the name of a model on the hub. Out: how far it is, then its address, kept as push.json in the
export's folder of the studio. The token is the hub library's affair: it finds it in the environment or where
`hf auth login` keeps it, and nothing here reads, keeps or shows it. Each file of weights is a commit of its own: a
push that was ended goes on with the first one that the hub doesn't have.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from studio.core.errors import ConfigError, StudioError
from studio.core.job import JobFolder, read_json, write_text
from studio.workspace.launcher import worker_env

_COMMAND = [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", "studio.workspace.pushing"]
# The hub's own rule for names, an owner in front or not.
_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")


@dataclass(frozen=True)
class Push:
    """How a push stands. `done` and `total` in bytes; `file` is what is being sent; `rate`: bytes a second so far."""

    repo: str
    private: bool
    state: str  # running | finished | stopped | failed
    done: int = 0
    total: int = 0
    file: str = ""
    rate: float | None = None
    url: str = ""
    error: str = ""
    hint: str = ""

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.rate else None


@dataclass
class _Work:
    """A push under way."""

    push: Push
    process: subprocess.Popen[bytes]
    stopped: bool = False
    began: float | None = None  # when the first file was begun
    thread: threading.Thread | None = field(default=None, repr=False)


class Pushes:
    """Every push of the exports of one studio. `command` starts the process that sends."""

    def __init__(self, command: Sequence[str] = _COMMAND) -> None:
        self._command = list(command)
        self._work: dict[Path, _Work] = {}
        self._lock = threading.Lock()

    def of(self, folder: JobFolder) -> Push | None:
        """The push of an export: the one under way, else how the last one ended."""
        with self._lock:
            work = self._work.get(folder.path)
        return work.push if work is not None else _kept(folder)

    @property
    def live(self) -> bool:
        with self._lock:
            return any(work.push.state == "running" for work in self._work.values())

    def start(self, folder: JobFolder, source: Path, repo: str, private: bool = True) -> Push:
        """Send the files in `source`. Raises ConfigError for a name that can be none, StudioError while one goes on."""
        repo = repo.strip()
        if not _NAME.fullmatch(repo) or "--" in repo or ".." in repo:
            raise ConfigError(
                "repo",
                f"{repo[:100]!r} can't be a name on the hub.",
                "Give letters, digits, - _ and dots: you/my-model.",
            )
        before = _kept(folder)
        with self._lock:
            known = self._work.get(folder.path)
            if known is not None and known.push.state == "running":
                raise StudioError("This export is being pushed already.", "Cancel that first.")
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=worker_env(),
            )
            work = _Work(Push(repo, private, "running"), process)
            self._work[folder.path] = work
        # A model of this name that is there already is somebody's, unless an earlier push of this export made it.
        ours = before is not None and before.repo == repo and bool(before.url)
        request = {"source": str(source), "repo": repo, "private": private, "ours": ours}
        _tell(process.stdin, request)
        work.thread = threading.Thread(target=self._listen, args=(folder, work), name=f"push {folder.id}", daemon=True)
        work.thread.start()
        return work.push

    def stop(self, folder: JobFolder) -> None:
        """End a push; what the hub has, it keeps, and another push of the same goes on from there."""
        with self._lock:
            work = self._work.get(folder.path)
        if work is not None and work.push.state == "running":
            work.stopped = True
            work.process.kill()

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            folders = [JobFolder(path) for path in self._work]
        for folder in folders:
            self.stop(folder)
            thread = self._work[folder.path].thread
            if thread is not None:
                thread.join(timeout=5)

    def _listen(self, folder: JobFolder, work: _Work) -> None:
        assert work.process.stdout is not None, "it was started with a pipe"
        with work.process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):
                    self._take(folder, work, json.loads(line))
        work.process.wait()
        if work.process.stdin is not None:
            with contextlib.suppress(OSError):
                work.process.stdin.close()
        push = work.push
        if work.stopped:
            push = replace(push, state="stopped")
        elif push.state == "running":
            hint = "Push again: it goes on where it was."
            push = replace(push, state="failed", error="The sending process ended.", hint=hint)
        _keep(folder, push)
        work.push = push

    @staticmethod
    def _take(folder: JobFolder, work: _Work, told: dict[str, Any]) -> None:
        push = replace(work.push, **{key: told[key] for key in told if key in Push.__dataclass_fields__})
        now = time.monotonic()
        if push.total and work.began is None:
            work.began = now
        if push.done and work.began is not None and now > work.began:
            push = replace(push, rate=push.done / (now - work.began))
        made = push.url and not work.push.url
        if made or push.state != "running":  # once made, a model of this name is this export's own
            _keep(folder, push)  # before anybody sees it
        work.push = push


def has_token() -> bool:
    """Whether the hub's library knows a token; which one, nobody asks."""
    from huggingface_hub import get_token

    return get_token() is not None


def _tell(pipe: IO[bytes] | None, request: dict[str, Any]) -> None:
    assert pipe is not None, "it was started with a pipe"
    with contextlib.suppress(OSError):  # it has ended already, and the listener says so
        pipe.write(json.dumps(request).encode() + b"\n")
        pipe.flush()


def _file(folder: JobFolder) -> Path:
    return folder.path / "push.json"


def _keep(folder: JobFolder, push: Push) -> None:
    kept = {key: getattr(push, key) for key in ("repo", "private", "state", "total", "url", "error", "hint")}
    with contextlib.suppress(OSError):
        write_text(_file(folder), json.dumps(kept, ensure_ascii=False))


def _kept(folder: JobFolder) -> Push | None:
    told = read_json(_file(folder))
    if told is None:
        return None
    try:
        push = Push(**told)
    except TypeError:
        return None
    return replace(push, state="stopped") if push.state == "running" else push  # the studio ended under it
