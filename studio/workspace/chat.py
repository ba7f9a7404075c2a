"""Talking to runs and models.

In: what to talk to, conversations. Out: pieces of text as they come. The worker is started at the first question and
ends with the studio, or when it is unloaded; what it computes is its own affair.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.errors import ConfigError
from studio.core.inputs import ModelInput
from studio.workspace.extras import resolve_extra
from studio.workspace.home import is_slug, runs_dir
from studio.workspace.launcher import Launcher
from studio.workspace.models import list_models, resolve_model
from studio.workspace.pipe import ServePipe
from studio.workspace.runs import Run, Runs

Message = dict[str, str]


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


@dataclass(frozen=True)
class Judgement:
    """An answer and what a reward model gives it."""

    text: str
    score: float
    tokens: int


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


class Chat:
    """Talking to runs and models. One of these serves the whole studio; one conversation is answered at a time."""

    def __init__(self, launcher: Launcher, runs: Runs, pipe: ServePipe | None = None) -> None:
        self.pipe = pipe or ServePipe(launcher.serve)
        self.runs = runs
        self.loaded: ChatTarget | None = None
        self._talking = threading.Lock()

    def open(self, target_id: str, progress: Callable[[str], None] = lambda text: None) -> ChatTarget:
        """Load what `target_id` names, unless it is loaded already. Raises StudioError."""
        target, fields = resolve_target(self.runs, target_id)
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

    def best(
        self,
        conversation: list[Message],
        reward: str,
        samples: int,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 256,
        seed: int | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> list[Judgement]:
        """Several answers to one conversation by what was trained, the best by the reward model first.

        `reward`: run:<id> of the method reward, or a reward model. Raises StudioError.
        """
        check_samples(temperature, samples)
        _check_settings(temperature, top_p, max_new_tokens)
        fields = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens, "seed": seed}
        extra = dataclasses.asdict(resolve_extra(reward, "reward_model", "reward"))
        found: list[Judgement] = []
        with self._talking:
            for answer in self.pipe.request("best", conversation=conversation, reward=extra, samples=samples, **fields):
                if answer["event"] == "part":
                    progress(str(answer.get("text", "")))
                else:
                    found = [Judgement(**one) for one in answer["answers"]]
        return found

    def stop(self) -> None:
        self.pipe.stop()

    def unload(self) -> None:
        """Free the memory: the worker ends."""
        self.loaded = None
        self.pipe.close()


def resolve_target(runs: Runs, target_id: str) -> tuple[ChatTarget, dict[str, Any]]:
    """What an id of a target means, and the fields of the worker's `load`. Raises StudioError."""
    if not target_id.startswith("run:"):
        model = resolve_model(target_id)
        return ChatTarget(target_id, target_id, target_id, False), {"base": dataclasses.asdict(model)}
    run = runs.get(target_id.removeprefix("run:"))
    tuned = run.latest_adapter
    if tuned is None or run.inputs is None:
        raise ConfigError("", f"The run {run.id} has nothing to talk to yet.", "Wait for its first checkpoint.")
    return _run_target(run), {
        "base": dataclasses.asdict(_still_there(run.inputs.model)),
        "model": run.config.model.model_dump(mode="json"),
        "tuned": str(tuned),
    }


def target_of(name: str) -> str:
    """The id of what a person means: a run's id stands for the run."""
    return f"run:{name}" if is_slug(name) and (runs_dir() / name / "run.yaml").is_file() else name


def _still_there(model: ModelInput) -> ModelInput:
    if model.kind == "folder" and not Path(model.path or "").is_dir():
        raise ConfigError("", f"The base model {model.path} is gone.", "Put it back where it was.")
    return model


def check_samples(temperature: float, samples: int) -> None:
    """Raises ConfigError where answers would all be the same one, or there are too few or too many."""
    if not 2 <= samples <= 256:
        raise ConfigError("samples", "should be between 2 and 256.")
    if temperature == 0:
        raise ConfigError("temperature", "at 0 all answers are the same one; give more, such as 1.")


def _check_settings(temperature: float, top_p: float, max_new_tokens: int) -> None:
    """Widgets bound these too, but a request may come from anywhere."""
    if not 0 <= temperature <= 2:
        raise ConfigError("temperature", "should be between 0 and 2.")
    if not 0 < top_p <= 1:
        raise ConfigError("top_p", "should be above 0 and at most 1.")
    if not 1 <= max_new_tokens <= 8192:
        raise ConfigError("max_new_tokens", "should be between 1 and 8192.")
