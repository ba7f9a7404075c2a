"""What the page draws the form from: every knob, method and adapter with its words, as plain data.

In: core's knobs, the tables of words. Out: one JSON object, the same for every page of a studio. Choices whose package
isn't installed are marked. Knows no values: these are `form`'s.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from studio.core.config import EXPERIMENTAL
from studio.core.fitting import FITTING
from studio.core.knobs import Knob
from studio.core.packages import available_optimizers, available_trackers
from studio.core.sections.reinforcement import REWARDS
from studio.ui import form, text_forms, text_methods
from studio.ui.text_methods import say

GROUPS: dict[str, tuple[str, ...]] = {
    "answers": ("sft", "pretrain", "distill"),
    "preferences": ("dpo", "kto", "orpo", "cpo"),
    "reward": ("reward",),
    "own": ("grpo", "rloo", "online_dpo", "ppo"),
}
FOLDS = ("data", "optimizer", "method", "adapter", "memory", "checkpoints")
_LONG = ("dataset.system_prompt",)
# Rules that are only a source, or a way to write it, are no rule of thumb.
_SOURCE = re.compile(r"^(\w+: )?(arXiv:|[A-Z_]{8,}=)")
# What only means something on a quantized base.
ONLY_QUANTIZED = ("model.double_quant", "model.prepare_for_kbit")


@lru_cache(maxsize=1)
def sheet() -> dict[str, Any]:
    """See the module."""
    return {
        "knobs": [_knob(name, form.KNOBS[name]) for name in form.DRAWN if name in form.KNOBS],
        "folds": [{"name": name, "title": text_forms.ENGLISH[f"train.group.{name}"]} for name in FOLDS],
        "methods": [
            {"title": say(f"method.group.{group}"), "methods": [_method(name) for name in names]}
            for group, names in GROUPS.items()
        ],
        "adapters": [_adapter(kind) for kind in form.KINDS],
        "side": list(form.ADAPTERS),
        "unquantized": list(form.UNQUANTIZED),
        "only_quantized": list(ONLY_QUANTIZED),
        "rewards": [_reward(kind, argument) for kind, argument in REWARDS.items()],
        "words": {
            **{
                key: text
                for key, text in text_methods.ENGLISH.items()
                if key.startswith(("form.", "adapter.more", "method.misfit"))
            },
            **{key: text_methods.ENGLISH[f"method.{key}"] for key in ("experimental", "experimental.note")},
            "method": text_forms.ENGLISH["train.method"],
            "adapter": text_forms.ENGLISH["train.adapter"],
        },
    }


def _knob(name: str, knob: Knob) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": name,
        "title": text_forms.ENGLISH["train.unit"].format(title=knob.title, unit=knob.unit) if knob.unit else knob.title,
        "argument": knob.name,
        "help": knob.help,
        "kind": _kind(name, knob),
        "fold": "" if knob.basic or name == form.QUANTIZATION else knob.group,
    }
    if knob.rule:
        told["rule"] = knob.rule if _SOURCE.match(knob.rule) else say("form.rule", rule=knob.rule)
    if knob.of:
        told["of"] = knob.of
    if knob.optional:
        told["optional"] = True
    if knob.choices:
        told["choices"] = [[choice, _choice(name, choice)] for choice in knob.choices]
    return told


def _kind(name: str, knob: Knob) -> str:
    """The control: by the knob's kind, but for those that have one of their own."""
    if knob.name in ("rewards", "target_modules"):
        return knob.name
    if name in _LONG:
        return "long"
    return knob.kind if knob.kind in ("bool", "choice", "list") else "text"


def _choice(name: str, choice: str) -> str:
    packages = {"training.optim": available_optimizers, "training.report_to": available_trackers}.get(name, dict)()
    package = packages.get(choice, "")
    return say("form.needs_package", choice=choice, package=package) if package else choice


def _method(name: str) -> dict[str, Any]:
    fitting = FITTING[name]
    key = "questions" if "prompt_only" in fitting else "answers" if len(fitting) > 1 and name != "kto" else fitting[0]
    rows = say(f"method.rows.{key}")
    return {
        "name": name,
        "title": say(f"method.{name}"),
        "note": say(f"method.{name}.note"),
        "rows": say("method.needs", rows=rows),
        "experimental": name in EXPERIMENTAL,
    }


def _adapter(kind: str) -> dict[str, str]:
    words = (text_forms if kind in form.ADAPTERS else text_methods).ENGLISH
    key = f"train.adapter.{kind}" if kind in form.ADAPTERS else f"adapter.{kind}"
    return {"name": kind, "title": words[key], "note": words[f"{key}.note"]}


def _reward(kind: str, argument: str) -> dict[str, str]:
    told = {"name": kind, "title": say(f"form.reward.{kind}")}
    return {**told, "argument": say(f"form.reward.{kind}.argument")} if argument else told
