"""The trace worker's ops: what a training step takes, gone through without numbers, answered on a pipe.

In: requests as `serve` reads them. Out: their answers. Torch is imported at the first request, by a process that does
nothing else and can be ended at any moment.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from studio.core.config import RunConfig
from studio.core.estimate import Device, Practice, Versions
from studio.worker.serve import Part, Server


def serve() -> int:
    """Serve traces on this process's stdin and stdout; `stop` ends the process, as a step can't be left half-way."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to stdout; the pipe must carry nothing but answers
    Server(out, {"trace": trace_op, "skeleton": skeleton_op, "ping": lambda *_: {}}).run(sys.stdin, lambda: os._exit(0))
    return 0


def trace_op(request: dict[str, Any], part: Part) -> dict[str, Any]:
    """Bytes as `Estimate` has them, and `seconds`. Fields of the request: `config`, `model_config`, and where they are
    known `lengths`, `device`, `versions`, `practice`. Raises ModelError.
    """
    part({"text": "Importing the libraries", "done": None, "total": None})
    from studio.worker.trace import trace

    config = RunConfig.model_validate(request["config"])
    part({"text": "Going through a step", "done": None, "total": None})
    began = time.monotonic()
    found = trace(
        config,
        request["model_config"],
        lengths=request.get("lengths"),
        versions=Versions(**given) if (given := request.get("versions")) else None,
        practice=Practice(**given) if (given := request.get("practice")) else None,
        device=Device(**given) if (given := request.get("device")) else None,
    )
    part({"text": "Replaying what was allocated", "done": None, "total": None})
    answer = found.to_dict()
    return {**answer, "seconds": round(time.monotonic() - began, 3)}


def skeleton_op(request: dict[str, Any], part: Part) -> dict[str, Any]:
    """As `skeletons.skeleton_op`, which is imported when it is first asked for."""
    from studio.worker import skeletons

    return skeletons.skeleton_op(request, part)
