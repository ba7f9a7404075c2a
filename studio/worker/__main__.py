"""`python -m studio.worker JOB_FOLDER | --standby | --serve | --data | --trace | --calibrate ANSWER`.

JOB_FOLDER does that job and ends. --serve answers requests on the pipe until it closes, --data those about datasets,
for which it needs no torch, --trace those about a step's memory. --standby imports everything, then waits for one line
on stdin that says which of the first two to become: {"job": folder} or {"serve": true}. --calibrate measures how fast
this machine trains.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.worker.spare import SpareTime


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 when the job ended as it should or was somebody else's, 1 when it failed."""
    if arguments == ["--serve"]:
        return _serve()
    if arguments == ["--data"]:
        return _serve_data()
    if arguments == ["--trace"]:
        return _serve_traces()
    if arguments == ["--standby"]:
        return _stand_by()
    if len(arguments) == 2 and arguments[0] == "--calibrate":
        return _calibrate(Path(arguments[1]))
    if len(arguments) == 1 and Path(arguments[0]).is_dir():
        return _job(Path(arguments[0]))
    usage = "JOB_FOLDER | --standby | --serve | --data | --trace | --calibrate ANSWER"
    sys.stderr.write(f"usage: python -m studio.worker {usage}\n")
    return 2


def _stand_by() -> int:
    from studio.worker.preload import preload

    preload()
    spare = _spare_time()
    line = sys.stdin.readline()
    spare.end()
    if not line.strip():
        return 0  # the studio has gone
    task = json.loads(line)
    if task.get("serve"):
        return _serve()
    folder = Path(task["job"])
    # From here on the job's own log takes what is printed: the pipes belong to a studio that may die.
    with (folder / "worker.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    return _job(folder)


def _spare_time() -> SpareTime:
    """A standby's, begun: it has this machine calibrated if nobody has yet."""
    from studio.worker.calibrate import wanted
    from studio.worker.spare import SpareTime, answer_place

    spare = SpareTime(answer_place(), wanted)
    spare.begin()
    return spare


def _calibrate(answer: Path) -> int:
    from studio.worker.calibrate import main as calibrate

    return calibrate(answer)


def _job(folder: Path) -> int:
    from studio.worker.job import run_job

    return run_job(folder)


def _serve() -> int:
    from studio.worker.serve import serve

    return serve()


def _serve_traces() -> int:
    from studio.worker.traces import serve

    return serve()


def _serve_data() -> int:
    from studio.worker.data.serving import serve

    return serve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
