"""The comparison that follows an export, in a process of its own.

In: a job, a comparison's request. Out: its answer as a dict, kept in the job's folder as parity.json too; a cancelled
export ends the comparison. A comparison that fails is told, and no reason to throw the export away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from studio.core.job import read_json
from studio.worker.job import Job

_POLL = 0.1


def compare_in_fresh_process(job: Job, request: dict[str, Any]) -> dict[str, Any]:
    """Raises Stopped."""
    asked, answer = job.folder.path / "parity-request.json", job.folder.path / "parity.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    job.stage("parity", "Comparing what was written with base and adapter")
    isolated = ["-P"] if sys.version_info >= (3, 11) and sys.flags.safe_path else []
    command = [sys.executable, *isolated, "-m", "studio.worker.export.parity", str(asked), str(answer)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)  # by whose end the child learns of ours
    try:
        while child.poll() is None:
            job.check_stop()
            time.sleep(_POLL)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        if child.stdin is not None:
            child.stdin.close()
    found = read_json(answer)
    if found is None:
        killed = "its process was ended from outside, perhaps for lack of memory" if child.returncode < 0 else ""
        text = f"What was written couldn't be compared: {killed or 'the log says why'}."
        job.note("warning", text)
        return {"max_logit_diff": None, "greedy_match": None, "same": None, "skipped": text}
    for problem in found["problems"]:
        job.note("warning", problem)
    if found["skipped"]:
        job.note("info", found["skipped"])
    return found


def end_with_the_asker() -> None:
    """The comparison's own watch: nobody waits for an answer any more once the other end of the pipe is gone."""
    sys.stdin.buffer.read()
    os._exit(1)
