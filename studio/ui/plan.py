"""What a run will be, told before it starts: its steps, its schedule, the command that repeats it.

In: a valid RunConfig and a few facts about what it names. Out: figures, HTML for the card, points of a curve. Reads no
files and starts nothing; what is unwise is said by `advice`, what memory and time it takes by `fitview`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import yaml

from studio.core.config import TAGS, LoraAdapter, RunConfig
from studio.core.configfile import override, parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import sections_of, tag_of
from studio.core.rates import rate_line, warmup_steps
from studio.core.schedule import optimizer_steps, split_sizes
from studio.core.sections.adapter import FreezeAdapter
from studio.ui import shown
from studio.ui.spelling import number
from studio.ui.text_forms import say
from studio.ui.text_methods import say as named

# Knobs whose keys are a person's own: told as one.
_WHOLE = (
    "dataset.columns",
    "dataset.tags",
    "adapter.rank_pattern",
    "adapter.alpha_pattern",
    "training.lr_scheduler_kwargs",
)
_TOLD_STEPS = 1000  # of a run whose steps aren't known yet, to draw its schedule by


@dataclass(frozen=True)
class Facts:
    """What is known of the things a config names. `rows`: of the dataset, and their `type` in TRL's terms ("" where
    that isn't known); `longest`: tokens the model was made for, and its `parameters`; `flash`: whether flash attention
    is installed; `merge`: what merging the run will take, in a line.
    """

    rows: int | None = None
    longest: int | None = None
    busy: bool = False
    merge: str = ""
    type: str = ""
    parameters: float | None = None
    flash: bool = False


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
    """The run in a few figures, as HTML."""
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
        *([(say("plan.merge"), f'<span id="merge-later">{escape(facts.merge)}</span>')] if facts.merge else []),
    ]
    return shown.facts(pairs)


def waits(facts: Facts) -> str:
    """What stands at Start while another run is at work."""
    return f'<p class="st-note">{escape(say("plan.queue"))}</p>' if facts.busy else ""


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
    kind = str(getattr(adapter, "type", ""))
    if isinstance(adapter, FreezeAdapter):
        return say("plan.trains.freeze", layers=adapter.trained_layers)
    if not isinstance(adapter, LoraAdapter):
        return say("plan.trains.other", kind=named(f"adapter.{kind}"))
    modules = adapter.target_modules
    where = modules if isinstance(modules, str) else ", ".join(modules)
    where = say("plan.where.all") if modules == "all-linear" else shown.line(where, 80)
    quantization = config.model.quantization
    return say(
        f"plan.trains.{'lora' if quantization == 'none' else 'qlora'}",
        r=adapter.r,
        where=where,
        quantization=quantization,
    )


def schedule(config: RunConfig, facts: Facts) -> dict[str, Any]:
    """The learning rate over the run: points (share of the run, share of the rate), and the same in a sentence."""
    knobs, name = config.training, config.training.lr_scheduler_type
    rows = facts.rows
    known = optimizer_steps(config, split(config, rows)[0]) if rows is not None else knobs.max_steps
    steps = known or _TOLD_STEPS
    line = rate_line(config, steps)
    if not line:
        return {"points": [], "text": named("form.rate.none")}
    points = [[round(at / steps, 4), round(share, 4)] for at, share in line]
    last = number(float(f"{line[-1][1] * knobs.learning_rate:.2g}"))
    told = {"name": name, "rate": number(knobs.learning_rate), "last": last}
    if name == "reduce_lr_on_plateau":
        text = named("form.rate.plateau", **told)
    elif known is None:
        text = named("form.rate.share", **told)
    else:
        warmup = 0 if name == "constant" else warmup_steps(config, steps)
        text = named("form.rate" if warmup else "form.rate.cold", **told, warmup=warmup, steps=shown.count(steps))
    return {"points": points, "text": text}


def command(config: RunConfig, base: Mapping[str, Any], file: Path) -> str:
    """The command that starts the same run: a file of settings (whose content is `base`) and what differs from it."""
    differing = _differences(config.model_dump(mode="json"), parse_config(base).model_dump(mode="json"), "")
    overrides = [f"--set {shlex.quote(f'{path}={_value(value)}')}" for path, value in differing]
    return " \\\n  ".join([f"studio train {shlex.quote(str(file))}", *overrides])


def _differences(now: Any, before: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(now, dict) and isinstance(before, dict) and path not in _WHOLE:
        found = []
        before = _same_kind(now, before, path)
        for key, value in now.items():
            found += _differences(value, before.get(key), f"{path}.{key}" if path else key)
        return found
    return [] if now == before else [(path, now)]


def _same_kind(now: dict[str, Any], before: dict[str, Any], path: str) -> dict[str, Any]:
    """The section of before; of another method or adapter than the one chosen now, the chosen one's defaults."""
    for section, tag, _ in TAGS:
        if path == section and now.get(tag) != before.get(tag):
            kinds = {tag_of(kind): kind for kind in sections_of(RunConfig.model_fields[section])}
            return {**kinds[now[tag]]().model_dump(mode="json"), tag: before.get(tag)}
    return before


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
