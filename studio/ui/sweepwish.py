"""A search for better settings, as it is asked for: what can be varied, between what, and what is wrong with a wish.

In: the form's values and what was typed beside them. Out: a SweepConfig, or problems, each with its field; plain dicts
of what there is to pick. Judges nothing itself: what may be tried is core's to say, and its sentence is put where it
belongs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.core.config import RunConfig
from studio.core.configfile import parse_as, parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import Knob, knobs
from studio.core.sweep import SweepConfig, check_ranges, parse_vary, trial_config
from studio.ui import form, shown
from studio.ui.fitview import roughly
from studio.ui.spelling import number, written
from studio.ui.text_sweep import say

FIRST = ("training.learning_rate", "adapter.r")  # what is suggested to vary, where the run has it
_GROUPS = ("", "method", "adapter", "optimizer", "data")
# What decides which rows are judged makes figures that can't be compared; the others are no settings of a training.
_NEVER = {
    *(f"dataset.{name}" for name in ("validation_split", "test_split", "format", "group_duplicates")),
    *("dataset.stopping_strategy", "training.find_learning_rate", "training.full_determinism", "method.allow_code"),
}
_RATES = {"training.learning_rate", "training.adam_epsilon"}  # sought over decades
# By method: the figures beside the losses, and those of them that are better high.
_FIGURES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("sft", "pretrain"), ("eval_mean_token_accuracy",)),
    **dict.fromkeys(("dpo", "kto", "orpo", "cpo"), ("eval_rewards/accuracies", "eval_rewards/margins")),
    "reward": ("eval_accuracy", "eval_margin"),
    **dict.fromkeys(("grpo", "rloo"), ("reward", "eval_reward")),
    **dict.fromkeys(("ppo", "online_dpo"), ("reward",)),
}
_LOSSES = ("eval_loss", "loss")


class Row(BaseModel):
    """One knob and what was typed beside it: the ends of a range, or choices."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(max_length=100)
    by: Literal["range", "choices"] = "range"
    low: str = Field(default="", max_length=60)
    high: str = Field(default="", max_length=60)
    log: bool = False
    choices: str = Field(default="", max_length=2000)

    def spelt(self) -> str:
        """As core reads it."""
        scale = ":log" if self.log else ""
        values = self.choices if self.by == "choices" else f"{self.low.strip()}:{self.high.strip()}{scale}"
        return f"{self.path}={values}"


class Wish(BaseModel):
    """The form, and what is asked of a search beside it. `vary` is None until something was chosen."""

    model_config = ConfigDict(extra="forbid")

    values: dict[str, Any] = Field(max_length=500)
    vary: list[Row] | None = Field(default=None, max_length=16)
    trials: str = Field(default="8", max_length=20)
    metric: str = Field(default="eval_loss", max_length=100)
    prune: bool = True
    name: str = Field(default="", max_length=200)


def base_of(values: Mapping[str, Any], *, finds: bool = False) -> RunConfig:
    """The form's config, as a run that trains, or as one that only `finds` a learning rate. Raises ConfigError."""
    known = {name: value for name, value in values.items() if name in form.NAMES}
    data = form.to_config({**form.to_values(RunConfig()), **known}).model_dump()
    data["training"]["find_learning_rate"] = finds
    if finds and (data["training"]["max_steps"] or 0) > _SHORT:
        data["training"]["max_steps"] = None
    return parse_config(data)


_SHORT = 400  # steps from which on a finder's run is no short one any more: it takes its usual number


# -- what can be varied -----------------------------------------------------------------------------------------------


def variable(config: RunConfig) -> list[dict[str, Any]]:
    """The knobs that this run has and a search may vary, with what stands there now and what to try around it."""
    tree = config.model_dump()
    known = [knob for knob in _known(config).values() if knob.group in _GROUPS and knob.path not in _NEVER]
    return [_knob(knob, tree) for knob in (_narrowed(config, knob) for knob in known)]


def _known(config: RunConfig) -> dict[str, Knob]:
    """The knobs of a run's own method and adapter that a range or a list of choices can be given for, by path."""
    has = ("", config.method.name, config.adapter.type if config.adapter else "")
    kinds = ("int", "float", "bool", "choice")
    gone = "adapter." if config.adapter is None else "\n"
    return {k.path: k for k in knobs() if k.of in has and k.kind in kinds and not k.path.startswith(gone)}


def _narrowed(config: RunConfig, knob: Knob) -> Knob:
    """A knob with those of its choices that go with the rest of the run: some schedules need more than their name."""
    sweep = SweepConfig.model_construct(base=config)

    def goes(choice: str) -> bool:
        try:
            trial_config(sweep, {knob.path: {"true": True, "false": False}.get(choice, choice)})
        except ConfigError:
            return False
        return True

    return replace(knob, choices=tuple(filter(goes, knob.choices)))


def _knob(knob: Knob, tree: Mapping[str, Any]) -> dict[str, Any]:
    section, leaf = knob.path.split(".")
    value = tree[section].get(leaf)
    return {
        "path": knob.path,
        "title": knob.title,
        "name": knob.name,
        "group": say(f"sweep.group.{knob.group or 'basic'}"),
        "help": knob.help,
        "now": written(knob, value) if knob.kind != "bool" else str(value).lower(),
        "suggestion": suggestion(knob, value),
    }


def suggestion(knob: Knob, value: Any) -> dict[str, Any]:
    """What to try around a knob's present value, as it would be typed."""
    if knob.kind == "bool":
        return _choices("true", "false")
    if knob.kind == "choice":
        return _choices(*knob.choices)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return _range("", "")
    if knob.path in _RATES and value > 0:
        decade = math.floor(math.log10(value) + 1e-9)
        return _range(_within(knob, 10.0 ** (decade - 1)), _within(knob, 10.0 ** (decade + 1)), log=True)
    if knob.kind == "int":
        near = sorted({int(_within(knob, each)) for each in (value // 2, value, value * 2)})
        return _choices(*map(number, near)) if value and len(near) > 1 else _range("", "")
    most = value * 2 if knob.lt is None else min(value * 2, (value + knob.lt) / 2)
    low, high = (_within(knob, value / 2), _within(knob, most)) if value else (0.0, _within(knob, 0.1))
    return _range(low, high)


def _within(knob: Knob, value: float) -> float:
    floor = knob.ge if knob.ge is not None else value
    ceiling = knob.le if knob.le is not None else value
    return float(f"{min(max(value, floor), ceiling):.4g}")


def _range(low: float | str, high: float | str, log: bool = False) -> dict[str, Any]:
    ends = [end if isinstance(end, str) else number(end) for end in (low, high)]
    return {"by": "range", "low": ends[0], "high": ends[1], "log": log, "choices": ""}


def _choices(*words: str) -> dict[str, Any]:
    return {"by": "choices", "low": "", "high": "", "log": False, "choices": ", ".join(words)}


def figures(config: RunConfig) -> list[dict[str, Any]]:
    """The figures that trials of this run can be judged by."""
    names = (*_LOSSES, *_FIGURES.get(config.method.name, ()))
    return [{"name": name, "title": say(f"sweep.figure.{name}"), "high": high_is_good(name)} for name in names]


def high_is_good(metric: str) -> bool:
    """Whether a trial is better for a higher figure: an accuracy, a margin, a reward."""
    return metric not in _LOSSES


# -- a wish, judged ---------------------------------------------------------------------------------------------------


def judge(wish: Wish) -> tuple[SweepConfig | None, list[dict[str, str]]]:
    """The config of a search, or what is wrong with it: each problem with its `field` and core's sentence.

    Fields are `vary.<number>`, `trials`, `metric`, and empty for what has no field of its own.
    """
    try:
        base = base_of(wish.values)
    except ConfigError:  # said at its field, on the form itself
        return None, [_problem("", say("sweep.base"))]
    rows = wish.vary or []
    problems = [_problem(f"vary.{place}", said) for place, row in enumerate(rows) if (said := _fault(base, row))]
    if not rows:
        problems.append(_problem("", say("sweep.none_chosen")))
    if wish.metric not in [figure["name"] for figure in figures(base)]:
        problems.append(_problem("metric", say("sweep.figure.unknown")))
    sound = not problems
    try:
        config = _config(wish, base, [row.spelt() for row in rows] if sound else _STAND_IN)
    except ConfigError as error:
        field = "metric" if error.field.startswith("base.dataset.") else error.field
        return None, [*problems, _problem(field if field in ("trials", "metric") else "", _sentence(error, field))]
    return config if sound else None, problems


_STAND_IN = ["training.learning_rate=1e-5:1e-3"]  # for rows at fault: the rest is judged nonetheless


def config_of(wish: Wish) -> SweepConfig:
    """The config of a search. Raises ConfigError with the first thing that is wrong."""
    config, problems = judge(wish)
    if config is None:
        raise ConfigError("", problems[0]["text"])
    return config


def _config(wish: Wish, base: RunConfig, vary: list[str]) -> SweepConfig:
    trials = wish.trials.strip()
    wished = {"metric": wish.metric, "maximize": high_is_good(wish.metric), "prune": wish.prune, "name": wish.name}
    number_ = int(trials) if trials.isascii() and trials.isdigit() else trials
    return parse_as(SweepConfig, {"base": base.model_dump(), "vary": vary, "trials": number_, **wished})


def _fault(base: RunConfig, row: Row) -> str:
    """What is wrong with one knob's row; empty where nothing is. Ends of a range must be values of the knob."""
    try:
        parse_vary(row.spelt())
        check_ranges(SweepConfig.model_construct(base=base, vary=[row.spelt()]))
    except ConfigError as error:
        if error.field not in ("", row.path):  # a value of this one doesn't go with another knob
            return f"{form.title(error.field) if error.field in form.KNOBS else error.field}: {error.message}"
        return _sentence(error, row.path)
    return ""


def _sentence(error: ConfigError, field: str) -> str:
    told = error.message
    if told.startswith("should "):
        return say("sweep.should", title=say("sweep.trials") if field == "trials" else say("sweep.each"), message=told)
    return f"{told[:1].upper()}{told[1:]}"


def _problem(field: str, text: str) -> dict[str, str]:
    return {"field": field, "text": shown.plain(text, 300)}


def time_told(trials: int, seconds: float, prune: bool) -> str:
    """How long all trials will take, one after the other."""
    told = say("sweep.time", trials=trials, each=roughly(seconds), all=roughly(trials * seconds))
    return f"{told} {say('sweep.time.pruned')}" if prune else told
