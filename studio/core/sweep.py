"""A search for better knobs: what varies, which trials there were, and which was best.

In: `knob=low:high[:log]` or `knob=a,b,c`, a run's settings, the trials' runs. Out: a SweepConfig, inert; Trials with
their figures. Which values are tried next isn't known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from studio.core.config import RunConfig, Section
from studio.core.configfile import override, parse_config
from studio.core.errors import ConfigError

Outcome = Literal["running", "finished", "pruned", "stopped", "failed"]


@dataclass(frozen=True)
class Vary:
    """One knob and where it is looked for: between `low` and `high` (inclusive), or one of `choices`."""

    path: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()


def parse_vary(text: str) -> Vary:
    """`training.learning_rate=1e-5:1e-3:log`, `adapter.r=8,16,32`, `training.num_train_epochs=1:3`.

    Two whole numbers stand for the whole numbers between them. Raises ConfigError.
    """
    path, sign, values = text.partition("=")
    path = path.strip()
    if not sign or not path or not values.strip():
        raise ConfigError(path, f"{text!r} doesn't say what to try.", _EXAMPLE)
    if ":" in values:
        low, high, *scale = (part.strip() for part in values.split(":"))
        if scale not in ([], ["log"]):
            raise ConfigError(path, f"there is no scale {':'.join(scale)!r}.", _EXAMPLE)
        ends = [_number(path, end) for end in (low, high)]
        if not ends[0] < ends[1]:
            raise ConfigError(path, f"{low} isn't below {high}.", _EXAMPLE)
        if scale and ends[0] <= 0:
            raise ConfigError(path, "a logarithmic range begins above 0.", _EXAMPLE)
        return Vary(path, float(ends[0]), float(ends[1]), bool(scale), all(isinstance(end, int) for end in ends))
    choices = tuple(_value(path, part) for part in values.split(","))
    if len(choices) < 2 or len(set(map(repr, choices))) < len(choices):
        raise ConfigError(path, "there must be two different values at least.", _EXAMPLE)
    return Vary(path, choices=choices)


_EXAMPLE = "Write it as training.learning_rate=1e-5:1e-3:log, or as adapter.r=8,16,32."


def _value(path: str, text: str) -> Any:
    return override({}, [f"value={text.strip()}"])["value"]


def _number(path: str, text: str) -> int | float:
    value = _value(path, text)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(path, f"{text!r} is no number.", _EXAMPLE)
    found: int | float = value
    return found


class SweepConfig(Section):
    """What a sweep is told: `vary` as typed, how many trials, and which figure says how good one was.

    `prune`: a trial whose figure is worse than most were at that step is ended early.
    """

    name: str = ""
    base: RunConfig = RunConfig()
    vary: list[str] = Field(min_length=1, max_length=16)
    trials: int = Field(8, ge=1, le=1000)
    metric: str = Field("eval_loss", min_length=1)
    maximize: bool = False
    prune: bool = True
    seed: int = Field(42, ge=0, le=2**32 - 1)

    @field_validator("vary")
    @classmethod
    def _each_knob_once(cls, vary: list[str]) -> list[str]:
        paths = [parse_vary(text).path for text in vary]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice:
            raise ValueError(f"vary: {twice} stands there twice")
        return vary

    @model_validator(mode="after")
    def _there_is_something_to_go_by(self) -> SweepConfig:
        held = self.base.dataset.validation_split > 0 or self.base.dataset.validation_path
        if self.metric.startswith("eval_") and not held:
            raise ValueError("base.dataset.validation_split: without held-out rows no trial is better than another")
        return self

    @property
    def ranges(self) -> list[Vary]:
        return [parse_vary(text) for text in self.vary]


def check_ranges(config: SweepConfig) -> None:
    """Raises ConfigError where a knob isn't there, or an end of its range is no value of it."""
    for vary in config.ranges:
        for value in vary.choices or (vary.low, vary.high):
            trial_config(config, {vary.path: int(value) if vary.whole else value})


def trial_config(config: SweepConfig, values: Mapping[str, Any]) -> RunConfig:
    """The run of a trial. Raises ConfigError."""
    data: dict[str, Any] = config.base.model_dump(mode="json")
    for path, value in values.items():
        *sections, leaf = path.split(".")
        place = data
        for name in sections:
            inner = place.get(name)
            if not isinstance(inner, dict):
                raise ConfigError(path, "there is no such knob.", "Name one as in run.yaml.")
            place = inner
        place[leaf] = value
    return parse_config(data)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep. `value`: its figure where it has one; `seen`: (step, figure) at each validation so far."""

    number: int
    values: Mapping[str, Any]
    run_id: str
    outcome: Outcome = "running"
    value: float | None = None
    seen: tuple[tuple[int, float], ...] = field(default=())


def best_trial(config: SweepConfig, trials: list[Trial]) -> Trial | None:
    """The finished trial with the best figure."""
    done = [trial for trial in trials if trial.outcome == "finished" and trial.value is not None]
    sign = -1 if config.maximize else 1
    return min(done, key=lambda trial: sign * (trial.value or 0.0), default=None)
