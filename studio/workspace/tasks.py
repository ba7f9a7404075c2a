"""Long questions: each in a worker of its own, with progress, and an end that can be asked for.

In: an op and its question, as the worker wants it. Out: a Task that tells how far it is, and then its result or why
there is none. What is asked isn't known here.
"""

from __future__ import annotations

import itertools
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from studio.core.errors import StudioError
from studio.workspace.pipe import ServePipe

Result: TypeAlias = dict[str, Any]

_AT_ONCE = 2  # tasks that compute at the same time; the others wait their turn
_REMEMBERED = 50
_GRACE = 3.0  # seconds that a cancelled worker has to clear up


@dataclass
class Task:
    """A long question. `done` of `total` as far as they are known; `state` is running, done, failed or cancelled."""

    id: int
    op: str
    name: str
    question: dict[str, Any] = field(repr=False)
    state: str = "running"
    text: str = ""
    done: int | None = None
    total: int | None = None
    result: dict[str, Any] | None = None
    error: str = ""
    hint: str = ""
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    _cancel: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.began

    def cancel(self) -> None:
        """End it; nothing of it is left."""
        self._cancel()


class Tasks:
    """All tasks. `start` starts a worker that answers their questions on a pipe."""

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._start = start
        self._tasks: dict[int, Task] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(_AT_ONCE)
        self._closing = False

    def begin(self, op: str, name: str, question: dict[str, Any], after: Callable[[Result], Result]) -> Task:
        """Put a question; the same one again while it is worked on is the same task. `after` gets the result first."""
        with self._lock:
            for task in self._tasks.values():
                if task.state == "running" and (task.op, task.name, task.question) == (op, name, question):
                    return task
            task = Task(next(self._numbers), op, name, question)
            self._tasks[task.id] = task
            for old in [t.id for t in self._tasks.values() if t.state != "running"][:-_REMEMBERED]:
                del self._tasks[old]
        pipe = ServePipe(self._start)
        task._cancel = lambda: self._end(task, pipe)
        threading.Thread(target=self._work, args=(task, pipe, after), name=f"task {op}", daemon=True).start()
        return task

    def get(self, id: int) -> Task:
        with self._lock:
            found = self._tasks.get(id)
        if found is None:
            raise StudioError("That task is over.", "Start it again.")
        return found

    def of(self, name: str) -> list[Task]:
        """Those about one thing, oldest first."""
        with self._lock:
            return [task for task in self._tasks.values() if task.name == name]

    def close(self) -> None:
        """End them all."""
        self._closing = True
        with self._lock:
            tasks = list(self._tasks.values())
        for task in tasks:
            if task.state == "running":
                task.cancel()

    def _work(self, task: Task, pipe: ServePipe, after: Callable[[Result], Result]) -> None:
        try:
            with self._turns:
                if task.state != "running":
                    return
                for answer in pipe.request(task.op, **task.question):
                    if answer["event"] == "done":
                        result = after({k: v for k, v in answer.items() if k not in ("id", "event")})
                        self._finish(task, "done", result=result)
                    else:
                        task.text, task.done = answer.get("text", ""), answer.get("done")
                        task.total = answer.get("total")
        except StudioError as error:
            self._finish(task, "failed", error=error.message, hint=error.hint)
        except OSError as error:
            self._finish(task, "failed", error=f"It can't be done ({error}).", hint="Look at the disk and try again.")
        finally:
            pipe.close()

    def _finish(self, task: Task, state: str, **fields: Any) -> None:
        with self._lock:
            if task.state == "running":
                for name, value in fields.items():
                    setattr(task, name, value)
                task.ended = time.monotonic()
                task.state = state  # last: who sees it finds the rest

    def _end(self, task: Task, pipe: ServePipe) -> None:
        self._finish(task, "cancelled")
        if pipe.alive and not self._closing:
            pipe.stop()  # it ends at its next word of progress, and `_work` closes the pipe
            deadline = time.monotonic() + _GRACE
            while pipe.alive and time.monotonic() < deadline:
                time.sleep(0.05)
        pipe.close()
