"""The near end of the pipe to a worker that answers requests.

In: an op and its fields. Out: the worker's answers, part by part. The worker is started at the first request and ends
with the studio, or when the pipe is closed; what it computes is its own affair.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from studio.core.errors import StudioError, WorkerError

_Answers: TypeAlias = dict[int, "queue.Queue[dict[str, Any]]"]


class ServePipe:
    """One worker, started by `start` at the first request, and the requests to it.

    A request that comes while another is answered waits its turn.
    """

    def __init__(self, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: _Answers = {}  # who waits for the present worker; each worker has its own
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def request(self, op: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Parts as they come, then the last answer.

        Raises StudioError with the worker's own words, WorkerError if it died.
        """
        number, answers = next(self._numbers), queue.Queue[dict[str, Any]]()
        with self._lock:
            process = self._running()
            waiting = self._answers
            waiting[number] = answers
        try:
            with self._lock:
                self._write(process, {"id": number, "op": op, **fields})
            while True:
                answer = answers.get()
                if answer["event"] == "error":
                    raise StudioError(answer["message"], answer.get("hint", ""))
                if answer["event"] == "died":
                    raise WorkerError("The model's process ended.", "Try again; the memory may not have been enough.")
                yield answer
                if answer["event"] == "done":
                    return
        finally:
            waiting.pop(number, None)

    def stop(self) -> None:
        """End the answer that is being given."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._write(self._process, {"op": "stop"})

    def close(self) -> None:
        """End the worker; its memory is free when this returns."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process, self._answers = self._start(), {}
            threading.Thread(
                target=self._listen, args=(self._process, self._answers), name="serve pipe", daemon=True
            ).start()
        return self._process

    @staticmethod
    def _write(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
        assert process.stdin is not None, "a serve worker is started with a pipe"
        try:
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
        except (OSError, ValueError):  # a ValueError where the pipe has been closed
            raise WorkerError("The model's process ended.", "Try again.") from None

    def _listen(self, process: subprocess.Popen[bytes], waiting: _Answers) -> None:
        assert process.stdout is not None, "a serve worker is started with a pipe"
        with process.stdout as lines:
            for line in lines:
                try:
                    answer = json.loads(line)
                except ValueError:
                    continue  # a standby says `ready` and the like before it serves
                asker = waiting.get(answer.get("id", 0)) if isinstance(answer, dict) else None
                if asker is not None:
                    asker.put(answer)
        process.wait()
        with self._lock:  # whoever asks from now on finds it dead and starts another
            for asker in list(waiting.values()):
                asker.put({"event": "died"})
