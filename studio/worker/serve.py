"""The pipe's far end: answers requests, one JSON object a line on stdin, with JSON lines on stdout, until stdin closes.

In: {"id", "op", ...}. Out: any number of {"id", "event": "part", ...}, then one {"id", "event": "done" | "error",
...}. Requests run one after the other on a thread of their own, so that `stop` and the pipe's end are heard
meanwhile. What an op does is in its module.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from functools import cache
from typing import Any, TextIO

from studio.core.errors import StudioError
from studio.worker.job import explain

Part = Callable[[dict[str, Any]], None]
Ops = dict[str, Callable[[dict[str, Any], Part], dict[str, Any]]]


class Server:
    """Answers on `out`. `ops` maps a name to a function of (request, part) that returns the last answer's fields."""

    def __init__(self, out: TextIO, ops: Ops) -> None:
        self.out = out
        self.ops = ops
        self._lock = threading.Lock()
        self._requests: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def send(self, message: dict[str, Any]) -> None:
        with self._lock:
            self.out.write(json.dumps(message, ensure_ascii=False) + "\n")
            self.out.flush()

    def run(self, lines: TextIO, stop: Callable[[], None]) -> None:
        """Read requests until the pipe closes; `stop` is called for {"op": "stop"}."""
        worker = threading.Thread(target=self._work, name="requests", daemon=True)
        worker.start()
        for line in lines:
            try:
                request = json.loads(line)
            except ValueError:
                continue
            if request.get("op") == "stop":
                stop()
            else:
                self._requests.put(request)
        stop()

    def _work(self) -> None:
        while (request := self._requests.get()) is not None:
            self.send(self._answer(request))

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request.get("id")

        def part(fields: dict[str, Any]) -> None:
            self.send({"id": number, "event": "part", **fields})

        try:
            return {"id": number, "event": "done", **self.ops[request["op"]](request, part)}
        except StudioError as error:
            return {"id": number, "event": "error", "message": error.message, "hint": error.hint}
        except Exception as error:  # noqa: BLE001 - the pipe's edge: the asker must get an answer
            traceback.print_exc()
            cause, hint = explain(error)
            return {"id": number, "event": "error", "message": cause, "hint": hint}


@cache
def _judging(model: Any) -> Any:
    """Imported when it is first asked for: TRL's trainers come with it."""
    from studio.worker.bestof import BestOf

    return BestOf(model)


def serve() -> int:
    """Serve chat and previews on this process's stdin and stdout."""
    # Libraries print to stdout; the pipe must carry nothing but answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from studio.worker.chat import ChatModel
    from studio.worker.show import show_row

    model = ChatModel()

    def best(request: dict[str, Any], part: Part) -> dict[str, Any]:
        told: dict[str, Any] = _judging(model).answer(request, part)
        return told

    ops: Ops = {"load": model.load, "generate": model.generate, "best": best, "show": show_row, "ping": lambda *_: {}}
    server = Server(out, ops)
    server.run(sys.stdin, model.stop)
    # Threads of torch may hold the interpreter's end up; there is nothing left to save.
    os._exit(0)
