"""What would fit, told: the largest batch and length, and the changes that make a run fit.

In: a Forecast. Out: plain dicts for the page's script; changes are values of the form's controls by name. Takes many
estimates, so it is asked for after the verdict. Which changes there are and what they cost is core's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.core.config import RunConfig
from studio.core.forecast import Forecast, again, make_it_fit
from studio.core.memory.advice import Advice
from studio.ui import shown
from studio.ui.fitview import between, gb
from studio.ui.form import NAMES, title, to_values
from studio.ui.text_fit import say
from studio.ui.text_forms import ENGLISH as FORMS

_BATCH, _LENGTH = "training.per_device_train_batch_size", "training.max_length"


def more(found: Forecast) -> dict[str, Any]:
    """What takes many estimates: the largest batch and length, and what would make it fit."""
    return {"largest": _largest(found), "mend": mend(found)}


def _largest(found: Forecast) -> list[dict[str, Any]]:
    if not found.largest_micro_batch and not found.largest_max_length:  # unknown, or the verdict has said it
        return []
    batch, length = found.largest_micro_batch, found.largest_max_length
    told = []
    if batch is not None:
        whole = found.rows if found.rows and found.rows <= batch else None  # more rows than there are is no batch
        text = say("fit.largest.all", rows=shown.count(whole)) if whole else ""
        told.append(_most(found.config, "batch", _BATCH, whole or batch, text))
    if length is not None:
        told.append(_most(found.config, "length", _LENGTH, length))
    return told


def _most(config: RunConfig, key: str, name: str, most: int, text: str = "") -> dict[str, Any]:
    """A line of it; `changes` is empty where the form says so already."""
    now = getattr(config.training, name.rpartition(".")[2])
    return {
        "title": say(f"fit.largest.{key}"),
        "text": text or (shown.count(most) if most else say("fit.largest.none")),
        "set": say("fit.largest.set", title=title(name), value=shown.count(most)),
        "changes": {name: str(most)} if most and most != now else {},
    }


def mend(found: Forecast) -> dict[str, Any] | None:
    """The changes that are needed, cheapest first, each on top of those before it; None where it fits."""
    if found.verdict not in ("over", "tight"):
        return None
    steps = _needed(found, make_it_fit(found)[1])
    told, before = [], found.config
    for step in _joined(steps):
        after = step.apply(before)
        saves = say("fit.mend.saves", size=gb(found.needs(before) - found.needs(after)))
        changes = _alone(found.config, step, after)
        told.append({"text": told_change(before, after), "saves": saves, "cost": step.cost, "changes": changes})
        before = after
    return {
        "title": say("fit.mend.title" if found.verdict == "over" else "fit.mend.room"),
        "steps": told,
        "changes": _differing(found.config, before),
        "problem": _problem(found, before),
    }


def _problem(found: Forecast, mended: RunConfig) -> str:
    """What is left to say where all of it isn't enough."""
    if mended == found.config:
        return say("fit.mend.none")
    now = again(found, mended)
    return say("fit.mend.left", range=between(now.low, now.high)) if now.verdict == "over" else ""


def _needed(found: Forecast, steps: Sequence[Advice]) -> list[Advice]:
    """Without those that a later, larger one has made needless, if all together are enough."""
    if found.free is None:
        return list(steps)
    room = found.free / (1 + max(0.0, found.correction.high))
    for _ in range(3):
        kept = _within(found, steps, room)
        now = again(found, _applied(found.config, kept) or found.config)
        if now.verdict == "fits":
            return kept
        room *= min(0.98, found.free / now.high)  # what is reserved beyond what is needed
    return list(steps)


def _within(found: Forecast, steps: Sequence[Advice], room: float) -> list[Advice]:
    """Of the steps those without which `room` bytes would not be enough; the last of each kind goes first."""
    kept = list(steps)
    for group in {_knobs(step): None for step in steps}:
        for step in reversed([step for step in steps if _knobs(step) == group]):
            rest = [one for one in kept if one is not step]
            config = _applied(found.config, rest)
            if config is None or found.needs(config) > room:
                break
            kept = rest
    return kept


def _applied(config: RunConfig, steps: Sequence[Advice]) -> RunConfig | None:
    """The config with the steps made; None where one rests on another that isn't among them."""
    try:
        for step in steps:
            config = step.apply(config)
    except (ValueError, TypeError):  # such as the rank of an adapter that isn't there yet
        return None
    return config


def _knobs(step: Advice) -> tuple[str, ...]:
    return tuple(sorted(step.change))


def _joined(steps: Sequence[Advice]) -> list[Advice]:
    """Changes of the same knobs as one, where the first of them stands: a batch halved twice is a quarter."""
    return list({_knobs(step): step for step in steps}.values())


def _alone(config: RunConfig, step: Advice, after: RunConfig) -> dict[str, Any]:
    """What a step changes by itself; where it rests on those before it, with them."""
    return _differing(config, _applied(config, [step]) or after)


def _differing(before: RunConfig, after: RunConfig) -> dict[str, Any]:
    """Controls by name whose value is another, and that value."""
    old, new = to_values(before), to_values(after)
    return {name: new[name] for name in NAMES if new[name] != old[name]}


def told_change(before: RunConfig, after: RunConfig) -> str:
    """A change in words: what each control says now, and what it would say."""
    old, new = to_values(before), to_values(after)
    return ", ".join(
        say("fit.mend.change", title=title(name), before=_value(old[name]), after=_value(new[name]))
        for name in NAMES
        if new[name] != old[name]
    )


def adapter_title(kind: str) -> str:
    """A way to train, as the form calls it."""
    return FORMS[f"train.adapter.{kind}"]


def _value(value: Any) -> str:
    if value in ("", None):
        return say("fit.mend.empty")
    word = str(value).lower()
    if word in ("true", "false"):
        return say("fit.mend.on" if word == "true" else "fit.mend.off")
    return FORMS.get(f"train.adapter.{word}", str(value))
