"""The near end of the pipe to a serve worker: chat, and rows as trained on.

In: what to talk to, conversations. Out: pieces of text as they come. The worker is started at the first question and
ends with the studio, or when it is unloaded; what it computes is its own affair.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from studio.core.config import DatasetSection
from studio.core.configfile import parse_as
from studio.core.errors import ConfigError, StudioError, WorkerError
from studio.core.inputs import ModelInput
from studio.workspace.datasets import resolve_dataset
from studio.workspace.launcher import Launcher
from studio.workspace.models import list_models, resolve_model
from studio.workspace.runs import Run, Runs

Message = dict[str, str]
_Answers: TypeAlias = dict[int, "queue.Queue[dict[str, Any]]"]


@dataclass(frozen=True)
class ChatTarget:
    """Something to talk to. `id` is `run:<id>` or a model's name; `tuned`: there is a trained side beside the base."""

    id: str
    title: str
    base: str
    tuned: bool
    note: str = ""


@dataclass(frozen=True)
class Delta:
    """More text in a column (`base` or `tuned`); `done` closes it. `seconds` since the question was put."""

    column: str
    text: str
    done: bool
    tokens: int = 0
    seconds: float = 0.0


def list_targets(runs: Runs) -> list[ChatTarget]:
    """Runs that have something to talk to, newest first, then models."""
    found = []
    for run in runs.list(most=200):
        if run.latest_adapter is not None:
            found.append(_run_target(run))
    models = [m for m in list_models() if not m.name.startswith("run:")]
    return found + [ChatTarget(m.name, m.title, m.name, False, m.note) for m in models]


def _run_target(run: Run) -> ChatTarget:
    steps = {run.folder.path / c.path: c.step for c in run.progress.checkpoints}
    note = "" if run.output or run.latest_adapter is None else f"checkpoint of step {steps[run.latest_adapter]}"
    return ChatTarget(f"run:{run.id}", run.label, run.config.model.name_or_path, True, note or run.state.status)


class ServePipe:
    """One serve worker and the requests to it. A request that comes while another is answered waits its turn."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
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
            self._process, self._answers = self._launcher.serve(), {}
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


class Chat:
    """Talking to runs and models. One of these serves the whole studio; one conversation is answered at a time."""

    def __init__(self, launcher: Launcher, runs: Runs) -> None:
        self.pipe = ServePipe(launcher)
        self.runs = runs
        self.loaded: ChatTarget | None = None
        self._talking = threading.Lock()

    def open(self, target_id: str, progress: Callable[[str], None] = lambda text: None) -> ChatTarget:
        """Load what `target_id` names, unless it is loaded already. Raises StudioError."""
        target, fields = self._resolve(target_id)
        self.loaded = None
        for answer in self.pipe.request("load", **fields):
            if answer["event"] == "part":
                progress(str(answer.get("text", "")))
        self.loaded = target
        return target

    def stream(
        self,
        conversations: dict[str, list[Message]],
        *,
        temperature: float = 0.7,
        top_p: float = 0.95,
        max_new_tokens: int = 256,
        seed: int | None = None,
    ) -> Iterator[Delta]:
        """The answers to one conversation a column, piece by piece. Raises StudioError."""
        _check_settings(temperature, top_p, max_new_tokens)
        with self._talking:
            for answer in self.pipe.request(
                "generate",
                conversations=conversations,
                temperature=temperature,
                top_p=top_p,
                max_new_tokens=max_new_tokens,
                seed=seed,
            ):
                if answer["event"] == "part":
                    yield Delta(
                        answer["column"],
                        answer["text"],
                        answer["done"],
                        answer.get("tokens", 0),
                        answer.get("seconds", 0.0),
                    )

    def stop(self) -> None:
        self.pipe.stop()

    def unload(self) -> None:
        """Free the memory: the worker ends."""
        self.loaded = None
        self.pipe.close()

    def show_row(
        self, dataset: str, row: int, *, model: str = "starter", max_length: int = 1024, **section: Any
    ) -> dict[str, Any]:
        """A row as trained on (see worker/show).

        `section`: knobs of the config's dataset section. Raises StudioError.
        """
        knobs = parse_as(DatasetSection, {"path": dataset, **section})
        fields = {
            "dataset": dataclasses.asdict(resolve_dataset(dataset)),
            "model": dataclasses.asdict(resolve_model(model)),
            "section": knobs.model_dump(mode="json"),
            "row": row,
            "max_length": max_length,
        }
        return [answer for answer in self.pipe.request("show", **fields) if answer["event"] == "done"][-1]

    def _resolve(self, target_id: str) -> tuple[ChatTarget, dict[str, Any]]:
        if not target_id.startswith("run:"):
            model = resolve_model(target_id)
            return ChatTarget(target_id, target_id, target_id, False), {"base": dataclasses.asdict(model)}
        run = self.runs.get(target_id.removeprefix("run:"))
        tuned = run.latest_adapter
        if tuned is None or run.inputs is None:
            raise ConfigError("", f"The run {run.id} has nothing to talk to yet.", "Wait for its first checkpoint.")
        return _run_target(run), {
            "base": dataclasses.asdict(_still_there(run.inputs.model)),
            "model": run.config.model.model_dump(mode="json"),
            "tuned": str(tuned),
        }


def _still_there(model: ModelInput) -> ModelInput:
    if model.kind == "folder" and not Path(model.path or "").is_dir():
        raise ConfigError("", f"The base model {model.path} is gone.", "Put it back where it was.")
    return model


def _check_settings(temperature: float, top_p: float, max_new_tokens: int) -> None:
    """Widgets bound these too, but a request may come from anywhere."""
    if not 0 <= temperature <= 2:
        raise ConfigError("temperature", "should be between 0 and 2.")
    if not 0 < top_p <= 1:
        raise ConfigError("top_p", "should be above 0 and at most 1.")
    if not 1 <= max_new_tokens <= 8192:
        raise ConfigError("max_new_tokens", "should be between 1 and 8192.")
