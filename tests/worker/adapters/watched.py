"""A run in this process with its trainer looked at: what was frozen before and after, what the trained model says.

In: a job folder. Out: a Watched. The run is the worker's own, from run.yaml to the saved files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from studio.core.job import EventTail, JobFolder
from studio.core.progress import Progress
from studio.worker import train as training
from tests.worker.adapters.fresh import IDS


@dataclass
class Watched(TrainerCallback):  # type: ignore[misc]
    """What had no gradients and changed all the same, what had them and didn't move, what the trained model says."""

    trainer: Any = None
    before: dict[str, str] = field(default_factory=dict)
    trained: dict[str, torch.Tensor] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    still: list[str] = field(default_factory=list)
    logits: torch.Tensor = field(default_factory=lambda: torch.zeros(0))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        model = self.trainer.model
        self.changed = [name for name, found in hashes(model, self.before).items() if found != self.before[name]]
        now = dict(model.named_parameters())
        self.still = [name for name, old in self.trained.items() if torch.equal(now[name].detach(), old)]
        was_training = model.training
        with torch.no_grad():
            self.logits = model.eval()(input_ids=torch.tensor([IDS])).logits[0]
        model.train(was_training)


def hashes(model: Any, names: Any) -> dict[str, str]:
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        for name, value in model.named_parameters()
        if name in names
    }


def watch(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The next run's trainer, looked at when it is built."""
    seen, build = Watched(), training.build_trainer

    def look(*args: Any, **kwargs: Any) -> Any:
        seen.trainer = build(*args, **kwargs)
        model = seen.trainer.model
        frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
        seen.before = hashes(model, frozen)
        seen.trainer.add_callback(seen)
        seen.trained = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        return seen.trainer

    monkeypatch.setattr(training, "build_trainer", look)
    return seen


def losses(job: JobFolder) -> list[float]:
    """The training loss of every step, as the run told it."""
    state = Progress()
    for event in EventTail(job.events).read():
        state.fold(event)
    return [value for _, value in state.series["loss"]]
