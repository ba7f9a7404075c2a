"""Following a job from a terminal: its events as lines, Ctrl-C as a stop.

In: a supervisor and a job. Out: words through `say`, an exit code. A job doesn't need to be followed: it goes on
without.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

from studio.core.errors import RunError
from studio.core.events import Ended, Event, Metrics, Note, Stage
from studio.core.job import EventTail
from studio.core.progress import LIVE
from studio.workspace.runs import ExportJob, Run, read_export
from studio.workspace.supervisor import Supervisor

Say = Callable[[str], None]
_EXIT = {"finished": 0, "stopped": 130, "interrupted": 1, "failed": 1}
_POLL = 0.1


class ProgressLine:
    """One line that is written over while something is counted; on no terminal, a line each ten percent."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._live = sys.stderr.isatty()
        self._tenth: tuple[str, int] = ("", -1)
        self._drawn = False

    def show(self, text: str, done: int | None = None, total: int | None = None, unit: str = "bytes") -> None:
        share = f" {100 * done / total:3.0f} %" if done is not None and total else ""
        amount = f" {done / 1e6:,.0f} MB" if done and unit == "bytes" else f" {done:,} {unit}" if done else ""
        if self._live:
            sys.stderr.write(f"\r\x1b[K{text}{share}{amount}")
            sys.stderr.flush()
            self._drawn = True
            return
        tenth = (text, 10 * done // total if done is not None and total else -1)
        if tenth != self._tenth:
            self._tenth = tenth
            self._say(f"{text}{share}")

    def end(self) -> None:
        if self._drawn:
            sys.stderr.write("\n")
            self._drawn = False


class _Teller:
    def __init__(self, say: Say) -> None:
        self.say = say
        self.line = ProgressLine(say)

    def tell(self, event: Event) -> None:
        if isinstance(event, Stage) and event.name != "train":
            self.line.show(event.text, event.done, event.total, event.unit)
            return
        self.line.end()
        if isinstance(event, Metrics):
            self.say(_metrics_line(event))
        elif isinstance(event, Note):
            self.say(event.text)
        elif isinstance(event, Ended):
            self._tell_end(event)

    def _tell_end(self, ended: Ended) -> None:
        if ended.cause:
            self.say(f"{ended.cause} {ended.hint}".strip())
        manner = ended.result.get("manner")
        if manner:
            base = f"base {100 * manner['base']:.0f} %, " if "base" in manner else ""
            self.say(
                f"Held-out prompts answered in the taught manner: {base}this run {100 * manner['run']:.0f} % "
                f"(of {manner['prompts']})."
            )


# What methods that judge answers tell beside their loss, by TRL's names.
_JUDGED = {
    f"{kind}{name}": told
    for kind in ("", "eval_")
    for name, told in (
        ("rewards/accuracies", "accuracy"),
        ("rewards/margins", "margin"),
        ("accuracy", "accuracy"),
        ("margin", "margin"),
    )
}


def _metrics_line(event: Metrics) -> str:
    names = {"loss": "loss", "eval_loss": "validation loss", **_JUDGED}
    names |= {"learning_rate": "rate", "tokens_per_second": "tokens/s"}
    shown = []
    for key, name in names.items():
        if key in event.values:
            value = event.values[key]
            form = f"{value:.1e}" if key == "learning_rate" else f"{value:.0f}" if "second" in key else f"{value:.3f}"
            shown.append(f"{name} {form}")
    return f"step {event.step}/{event.max_steps}  " + "  ".join(shown)


def follow_run(supervisor: Supervisor, run_id: str, say: Say) -> int:
    """Tell a run's events until it has ended; Ctrl-C asks it to stop (it saves), a second one leaves it to itself.

    Returns the exit code: 0 finished, 1 failed or interrupted, 130 stopped.
    """
    folder = supervisor.runs.job(run_id)
    tail, teller = EventTail(folder.events), _Teller(say)
    tail.offset = folder.events.stat().st_size if folder.events.exists() else 0
    asked = waiting = False
    while True:
        try:
            run = supervisor.runs.get(run_id)
            for event in tail.read():
                teller.tell(event)
            if not run.live:
                teller.line.end()
                if not run.progress.ended:
                    say(f"{run.state.cause} {run.state.hint}".strip())
                return _EXIT[run.state.status]
            if run.state.status == "queued" and not waiting and time.time() - folder.path.stat().st_mtime > 3:
                waiting = True
                say("Waiting for another run to end.")
            time.sleep(_POLL)
        except KeyboardInterrupt:
            teller.line.end()
            if asked:
                say(f"The run goes on by itself; `studio runs stop {run_id}` stops it.")
                return 130
            asked = True
            say("Stopping: a checkpoint is being saved. Press Ctrl-C again to leave at once.")
            with contextlib.suppress(RunError):  # it has ended at this very moment, as the next look will tell
                supervisor.stop(run_id)


def follow_export(supervisor: Supervisor, job: ExportJob, say: Say) -> ExportJob:
    """Tell an export's progress until it has ended; Ctrl-C cancels it."""
    tail, teller = EventTail(job.folder.events), _Teller(lambda text: None)
    teller.line = ProgressLine(say)
    while True:
        try:
            job = read_export(job.folder.path, supervisor.runs.watched)
            for event in tail.read():
                teller.tell(event)
            if job.state.status not in LIVE:
                teller.line.end()
                return job
            time.sleep(_POLL)
        except KeyboardInterrupt:
            supervisor.stop_export(job)


def wait_until_ended(supervisor: Supervisor, run_id: str) -> Run:
    """Wait until a run has ended, however."""
    while True:
        run = supervisor.runs.get(run_id)
        if not run.live:
            return run
        time.sleep(_POLL)
