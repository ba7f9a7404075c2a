"""Starts jobs, stops them, finds them again: the only one in the workspace who acts on processes.

In: a RunConfig and clicks. Out: job folders, and one watcher thread a live job. A run's truth is its folder, so any
number of supervisors (the window's, a command's, a restarted one) may look after the same runs: a lock decides who
starts what, and the worker's exclusive process.json that it happens once. What training is, isn't known here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock

from studio.core.config import ExportConfig, MergeConfig, RunConfig
from studio.core.configfile import config_to_yaml
from studio.core.errors import RunError, StudioError
from studio.core.inputs import DatasetInput, Inputs
from studio.core.job import JobFolder, create_text, read_json
from studio.core.progress import LIVE
from studio.workspace import processes
from studio.workspace.desk import DataDesk
from studio.workspace.extras import reward_files
from studio.workspace.foretelling import Foretelling, Predict
from studio.workspace.home import exports_dir, home, plain_label, slug
from studio.workspace.launcher import Launcher
from studio.workspace.learning import Learning
from studio.workspace.runs import ExportJob, Runs, read_export
from studio.workspace.submission import check_rows, check_target, prepare_merge, publish, resolve_inputs

_Attempt: TypeAlias = tuple[tuple[int, str], int]

_PATIENCE = 10  # graces that a worker which still gives signs of life has for its stop
_POLL = 0.2  # seconds between a watcher's looks
_BIRTH = 20.0  # seconds a fresh worker has to make its process.json


class Supervisor:
    """See the module. `grace`: seconds a worker has to obey a stop before its process group is ended.

    `predict` tells what a run will take, as plain JSON values (None: nobody can); it is kept beside the run, so that
    `learning` can compare it with what the run took.
    """

    def __init__(self, *, standby: bool = False, grace: float = 90.0, predict: Predict | None = None) -> None:
        self.runs = Runs()
        self.launcher = Launcher(standby)
        self.desk = DataDesk(self.launcher)
        self.learning = Learning(home(), self.runs)
        self.predict = predict
        self.grace = grace
        self._queue_lock = home() / "queue.lock"
        self._watchers: dict[Path, threading.Thread] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()

    # -- runs ---------------------------------------------------------------------------------------------------------

    def submit(self, config: RunConfig, label: str = "") -> str:
        """Queue a run; it starts at once if nothing else is training. Returns its id. Raises ConfigError."""
        label = plain_label(label)
        config, inputs = resolve_inputs(config, label)
        foretelling = Foretelling(self.predict, config)
        check_rows(config, inputs, self.desk)
        stem = slug(label) if label else f"{slug(Path(config.model.name_or_path).name)}-{config.method.name}"
        name = f"{datetime.now():%Y%m%d-%H%M}-{stem}"
        label = label or f"{Path(config.model.name_or_path).name} {config.method.name}"
        files = {
            "run.yaml": config_to_yaml(config),
            "inputs.json": replace(inputs, label=label).to_json(),
            **reward_files(config),
            **foretelling.files(),
        }
        folder = publish(self.runs.folder, name, files)
        foretelling.deliver(folder)
        self._watch(folder, anew=True)
        return folder.id

    def stop(self, run_id: str) -> None:
        """Ask a run to save a checkpoint and end. Raises RunError if it has ended already."""
        run = self.runs.get(run_id)
        if not run.live:
            raise RunError(f"The run {run_id} isn't running; it is {run.state.status}.")
        run.folder.stop.touch()
        self._watch(run.folder)

    def resume(self, run_id: str) -> None:
        """Let a run that was stopped, interrupted or failed go on from its last complete checkpoint."""
        with FileLock(self._queue_lock):  # of two resumes at once, the second finds the run queued
            run = self.runs.get(run_id)
            if run.live:
                raise RunError(f"The run {run_id} is {run.state.status}.", "Stop it first.")
            if run.state.status == "finished":
                raise RunError(
                    f"The run {run_id} has finished.", "Start a new one with more epochs, from this one's settings."
                )
            folder = run.folder
            number = 1 + len(list(folder.path.glob("process-*.json")))
            folder.stop.unlink(missing_ok=True)
            folder.exit.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):  # no worker ever signed
                folder.process.rename(folder.path / f"process-{number}.json")
        self._watch(folder, anew=True)

    def delete(self, run_id: str) -> None:
        """Delete a run and all it made. Raises RunError while it is live."""
        run = self.runs.get(run_id)
        if run.live:
            raise RunError(f"The run {run_id} is {run.state.status}.", "Stop it before deleting it.")
        grave = run.folder.path.with_name(f".deleted-{run_id}")
        shutil.rmtree(grave, ignore_errors=True)
        run.folder.path.rename(grave)  # gone for every reader at once; a kill from here on leaves only the grave
        self.runs.forget(run_id)
        shutil.rmtree(grave, ignore_errors=True)

    def adopt(self) -> None:
        """Look after every live run on disk, and clear away what a killed studio left half-deleted."""
        for left in (
            *self.runs.folder.glob(".deleted-*"),
            *exports_dir().glob(".new-*"),
            *self.runs.folder.glob(".new-*"),
        ):
            if time.time() - left.stat().st_mtime > 60:
                shutil.rmtree(left, ignore_errors=True)
        live = [run.folder for run in self.runs.list() if run.live]
        live += [export.folder for export in self.exports() if export.state.status in LIVE]
        for folder in live:
            self._watch(folder)

    # -- exports ------------------------------------------------------------------------------------------------------

    def export(self, config: ExportConfig) -> ExportJob:
        """Start an export of a run. Raises RunError, TargetError."""
        run = self.runs.get(config.run)
        if run.output is None:
            raise RunError(f"The run {config.run} has nothing to export yet; it is {run.state.status}.")
        out = check_target(Path(config.out), run)
        config = config.model_copy(update={"out": str(out)})
        assert run.inputs is not None, "a run with an output was submitted with its inputs"
        where = {"run": str(run.folder.path), "output": str(run.output)}
        return self._queue_export(config, run.inputs, where, slug(run.label))

    def merge(self, config: MergeConfig) -> ExportJob:
        """Start the merge of adapters trained elsewhere into a base. Raises ConfigError, TargetError."""
        model, adapters = prepare_merge(config)
        out = check_target(Path(config.out), None)
        where: dict[str, object] = {"output": str(adapters[0]), "others": [str(path) for path in adapters[1:]]}
        if len(adapters) > 1 or config.weights:
            weights = config.weights or [1.0] * len(adapters)
            where |= {"combination": config.combination, "weights": weights, "density": config.density}
        wishes = config.model_dump(include={"dtype", "shard_size", "parity"})
        export = ExportConfig(run=config.base, format="merged", out=str(out), **wishes)
        return self._queue_export(export, Inputs(model.name, model, DatasetInput("")), where, slug(model.name))

    def _queue_export(self, config: ExportConfig, inputs: Inputs, where: Mapping[str, object], name: str) -> ExportJob:
        folder = publish(
            exports_dir(),
            f"{datetime.now():%Y%m%d-%H%M}-{name}-{config.format}",
            {
                "export.yaml": config_to_yaml(config),
                "inputs.json": inputs.to_json(),
                "source.json": json.dumps(where),
            },
        )
        self._watch(folder)
        return read_export(folder.path)

    def stop_export(self, job: ExportJob) -> None:
        """Cancel an export: nothing of it will be left."""
        job.folder.stop.touch()

    def exports(self) -> list[ExportJob]:
        """Every export, newest first."""
        found = []
        for path in sorted(exports_dir().iterdir(), reverse=True):
            with contextlib.suppress(StudioError):
                found.append(read_export(path, self.runs.watched))
        return found

    def close(self) -> None:
        """Stop looking; workers go on."""
        self._closing.set()
        self.desk.close()
        self.launcher.close()
        with self._lock:
            watchers = list(self._watchers.values())
        for watcher in watchers:
            watcher.join(timeout=5)

    # -- watching -----------------------------------------------------------------------------------------------------

    def _watch(self, folder: JobFolder, anew: bool = False) -> None:
        """`anew`: an earlier watcher may still see an earlier worker out, and won't look after the next one."""
        with self._lock:
            known = self._watchers.get(folder.path)
            if anew or known is None or not known.is_alive():
                thread = threading.Thread(
                    target=self._look_after, args=(folder,), name=f"watch {folder.id}", daemon=True
                )
                self._watchers[folder.path] = thread
                thread.start()

    def _look_after(self, folder: JobFolder) -> None:
        """One job from its queueing to the end of its process."""
        self.runs.watched.append(folder.id)
        try:
            attempt = _attempt(folder)
            self._wait_for_end(folder, self._wait_for_turn(folder), attempt)
        finally:
            self.runs.watched.remove(folder.id)
        if folder.path.parent == self.runs.folder:
            self.learning.note(folder.id)
        self.launcher.prepare()

    def _wait_for_turn(self, folder: JobFolder) -> subprocess.Popen[bytes] | None:
        """The worker once it is started; None if another supervisor started it, or it was taken back."""
        while not self._closing.is_set() and folder.path.is_dir() and not folder.process.exists():
            if folder.stop.exists():
                return None
            try:
                child = self._start_if_its_turn(folder)
            except OSError as error:  # no room on the disk or in the system for one more worker
                self._note_exit(folder, 127, False, f"it couldn't be started ({error.strerror})")
                return None
            if child is not None:
                return child
            self._closing.wait(_POLL)
        return None

    def _start_if_its_turn(self, folder: JobFolder) -> subprocess.Popen[bytes] | None:
        with FileLock(self._queue_lock):
            if folder.process.exists() or folder.stop.exists() or not self._its_turn(folder):
                return None
            child = self.launcher.job(folder.path)
            # The lock is held until the worker has signed, or others would take the place for free.
            deadline = time.monotonic() + _BIRTH
            while not folder.process.exists() and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            return child

    def _its_turn(self, folder: JobFolder) -> bool:
        """Whether nothing else trains and no older run waits. Exports don't wait: they need no device."""
        if folder.export_config.exists():
            return True
        mine = _submitted(folder)
        for run_id in self.runs.ids():
            job = JobFolder(self.runs.folder / run_id)
            if job.process.exists():
                if processes.find(read_json(job.process)) is not None and self._is_live(run_id):
                    return False
            elif _submitted(job) < mine and self._is_live(run_id):
                self._watch(job)  # the studio that queued it may have died since
                return False
        return True

    def _is_live(self, run_id: str) -> bool:
        with contextlib.suppress(StudioError):  # a damaged run is nobody's hindrance
            return self.runs.get(run_id).live
        return False

    def _wait_for_end(self, folder: JobFolder, child: subprocess.Popen[bytes] | None, attempt: _Attempt) -> None:
        """Wait until the job's process has ended, by force if it ignores a stop, and write down how it did."""
        forced = False
        while not self._closing.is_set():
            process = processes.find(read_json(folder.process))
            if child.poll() is not None if child is not None else process is None:
                break
            if process is not None and not forced and self._overdue(folder):
                forced = True
                processes.end(process)
            self._closing.wait(_POLL)
        code = child.poll() if child is not None else -9 if forced else None
        # If the job has been resumed since, or deleted and its name taken again, this end is not its own.
        if code is not None and _attempt(folder) == attempt:
            self._note_exit(folder, code, forced, _last_line(folder.log))

    def _overdue(self, folder: JobFolder) -> bool:
        """Whether a stop was asked for more than the grace ago and nothing was heard from the worker since.

        One that keeps talking is saving something large, but not for ever.
        """
        with contextlib.suppress(OSError):
            asked = folder.stop.stat().st_mtime
            heard = max((p.stat().st_mtime for p in (folder.events, folder.log) if p.exists()), default=0.0)
            now = time.time()
            return now - max(asked, heard) > self.grace or now - asked > _PATIENCE * self.grace
        return False

    def _note_exit(self, folder: JobFolder, code: int, forced: bool, last_line: str) -> None:
        with contextlib.suppress(OSError):
            record = {"code": code, "forced": forced, "time": time.time(), "last_line": last_line}
            create_text(folder.exit, json.dumps(record))


def _submitted(job: JobFolder) -> tuple[int, str]:
    """What orders the queue: the moment of submission. Ids tell only its minute."""
    with contextlib.suppress(OSError):
        return job.run_config.stat().st_mtime_ns, job.id
    return 0, job.id


def _attempt(job: JobFolder) -> _Attempt:
    """Tells one attempt at a job from the next, and from another job of the same name."""
    return _submitted(job), len(list(job.path.glob("process-*.json")))


def _last_line(log: Path) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4000))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        return next((line[:300] for line in reversed(lines) if line), "")
    return ""
