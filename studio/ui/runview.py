"""One run, as the page asks for it each second: what is new since the bytes it has seen.

In: a run of the workspace and the page's offsets. Out: plain JSON values. The offset counts bytes of events.jsonl; at 0
the curves so far come whole, thinned out; later only the events behind the offset. A line still being written is held
back. Keeps nothing between two questions, so a reload, a second viewer and a restarted studio are all the same.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

from studio.core.events import CheckpointSaved, Ended, Metrics, Note, Stage, to_json
from studio.core.job import EventTail, read_json
from studio.core.progress import Progress
from studio.ui.plots import downsample
from studio.workspace.learning import read_lesson
from studio.workspace.runs import Run, Runs

FAR_BEHIND = 512 * 1024  # bytes of events from which on the whole curves, thinned out, are quicker than the events
LOG_BYTES = 64 * 1024  # of the log at most at once
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def news(runs: Runs, run_id: str, offset: int) -> dict[str, Any]:
    """Where a run stands, and what its events say since `offset` (0: from the beginning).

    Raises RunError, ConfigError.
    """
    # Measured before the events are folded: one that comes in between is then told twice, which changes nothing;
    # the other way round it would be left out.
    end = whole_bytes(runs.job(run_id).events)
    run = runs.get(run_id)
    progress = run.progress
    return {
        "id": run.id,
        "name": run.label,
        "status": run.state.status,
        "cause": run.state.cause,
        "hint": run.state.hint,
        "not_responding": run.not_responding,
        "step": progress.step,
        "max_steps": progress.max_steps,
        "epoch": progress.epoch,
        "elapsed": progress.elapsed,
        "eta": progress.eta if run.state.status == "running" else None,
        "attempt": progress.attempt,
        "finder": run.config.training.find_learning_rate,
        "stage": to_json(progress.stage) if progress.stage is not None and run.live else None,
        "can": abilities(run),
        "details_version": f"{progress.attempt} {len(progress.notes)} {len(progress.checkpoints)} {run.state.status}",
        **_since(run, offset, end),
    }


def abilities(run: Run) -> dict[str, bool]:
    """Which buttons make sense now; the supervisor has the last word. A run that finds a rate leaves nothing to use."""
    learns = not run.config.training.find_learning_rate
    return {
        "stop": run.state.status in ("queued", "running"),
        "resume": learns and run.state.status in ("stopped", "failed", "interrupted"),
        "delete": not run.live,
        "chat": learns and run.latest_adapter is not None,
        "export": learns and run.output is not None,
    }


def _since(run: Run, offset: int, end: int) -> dict[str, Any]:
    if 0 < offset <= end and end - offset <= FAR_BEHIND:
        tail = EventTail(run.folder.events, offset)
        events = [event for event in tail.read() if not isinstance(event, Note)]
        if not any(isinstance(event, Stage) and event.name == "starting" for event in events):
            told = [to_json(event) for event in events if isinstance(event, (Metrics, CheckpointSaved, Ended))]
            return {"offset": tail.offset, "events": told, "series": None}
    return {"offset": end, "events": [], "series": series(run.progress)}


def series(progress: Progress) -> dict[str, dict[str, list[Any]]]:
    """Each curve as {"steps": [...], "values": [...]}; a number that isn't one is null, its step is kept."""
    told: dict[str, dict[str, list[Any]]] = {}
    for name, points in progress.series.items():
        kept = downsample(list(points))
        told[name] = {"steps": [step for step, _ in kept], "values": [_number(value) for _, value in kept]}
    return told


def _number(value: float) -> float | None:
    return value if value - value == 0 else None  # infinite and NaN are the numbers for which it isn't


def whole_bytes(path: Path) -> int:
    """How many bytes of a file of lines are whole lines."""
    try:
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            while end > 0:
                begin = max(0, end - 65536)
                file.seek(begin)
                newline = file.read(end - begin).rfind(b"\n")
                if newline >= 0:
                    return begin + newline + 1
                end = begin
    except OSError:
        return 0
    return 0


def log_since(path: Path, offset: int) -> tuple[str, int]:
    """The log's text from a byte offset on, and the next offset; a negative or foreign one begins near the end.

    Whole lines only. Of what a progress bar draws over itself the last state is kept; control characters are left out.
    """
    end = whole_bytes(path)
    if not 0 <= offset <= end or end - offset > LOG_BYTES:
        offset = max(0, end - LOG_BYTES)
    if end == offset:
        return "", end
    try:
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read(end - offset).decode("utf-8", errors="replace")
    except OSError:
        return "", end
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _ESCAPES.sub("", "\n".join(lines)), end


def details(run: Run) -> dict[str, Any]:
    """What is looked at once: the settings as run, the command that repeats them, what the worker noted."""
    process = read_json(run.folder.process) or {}
    try:
        yaml = run.folder.run_config.read_text(encoding="utf-8")
    except OSError:
        yaml = ""
    ended = run.progress.ended
    return {
        "id": run.id,
        "name": run.label,
        "method": run.config.method.name,
        "adapter": run.config.adapter.type if run.config.adapter else None,
        "model": run.config.model.name_or_path,
        "dataset": run.config.dataset.label,
        "started": run.progress.started,
        "device": process.get("device"),
        "versions": process.get("versions"),
        "folder": str(run.folder.path),
        "yaml": yaml,
        "command": f"studio train {shlex.quote(str(run.folder.run_config))}",
        "notes": [{"level": note.level, "text": note.text} for note in run.progress.notes],
        "checkpoints": [saved.step for saved in run.progress.checkpoints],
        "result": ended.result if ended is not None else {},
        "took": took(run),
    }


def took(run: Run) -> dict[str, float | None] | None:
    """What an ended run took: bytes predicted and measured on its device, the error as a share, kWh, watts.

    None for a run that hasn't come to its end, or wasn't measured.
    """
    lesson = read_lesson(run.folder.path)
    if lesson is None or run.live or lesson.measured is None:
        return None
    return {
        "predicted": lesson.predicted,
        "measured": lesson.measured,
        "error": lesson.error,
        "kwh": lesson.energy,
        "watts": lesson.draw,
    }
