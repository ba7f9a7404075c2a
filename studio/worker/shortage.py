"""What would make a run that ran out of memory fit: changes with what each saves, in words.

In: the run's folder and its model's. Out: a sentence, empty where nothing can be said. The forecast that was kept with
the run has them; without one they are worked out anew, without torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from studio.core.configfile import parse_config, read_yaml
from studio.core.estimate import Device, advice
from studio.core.job import JobFolder, read_json
from studio.core.shapes import from_folder

_MOST = 3  # changes, cheapest first; more would be a table
_GB = 1 << 30


def remedies(job: JobFolder, model: Path | None) -> str:
    """Such as "What saves memory: training.max_length = 512 (saves 1.3 GB; rows are cut)." """
    forecast = read_json(job.estimate) or {}
    named = forecast.get("advice")
    told = [words for one in (named if isinstance(named, list) else _anew(job, model)) if (words := _words(one))]
    if not told:
        return ""
    expected, free = _gigabytes(forecast.get("device")), _gigabytes(forecast.get("free"))
    before = f"It was estimated at {expected}, with {free} free. " if expected and free else ""
    return f"{before}What saves memory: {'; or '.join(told[:_MOST])}. The last checkpoint is kept."


def _anew(job: JobFolder, model: Path | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    try:
        config = parse_config(read_yaml(job.run_config))
        device = Device(kind=(read_json(job.memory) or {}).get("device_kind") or "cuda")
        return [one.to_dict() for one in advice(config, from_folder(model), device=device)]
    except Exception as error:  # noqa: BLE001 - this is said where something went wrong already
        sys.stderr.write(f"no advice ({type(error).__name__}: {error})\n")
        return []


def _words(advice: Any) -> str:
    try:
        changes = [f"{knob} = {_value(value)}" for knob, value in advice["change"].items()]
        saves, cost = _gigabytes(advice["saves"]), str(advice["cost"])
    except (TypeError, KeyError, AttributeError):  # a file that somebody else wrote
        return ""
    return f"{' with '.join(changes)} (saves {saves}; {cost})" if changes and saves else ""


def _value(value: Any) -> str:
    """As run.yaml has it; of an adapter its type."""
    if isinstance(value, dict):
        return str(value.get("type", "…"))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _gigabytes(size: Any) -> str:
    if isinstance(size, bool) or not isinstance(size, (int, float)) or size <= 0:
        return ""
    return f"{size / _GB:.1f} GB" if size >= _GB / 10 else f"{max(1, round(size / (1 << 20)))} MB"
