"""Sweeps: one run after the other, each tried where the earlier ones make it promising.

In: a SweepConfig. Out: $STUDIO_HOME/sweeps/<id>/ with sweep.yaml and trials.jsonl; the trials are ordinary runs in the
queue. Nothing is kept but these files and the runs: a sweep that was cut short goes on from them, whoever drives it,
and a lock sees to it that one process does. What to try next is Optuna's choice, made anew from the trials each time.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio.core.configfile import config_to_yaml, parse_as, read_yaml
from studio.core.errors import ConfigError, RunError, StudioError
from studio.core.progress import LIVE
from studio.core.sweep import Outcome, SweepConfig, Trial, best_trial, check_ranges, trial_config
from studio.workspace import searching
from studio.workspace.home import home, is_slug, plain_label, slug
from studio.workspace.runs import Run
from studio.workspace.submission import publish
from studio.workspace.supervisor import Supervisor

_POLL = 0.5  # seconds between looks at a trial
_ASIDE = 1.0  # seconds for somebody who only looks whether the lock is held
Told = Callable[[Trial], None]


@dataclass(frozen=True)
class Sweep:
    """A sweep as it stands. `status`: running, finished, stopped, or waiting (nobody drives it just now)."""

    id: str
    config: SweepConfig
    trials: list[Trial]
    status: str

    @property
    def best(self) -> Trial | None:
        return best_trial(self.config, self.trials)


class Sweeps:
    """Every sweep on disk, and the threads that drive some of them."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.folder = home() / "sweeps"
        self._closing = threading.Event()
        self._drivers: dict[str, threading.Thread] = {}

    def ids(self) -> list[str]:
        """Newest first."""
        if not self.folder.is_dir():
            return []
        found = [p.name for p in self.folder.iterdir() if is_slug(p.name) and (p / "sweep.yaml").is_file()]
        return sorted(found, reverse=True)

    def get(self, sweep_id: str) -> Sweep:
        """Raises RunError where there is none, ConfigError where its file is damaged."""
        folder = self._place(sweep_id)
        config = parse_as(SweepConfig, read_yaml(folder / "sweep.yaml"))
        trials = [self._trial(config, line) for line in _lines(folder / "trials.jsonl")]
        return Sweep(sweep_id, config, trials, self._status(folder, config, trials))

    def create(self, config: SweepConfig) -> str:
        """A new sweep, not yet driven; its id. Raises ConfigError where something in it can't be tried."""
        check_ranges(config)
        config = config.model_copy(update={"name": plain_label(config.name)})
        stem = slug(config.name) if config.name else f"{slug(Path(config.base.model.name_or_path).name)}-sweep"
        return publish(self.folder, f"{datetime.now():%Y%m%d-%H%M}-{stem}", {"sweep.yaml": config_to_yaml(config)}).id

    def start(self, config: SweepConfig) -> str:
        """Create a sweep and drive it beside everything else. Raises ConfigError."""
        sweep_id = self.create(config)
        self._drive_beside(sweep_id)
        return sweep_id

    def resume(self, sweep_id: str) -> None:
        """Let a stopped sweep go on beside everything else. Raises RunError."""
        for left in ("stop", "problem.jsonl"):
            (self._place(sweep_id) / left).unlink(missing_ok=True)
        self._drive_beside(sweep_id)

    def stop(self, sweep_id: str) -> None:
        """End a sweep; the trial that runs is stopped and keeps what it has. Raises RunError."""
        (self._place(sweep_id) / "stop").touch()
        for trial in self.get(sweep_id).trials:
            if trial.outcome == "running":
                with contextlib.suppress(RunError):
                    self.supervisor.stop(trial.run_id)

    def delete(self, sweep_id: str) -> None:
        """Forget a sweep; its trials stay as runs. Raises RunError while it goes on."""
        folder = self._place(sweep_id)
        try:
            with FileLock(folder / "driver.lock", timeout=_ASIDE):
                grave = folder.with_name(f".deleted-{sweep_id}")
                shutil.rmtree(grave, ignore_errors=True)
                folder.rename(grave)  # gone for every reader at once
        except Timeout:
            raise RunError(f"The sweep {sweep_id} still goes on.", "Stop it before deleting it.") from None
        shutil.rmtree(grave, ignore_errors=True)

    def problem(self, sweep_id: str) -> str:
        """Why a sweep could not go on: a trial that can't start, say. Empty where there is nothing. Raises RunError."""
        told = ""
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError, TypeError):
            text = (self._place(sweep_id) / "problem.jsonl").read_text(encoding="utf-8")
            told = str(json.loads(text.splitlines()[-1])["problem"])
        return told

    def adopt(self) -> None:
        """Go on with what another process left undone."""
        for sweep_id in self.ids():
            with contextlib.suppress(StudioError):
                if self.get(sweep_id).status == "waiting":
                    self._drive_beside(sweep_id)

    def close(self) -> None:
        """Stop driving; runs go on."""
        self._closing.set()
        for thread in list(self._drivers.values()):
            thread.join(timeout=5)

    def drive(self, sweep_id: str, told: Told = lambda trial: None) -> Sweep:
        """Try what is left to try, until all is done or the sweep is stopped. `told` hears of every trial's end.

        Returns at once where another process drives it.
        """
        folder = self._place(sweep_id)
        with contextlib.suppress(Timeout), FileLock(folder / "driver.lock", timeout=_ASIDE):
            while not self._closing.is_set():
                sweep = self.get(sweep_id)
                open_ = [trial for trial in sweep.trials if trial.outcome == "running"]
                if open_:
                    told(self._see_out(folder, sweep, open_[0]))
                elif (folder / "stop").exists() or len(sweep.trials) >= sweep.config.trials:
                    break
                else:
                    self._try_next(folder, sweep)
        return self.get(sweep_id)

    # -- one trial after the other ------------------------------------------------------------------------------------

    def _drive_beside(self, sweep_id: str) -> None:
        known = self._drivers.get(sweep_id)
        if known is None or not known.is_alive():
            thread = threading.Thread(target=self._driven, args=(sweep_id,), name=f"sweep {sweep_id}", daemon=True)
            self._drivers[sweep_id] = thread
            thread.start()

    def _driven(self, sweep_id: str) -> None:
        try:
            self.drive(sweep_id)
        except StudioError as error:  # a trial that can't be submitted: the dataset went, say
            _append(self._place(sweep_id) / "problem.jsonl", {"problem": str(error)})
            (self._place(sweep_id) / "stop").touch()

    def _try_next(self, folder: Path, sweep: Sweep) -> None:
        number = len(sweep.trials)
        values = searching.suggest(sweep.config, sweep.trials)
        label = f"{sweep.config.name or 'Sweep'} {number + 1}"
        run_id = self.supervisor.submit(trial_config(sweep.config, values), label)
        _append(folder / "trials.jsonl", {"number": number, "values": values, "run": run_id})

    def _see_out(self, folder: Path, sweep: Sweep, trial: Trial) -> Trial:
        """Wait for a trial's end, and end it early where it is hopeless."""
        seen = 0
        while trial.outcome == "running" and not self._closing.wait(_POLL):
            trial = self._trial(sweep.config, {"number": trial.number, "values": trial.values, "run": trial.run_id})
            if trial.outcome != "running" or len(trial.seen) == seen or not sweep.config.prune:
                continue
            seen = len(trial.seen)
            if searching.hopeless(sweep.config, sweep.trials[: trial.number], trial):
                _append(folder / "trials.jsonl", {"pruned": trial.number})
                with contextlib.suppress(RunError):
                    self.supervisor.stop(trial.run_id)
                trial = self._wait_until_ended(trial)
        return trial

    def _wait_until_ended(self, trial: Trial) -> Trial:
        while not self._closing.wait(_POLL):
            try:
                if not self.supervisor.runs.get(trial.run_id).live:
                    break
            except RunError:
                break
        return Trial(trial.number, trial.values, trial.run_id, "pruned", trial.value, trial.seen)

    # -- reading ------------------------------------------------------------------------------------------------------

    def _place(self, sweep_id: str) -> Path:
        folder = self.folder / sweep_id
        if not is_slug(sweep_id) or not (folder / "sweep.yaml").is_file():
            raise RunError(f"There is no sweep {sweep_id[:80]!r}.", "`studio sweep --list` shows them.")
        return folder

    def _status(self, folder: Path, config: SweepConfig, trials: list[Trial]) -> str:
        if (folder / "stop").exists():
            return "stopped"
        if len(trials) >= config.trials and all(trial.outcome != "running" for trial in trials):
            return "finished"
        lock = FileLock(folder / "driver.lock", timeout=0)
        try:
            with lock:
                return "waiting"
        except Timeout:
            return "running"

    def _trial(self, config: SweepConfig, line: dict[str, Any]) -> Trial:
        trial = Trial(int(line["number"]), line["values"], str(line["run"]))
        try:
            run = self.supervisor.runs.get(trial.run_id)
        except (RunError, ConfigError):
            return Trial(trial.number, trial.values, trial.run_id, "failed")
        seen = tuple(point for point in run.progress.series.get(config.metric, ()) if math.isfinite(point[1]))
        figures = [value for _, value in seen]
        best = (max(figures) if config.maximize else min(figures)) if figures else None
        outcome = _outcome(run, bool(line.get("pruned")))
        return Trial(trial.number, trial.values, trial.run_id, outcome, best, seen)


def _outcome(run: Run, pruned: bool) -> Outcome:
    if run.state.status in LIVE:
        return "running"
    if pruned:
        return "pruned"
    return {"finished": "finished", "stopped": "stopped"}.get(run.state.status, "failed")  # type: ignore[return-value]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The trials, each with `pruned` where it was; a torn last line is none."""
    trials: dict[int, dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                line = json.loads(text)
                if "pruned" in line:
                    trials[line["pruned"]]["pruned"] = True
                else:
                    trials[int(line["number"])] = {**line, "values": dict(line["values"]), "run": str(line["run"])}
    return [trials[number] for number in sorted(trials)]


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
