"""The learning-rate finder: a short run whose rate rises at every step, and what its losses say of the rate to take.

In: a trainer that is ready to train. Out: the rates, the losses, a suggestion. Smith 2015, "Cyclical Learning Rates for
Training Neural Networks" (arXiv:1506.01186, section 3.3): good rates lie where the loss falls; here, where it falls
fastest. Nothing is validated and nothing is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from studio.core.config import RunConfig

STEPS = 80
LOWEST, HIGHEST = 1e-7, 1.0
_EACH_SIDE = 3  # neighbours that smooth a loss
_HOPELESS = 3.0  # times the best loss: what comes after only gets worse
_EDGE = 4  # steps at either end with fewer neighbours


class RateFinder(TrainerCallback):  # type: ignore[misc]
    """Sets the rate before each step and hears the loss after it."""

    def __init__(self, trainer: Any, steps: int) -> None:
        self.trainer, self.steps = trainer, steps
        self.rates: list[float] = []
        self.losses: list[float] = []

    @classmethod
    def over(cls, trainer: Any, config: RunConfig) -> RateFinder:
        """Make a trainer's run a finder's: short, logged at every step, nothing kept."""
        finder = cls(trainer, config.training.max_steps or STEPS)
        arguments = trainer.args
        arguments.max_steps, arguments.logging_steps = finder.steps, 1
        arguments.save_strategy, arguments.eval_strategy = "no", "no"
        arguments.load_best_model_at_end = False
        trainer.callback_handler.callbacks.insert(0, finder)  # what is logged has the finder's rate before it is told
        return finder

    def rate(self, step: int) -> float:
        """The rate of a step, counted from 0: evenly on a logarithmic scale."""
        return float(LOWEST * (HIGHEST / LOWEST) ** (step / max(1, self.steps - 1)))

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = self.rate(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs is None or "loss" not in logs or len(self.losses) >= state.global_step:
            return
        logs["learning_rate"] = self.rate(state.global_step - 1)
        loss = float(logs["loss"])
        for name in ("loss", "grad_norm"):  # a rate at which they are no numbers is the end of the search, no fault
            if not math.isfinite(float(logs.get(name, 0.0))):
                del logs[name]
        if math.isfinite(loss):
            self.rates.append(logs["learning_rate"])
            self.losses.append(loss)
        if not math.isfinite(loss) or loss > _HOPELESS * min(self.losses):
            control.should_training_stop = True

    def result(self) -> dict[str, Any]:
        """As it stands in the run's result."""
        return {"rates": self.rates, "losses": self.losses, "suggested": suggestion(self.rates, self.losses)}


def smoothed(losses: Sequence[float]) -> list[float]:
    """Each loss as the mean of itself and its neighbours to either side: a running mean would lag behind the rate."""
    reach = [range(max(0, at - _EACH_SIDE), min(len(losses), at + _EACH_SIDE + 1)) for at in range(len(losses))]
    return [sum(losses[near] for near in places) / len(places) for places in reach]


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls fastest by the logarithm of the rate; None where it never falls."""
    finite = [loss for loss in losses if math.isfinite(loss)]
    mean = smoothed(finite)
    if len(mean) < 2 * _EDGE + 2:
        return None
    lowest = mean.index(min(mean))
    slopes = {
        at: (mean[at + 1] - mean[at - 1]) / math.log(rates[at + 1] / rates[at - 1])
        for at in range(_EDGE, min(len(mean) - 1, lowest + 1))
    }
    steepest = min(slopes, key=lambda at: slopes[at], default=None)
    if steepest is None or slopes[steepest] >= 0:
        return None
    return float(f"{rates[steepest]:.2g}")
