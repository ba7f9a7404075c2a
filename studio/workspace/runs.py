"""The runs on disk: each a folder, read anew as it grows.

In: the runs folder. Out: `Run`s, with their status derived from files and processes, and their events folded. Only
new bytes are read at each look. Writes nothing: starting and ending runs is the supervisor's.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.config import ExportConfig, RunConfig
from studio.core.configfile import parse_as, parse_config, read_yaml
from studio.core.errors import ConfigError, RunError
from studio.core.inputs import Inputs
from studio.core.job import EventTail, JobFolder, read_json
from studio.core.progress import LIVE, Progress, State, derive
from studio.workspace import processes
from studio.workspace.home import is_slug, runs_dir


@dataclass(frozen=True)
class Run:
    """A run as it stands. `label` is what its user called it; `not_responding` while its process is held still."""

    folder: JobFolder
    label: str
    config: RunConfig
    inputs: Inputs | None
    progress: Progress
    state: State
    not_responding: bool = False

    @property
    def id(self) -> str:
        return self.folder.id

    @property
    def live(self) -> bool:
        return self.state.status in LIVE

    @property
    def output(self) -> Path | None:
        """The trained adapter or model, once it is there whole."""
        for folder, mark in ((self.folder.adapter, "adapter_config.json"), (self.folder.model, "config.json")):
            if (folder / mark).is_file():
                return folder
        return None

    @property
    def latest_adapter(self) -> Path | None:
        """What can be talked to now: the output, or the last complete checkpoint of a run that hasn't ended well."""
        if self.output is not None:
            return self.output
        kept = [c for c in self.progress.checkpoints if (self.folder.path / c.path).is_dir()]
        return self.folder.path / kept[-1].path if kept else None


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs."""

    id: str
    name: str
    status: str
    cause: str
    method: str
    model: str
    dataset: str
    adapter: str
    step: int
    max_steps: int
    loss: float | None
    eval_loss: float | None
    best_eval_loss: float | None
    started: float | None
    elapsed: float
    eta: float | None


def summarise(run: Run) -> RunSummary:
    """A run as one line of the list."""
    progress = run.progress
    best = progress.best("eval_loss")
    return RunSummary(
        id=run.id,
        name=run.label,
        status=run.state.status,
        cause=run.state.cause,
        method=run.config.method.name,
        model=run.config.model.name_or_path,
        dataset=run.config.dataset.label,
        adapter=run.config.adapter.type if run.config.adapter else "full",
        step=progress.step,
        max_steps=progress.max_steps,
        loss=progress.latest("loss"),
        eval_loss=progress.latest("eval_loss"),
        best_eval_loss=best[1] if best else None,
        started=progress.started,
        elapsed=progress.elapsed,
        eta=progress.eta if run.state.status == "running" else None,
    )


class Runs:
    """Every run in a folder. One of these serves many readers: what was folded once is kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or runs_dir()
        # Jobs that a watcher of this process looks after: until it has written down how their process ended, a process
        # that is gone is one that ends.
        self.watched: list[str] = []
        self._folded: dict[str, tuple[EventTail, Progress]] = {}
        self._configs: dict[str, RunConfig] = {}
        self._lock = threading.Lock()

    def ids(self) -> list[str]:
        """The ids of all runs, newest first."""
        return sorted((p.name for p in self.folder.iterdir() if self._is_run(p)), reverse=True)

    def list(self, first: int = 0, most: int | None = None) -> list[Run]:
        """Runs, newest first, from the `first`th on, `most` of them; folders that are damaged are passed over."""
        chosen = self.ids()[first : None if most is None else first + most]
        found = []
        for run_id in chosen:
            try:
                found.append(self.get(run_id))
            except (RunError, ConfigError):
                continue
        return found

    def get(self, run_id: str) -> Run:
        """A run by its id. Raises RunError if there is none, ConfigError if its run.yaml is damaged."""
        folder = self.job(run_id)
        # The process is looked at before the events: a run that ends in between is then read with its last words.
        record = _record(folder)
        process = processes.find(record)
        progress = self._fold(folder)
        state = _state(folder, progress, record, process is not None, self.watched)
        inputs = _inputs(folder)
        return Run(
            folder=folder,
            label=inputs.label if inputs else run_id,
            config=self._config(folder),
            inputs=inputs,
            progress=progress,
            state=state,
            not_responding=state.status in LIVE and process is not None and processes.is_stopped(process),
        )

    def job(self, run_id: str) -> JobFolder:
        """The folder of a run that exists. Raises RunError."""
        path = self.folder / run_id
        if not is_slug(run_id) or not self._is_run(path):
            raise RunError(f"There is no run {run_id[:80]!r}.", "`studio runs list` shows them.")
        return JobFolder(path)

    def forget(self, run_id: str) -> None:
        """Drop what is remembered of a run that was deleted."""
        with self._lock:
            self._folded.pop(run_id, None)
            self._configs.pop(run_id, None)

    @staticmethod
    def _is_run(path: Path) -> bool:
        return is_slug(path.name) and not path.is_symlink() and JobFolder(path).run_config.is_file()

    def _fold(self, folder: JobFolder) -> Progress:
        with self._lock:
            tail, progress = self._folded.setdefault(folder.id, (EventTail(folder.events), Progress()))
            for event in tail.read():
                progress.fold(event)
            return progress

    def _config(self, folder: JobFolder) -> RunConfig:
        with self._lock:
            if folder.id not in self._configs:
                self._configs[folder.id] = parse_config(read_yaml(folder.run_config))
            return self._configs[folder.id]


def _record(folder: JobFolder) -> dict[str, Any] | None:
    """What the worker signed with: None where no worker has taken the job, empty where that is damaged."""
    record = read_json(folder.process)
    if record is None and folder.process.exists():
        return read_json(folder.process) or {}  # it may have been signed just now
    return record


def _state(
    folder: JobFolder, progress: Progress, record: dict[str, Any] | None, alive: bool, watched: Collection[str]
) -> State:
    held = folder.id in watched  # looked at before exit.json, which the watcher writes before it lets go
    exit = read_json(folder.exit)
    return derive(
        progress,
        process=record,
        alive=alive or (held and exit is None),
        stop_asked=folder.stop.exists(),
        exit=exit,
    )


def _inputs(folder: JobFolder) -> Inputs | None:
    try:
        return Inputs.read(folder.inputs)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


@dataclass(frozen=True)
class ExportJob:
    """An export as it stands."""

    folder: JobFolder
    config: ExportConfig
    progress: Progress
    state: State

    @property
    def id(self) -> str:
        return self.folder.id

    @property
    def result(self) -> dict[str, Any]:
        return self.progress.ended.result if self.progress.ended else {}


def read_export(path: Path, watched: Collection[str] = ()) -> ExportJob:
    """An export by its folder; `watched` as `Runs` has it. Raises RunError, ConfigError."""
    folder = JobFolder(path)
    if not folder.export_config.is_file():
        raise RunError(f"There is no export {path.name!r}.", "The Export tab lists them.")
    config = parse_as(ExportConfig, read_yaml(folder.export_config))
    record = _record(folder)
    alive = processes.find(record) is not None
    progress = Progress()
    for event in EventTail(folder.events).read():
        progress.fold(event)
    return ExportJob(folder, config, progress, _state(folder, progress, record, alive, watched))
