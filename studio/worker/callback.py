"""The one thing that stands between a trainer and the world: it writes events and obeys the stop file.

In: the Trainer's callbacks. Out: Metrics and CheckpointSaved events; a stop that saves first. Works with every
trainer of TRL; how the loss is made isn't known here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from studio.core.errors import RunError
from studio.core.events import Metrics
from studio.worker import checkpoints
from studio.worker.job import Job
from studio.worker.measure import Measure

# Trainer's names for what we show under other names, or not at all.
# What the Trainer says of its own pace, and of what was asked of it.
_PACE = {"runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "num_tokens"}
_LEFT_OUT = {
    "epoch",
    "total_flos",
    "train_loss",
    "num_tokens",
    *(f"{kind}_{name}" for kind in ("train", "eval") for name in _PACE),
}


class StudioCallback(TrainerCallback):  # type: ignore[misc]
    """`keep`: complete checkpoints to keep. `tokens` returns how many tokens were trained on so far."""

    def __init__(self, job: Job, keep: int, tokens: Callable[[], int], measure: Measure) -> None:
        self.job = job
        self.keep = keep
        self.tokens = tokens
        self.measure = measure
        self.stopped = False
        self._began = time.monotonic()
        self._busy = 0.0
        self._step_began = 0.0
        self._mark = (0, 0.0)

    def elapsed(self) -> float:
        """Seconds of work so far, over all attempts."""
        return self.job.before.elapsed + time.monotonic() - self._began

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._mark = (self.tokens(), 0.0)
        self.measure.begin()
        self.job.stage("train", "Training", unit="steps")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_began = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.measure.wait()
        seconds = time.monotonic() - self._step_began
        self._busy += seconds
        self.measure.step(seconds, self.tokens())
        if not self.job.folder.process.exists():
            # Going on would make the folder anew, half of it, where somebody wanted it gone.
            raise RunError("The run's folder was removed while it trained.", "Start a new run.")
        if self.job.stop_asked() and state.global_step < state.max_steps:
            self.stopped = True
            control.should_training_stop = True
            control.should_save = True
            control.should_evaluate = False
        if control.should_save:
            control.should_log = True  # what is no number must be seen before it is saved in a good one's place

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        values = {k: float(v) for k, v in (logs or {}).items() if k not in _LEFT_OUT and _is_number(v)}
        if not values:
            return
        if "loss" in values:
            tokens, busy = self._mark
            if self._busy > busy:
                values["tokens_per_second"] = (self.tokens() - tokens) / (self._busy - busy)
            self._mark = (self.tokens(), self._busy)
        self.job.metrics(
            Metrics(state.global_step, state.max_steps, round(state.epoch or 0.0, 4), round(self.elapsed(), 3), values)
        )
        if not all(math.isfinite(values.get(name, 0.0)) for name in ("loss", "grad_norm")):
            raise RunError(
                f"The loss or its gradient stopped being a number at step {state.global_step}.",
                "Lower the learning rate, or use float32 (model.dtype); the last good checkpoint is kept.",
            )

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.job.stage("train", "Training", unit="steps")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = self.job.folder.checkpoints / f"checkpoint-{state.global_step}"
        checkpoints.publish(folder)
        self.job.checkpoint(state.global_step, folder.relative_to(self.job.folder.path).as_posix())
        checkpoints.rotate(
            self.job.folder.checkpoints, self.keep, state.best_global_step if args.load_best_model_at_end else None
        )
        self.measure.write()


def evaluated(history: list[dict[str, Any]]) -> dict[str, float]:
    """What the last evaluation measured, by names without `eval_`; nothing where there was none."""
    last: dict[str, Any] = next((entry for entry in reversed(history) if "eval_loss" in entry), {})
    kept = {name: value for name, value in last.items() if name.startswith("eval_") and name not in _LEFT_OUT}
    return {name.removeprefix("eval_"): float(value) for name, value in kept.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
