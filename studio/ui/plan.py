"""What a run will be, told before it starts: its steps, the command that repeats it, and what is unwise about it.

In: a valid RunConfig and a few facts about what it names. Out: figures, HTML for the card, advice with what would
mend it. Reads no files and starts nothing; what memory and time it takes isn't known here.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import yaml

from studio.core.config import RunConfig
from studio.core.configfile import override, parse_config
from studio.core.errors import ConfigError
from studio.core.schedule import optimizer_steps, split_sizes
from studio.ui import shown
from studio.ui.spelling import number
from studio.ui.text_forms import say

_FULL_RATE = 1e-3  # above it, training every weight is known to wreck a model rather than teach it


@dataclass(frozen=True)
class Facts:
    """What is known of the things a config names. `rows`: of the dataset; `longest`: tokens the model was made for;
    `merge`: what merging the run will take, in a line.
    """

    rows: int | None = None
    longest: int | None = None
    busy: bool = False
    merge: str = ""


@dataclass(frozen=True)
class Advice:
    """A warning in plain words; `changes`, knob by knob as written in the form, would mend it, and `mend` says so."""

    key: str
    text: str
    mend: str
    changes: Mapping[str, str] = field(default_factory=dict)


def split(config: RunConfig, rows: int) -> tuple[int, int]:
    """Rows to learn from, and rows held out, if all `rows` of a file can be used."""
    sizes = split_sizes(config.dataset, min(rows, config.dataset.max_samples or rows))
    return sizes.train, sizes.validation + sizes.test


def effective_batch(config: RunConfig) -> int:
    return config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps


def effective(config: RunConfig) -> str:
    """What stands beside batch size and accumulation."""
    return escape(say("plan.effective", total=shown.count(effective_batch(config))))


def card(config: RunConfig, facts: Facts) -> str:
    """The card "This run", as HTML."""
    knobs = config.training
    batch = say(
        "plan.batch.value",
        total=shown.count(effective_batch(config)),
        size=knobs.per_device_train_batch_size,
        accumulation=knobs.gradient_accumulation_steps,
    )
    pairs = [
        (say("plan.rows"), _rows(config, facts)),
        (say("plan.epochs"), number(knobs.num_train_epochs)),
        (say("plan.batch"), batch),
        (say("plan.steps"), _steps(config, facts)),
        (say("plan.trains"), _trains(config)),
        *([(say("plan.merge"), escape(facts.merge))] if facts.merge else []),
    ]
    waits = f'<p class="st-note">{escape(say("plan.queue"))}</p>' if facts.busy else ""
    return f"<h3>{escape(say('plan.title'))}</h3>{shown.facts(pairs)}{waits}"


def _rows(config: RunConfig, facts: Facts) -> str:
    if facts.rows is None:
        return say("plan.rows.unknown")
    train, held = split(config, facts.rows)
    key = "plan.rows.value" if held else "plan.rows.all"
    return say(key, train=shown.count(train), held=shown.count(held))


def _steps(config: RunConfig, facts: Facts) -> str:
    if facts.rows is None:
        return shown.count(config.training.max_steps) if config.training.max_steps else say("plan.steps.unknown")
    told = shown.count(optimizer_steps(config, split(config, facts.rows)[0]))
    return say("plan.steps.packed", steps=told) if config.training.packing else told


def _trains(config: RunConfig) -> str:
    adapter = config.adapter
    if adapter is None:
        return say("plan.trains.full")
    modules = adapter.target_modules
    named = modules if isinstance(modules, str) else ", ".join(modules)
    where = say("plan.where.all") if modules == "all-linear" else shown.line(named, 80)
    quantization = config.model.quantization
    return say(
        f"plan.trains.{'lora' if quantization == 'none' else 'qlora'}",
        r=adapter.r,
        where=where,
        quantization=quantization,
    )


def advice(config: RunConfig, facts: Facts) -> list[Advice]:
    """What is likely to hurt, as far as it can be told without reading the data."""
    found = []
    rate = config.training.learning_rate
    if config.adapter is None and rate > _FULL_RATE:
        found.append(_advice("full_rate", {"training.learning_rate": "2e-5"}, rate=number(rate)))
    if config.dataset.validation_split == 0:
        key = "no_patience" if config.training.early_stopping_patience else "no_validation"
        found.append(_advice(key, {"dataset.validation_split": "0.1"}))
    if facts.longest is not None and config.training.max_length > facts.longest:
        most = number(facts.longest)
        found.append(_advice("too_long", {"training.max_length": most}, most=most))
    return found


def _advice(key: str, changes: Mapping[str, str], **values: str) -> Advice:
    return Advice(key, say(f"advice.{key}", **values), say(f"advice.{key}.mend", **values), changes)


def advice_html(found: list[Advice]) -> str:
    """Every piece of advice with its button, which carries its key."""
    return "".join(
        f'<div class="st-note warn advice"><span>{escape(one.text)}</span>'
        f'<button type="button" class="st-button small" data-mend="{escape(one.key)}">{escape(one.mend)}</button></div>'
        for one in found
    )


def command(config: RunConfig, base: Mapping[str, Any], file: Path) -> str:
    """The command that starts the same run: a file of settings (whose content is `base`) and what differs from it."""
    differing = _differences(config.model_dump(mode="json"), parse_config(base).model_dump(mode="json"), "")
    overrides = [f"--set {shlex.quote(f'{path}={_value(value)}')}" for path, value in differing]
    return " \\\n  ".join([f"studio train {shlex.quote(str(file))}", *overrides])


def _differences(now: Any, before: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(now, dict) and isinstance(before, dict) and path not in ("dataset.columns", "dataset.tags"):
        found = []
        for key, value in now.items():
            found += _differences(value, before.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if now == before else [(path, now)]


def _value(value: Any) -> str:
    """A value on one line, written so that --set reads just that."""
    if isinstance(value, float):
        return number(value)
    for style in (None, '"'):
        told = yaml.safe_dump(value, default_flow_style=True, default_style=style, allow_unicode=True, width=10**9)
        told = told.removesuffix("...\n").strip()
        if "\n" not in told and _read_back(told) == value:
            return told
    return json.dumps(value)  # YAML, but for oddities that no config holds


def _read_back(told: str) -> Any:
    try:
        return override({}, [f"value={told}"])["value"]
    except ConfigError:
        return None
