"""How the learning rate moves during a run: the numbers of transformers' schedules, without torch.

In: a config, the number of its optimizer steps. Out: the share of the learning rate at a step, and a line of such
points to draw. Knows no optimizer; `reduce_lr_on_plateau` goes by what validation will say, so it is level here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from studio.core.config import RunConfig

Kwargs = Mapping[str, Any]
# (step after the warm-up, steps after the warm-up) and the schedule's own arguments -> share of the rate
_After = Callable[[float, float, Kwargs, float], float]


def warmup_steps(config: RunConfig, steps: int) -> int:
    """Steps over which the rate rises, of `steps` in all; as transformers does it, a share is rounded up."""
    knobs = config.training
    return math.ceil(knobs.warmup_ratio * steps) if knobs.warmup_steps is None else knobs.warmup_steps


def rate_share(config: RunConfig, step: float, steps: int) -> float:
    """The learning rate at `step` of `steps`, as a share of training.learning_rate.

    Source: the lambdas of transformers/optimization.py (`get_scheduler`). Raises ValueError, TypeError, KeyError,
    ZeroDivisionError or OverflowError for arguments of a schedule that make no sense.
    """
    knobs = config.training
    kind, given = knobs.lr_scheduler_type, knobs.lr_scheduler_kwargs
    warmup = warmup_steps(config, steps)
    if kind in ("constant", "reduce_lr_on_plateau"):
        return 1.0
    if kind == "warmup_stable_decay":
        return _stable(step, steps, warmup, given)
    if kind == "cosine_warmup_with_min_lr":
        return _rising_cosine(step, steps, warmup, given, knobs.learning_rate)
    if step < warmup:
        return step / max(1, warmup)
    if kind == "inverse_sqrt":
        scale = float(given.get("timescale") or warmup or 10_000)
        return 1 / math.sqrt((step + scale - warmup) / scale)
    if kind == "polynomial":
        return _polynomial(step, steps, warmup, given, knobs.learning_rate)
    return _AFTER[kind](step - warmup, max(1, steps - warmup), given, knobs.learning_rate)


def rate_line(config: RunConfig, steps: int, points: int = 120) -> list[tuple[float, float]]:
    """(step, share) to draw a run's schedule by; empty where the schedule's arguments make no sense."""
    most = max(1, steps)
    corner = {0.0, float(min(warmup_steps(config, most), most)), float(most)}
    places = sorted(corner | {most * at / points for at in range(points + 1)})
    try:
        return [(place, rate_share(config, place, most)) for place in places]
    except (ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError):
        return []


def _linear(step: float, steps: float, given: Kwargs, rate: float) -> float:
    return max(0.0, (steps - step) / steps)


def _level(step: float, steps: float, given: Kwargs, rate: float) -> float:
    return 1.0


def _cosine(step: float, steps: float, given: Kwargs, rate: float) -> float:
    return max(0.0, _wave(step / steps, given))


def _restarting(step: float, steps: float, given: Kwargs, rate: float) -> float:
    cycles, progress = float(given.get("num_cycles", 1)), step / steps
    return 0.0 if progress >= 1 else max(0.0, 0.5 * (1 + math.cos(math.pi * ((cycles * progress) % 1))))


def _floored(step: float, steps: float, given: Kwargs, rate: float) -> float:
    return _above(_wave(step / steps, given), _floor(given, rate))


_AFTER: dict[str, _After] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant_with_warmup": _level,
    "cosine_with_restarts": _restarting,
    "cosine_with_min_lr": _floored,
}


def _wave(progress: float, given: Kwargs) -> float:
    """Half a cosine by default, from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * 2 * float(given.get("num_cycles", 0.5)) * progress))


def _above(share: float, floor: float) -> float:
    return max(0.0, share * (1 - floor) + floor)


def _floor(given: Kwargs, rate: float) -> float:
    return float(given["min_lr"]) / rate if "min_lr" in given else float(given.get("min_lr_rate", 0.0))


def _polynomial(step: float, steps: int, warmup: int, given: Kwargs, rate: float) -> float:
    end, power = float(given.get("lr_end", 1e-7)), float(given.get("power", 1.0))
    if step > steps or steps <= warmup:
        return end / rate
    left = 1 - (step - warmup) / (steps - warmup)
    return float(((rate - end) * left**power + end) / rate)


def _rising_cosine(step: float, steps: int, warmup: int, given: Kwargs, rate: float) -> float:
    """Counts from the end of a step, so that not even the first one is of rate zero."""
    if step < warmup:
        start = given.get("warmup_lr_rate")
        if start is None:
            return min(1.0, (step + 1) / max(1, warmup))
        return min(1.0, float(start) + (1 - float(start)) * step / max(1, warmup - 1))
    progress = (step - warmup + 1) / max(1, steps - warmup)
    return _above(_wave(progress, given), _floor(given, rate))


def _stable(step: float, steps: int, warmup: int, given: Kwargs) -> float:
    floor = float(given.get("min_lr_ratio", 0.0))
    decay = float(given.get("num_decay_steps", math.ceil(0.1 * steps)))  # as worker/trainers/arguments.py has it
    stable = float(given.get("num_stable_steps", steps - warmup - decay))
    if step < warmup:
        progress = step / max(1, warmup)
        rising = {
            "linear": progress,
            "cosine": 0.5 * (1 - math.cos(math.pi * progress)),
            "1-sqrt": 1 - math.sqrt(1 - progress),
        }
        return _above(rising[str(given.get("warmup_type", "linear"))], floor)
    if step < warmup + stable:
        return 1.0
    if step < warmup + stable + decay:
        progress = (step - warmup - stable) / max(1.0, decay)
        falling = {"linear": 1 - progress, "cosine": _wave(progress, given), "1-sqrt": 1 - math.sqrt(progress)}
        return _above(falling[str(given.get("decay_type", "cosine"))], floor)
    return floor
