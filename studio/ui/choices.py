"""What can be picked on the forms, and what is worth knowing about it before it is picked.

In: the workspace's lists. Out: (label, value) pairs for dropdowns, one short line about a choice, and the few figures
a plan is made with. Everything here answers at once: what would take reading a large file is left unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.core.configfile import read_yaml
from studio.core.errors import StudioError
from studio.core.job import read_json
from studio.ui import shown
from studio.ui.text_forms import say
from studio.workspace.datasets import get_dataset, list_datasets
from studio.workspace.models import ModelEntry, list_models, resolve_model
from studio.workspace.presets import list_presets
from studio.workspace.registration import DatasetEntry

_FRESH = 3.0  # seconds for which a list of models is good: every look at it walks through folders
# Files in which a line is a row, and the bytes up to which they are counted here and now.
_LINES, _COUNTED = {".jsonl", ".ndjson"}, 8 * 2**20

Pairs = list[tuple[str, str]]


def presets() -> Pairs:
    return [(say("train.preset.own", title=p.title) if p.own else p.title, p.name) for p in list_presets()]


def models() -> Pairs:
    return [(entry.title, entry.name) for entry in _models(_now())]


def models_of_presets() -> Pairs:
    """Models on the hub that presets name, and that aren't among `models`: what they take can be asked."""
    here = {name for _, name in models()}
    named = (_model_of(entry.path, entry.path.stat().st_mtime_ns) for entry in list_presets())
    return [(name, name) for name in dict.fromkeys(named) if name and name not in here]


@lru_cache(maxsize=256)
def _model_of(preset: Path, _changed: int) -> str:
    try:
        model = read_yaml(preset).get("model")
    except StudioError:
        return ""
    return str(model.get("name_or_path") or "") if isinstance(model, dict) else ""


def datasets() -> Pairs:
    return [(entry.title, entry.name) for entry in list_datasets()]


def dataset_note(name: str | Sequence[Any] | None) -> str:
    """Rows, size and layout of a dataset, or what is mixed. Raises ConfigError where there is none of this name."""
    if name is None:
        return say("pick.dataset.none")
    if not isinstance(name, str):
        return say("pick.dataset.mix", parts=", ".join(get_dataset(part).title for part in _paths(name)))
    entry = get_dataset(name)
    rows = rows_of(entry)
    layout = entry.format if entry.format != "auto" else say("pick.dataset.auto")
    if entry.kind != "files":
        parts = ", ".join(part.path for part in entry.parts)
        return say("pick.dataset.mix", parts=parts) if entry.kind == "mix" else say("pick.dataset.hub", format=layout)
    if entry.path.is_dir() and entry.folder is None:  # its size would be a walk through all that is in it
        return say("pick.dataset.folder", format=layout)
    if rows is None:
        return say("pick.dataset.uncounted", size=shown.size(entry.bytes), format=layout)
    return say("pick.dataset", rows=shown.count(rows), size=shown.size(entry.bytes), format=layout)


def model_note(name: str) -> str:
    """Size of a model, or where it comes from. Raises ConfigError where there is none of this name."""
    meant = resolve_model(name)
    entry = _entry(name)
    if entry is not None and entry.path is None:
        return f"{entry.note[:1].upper()}{entry.note[1:]}."
    folder = entry.path if entry is not None else Path(meant.path) if meant.path else None
    if folder is None:
        return say("pick.model.hub")
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return say("pick.model", size=shown.size(weights))


def longest_row_of(name: str) -> int | None:
    """The most tokens a model was made for, as its config.json says; None where that isn't known here."""
    entry = _entry(name)
    folder = entry.path if entry is not None else Path(name).expanduser()
    most = (read_json(folder / "config.json") or {}).get("max_position_embeddings") if folder else None
    return most if isinstance(most, int) and most > 0 else None


def rows_of_named(name: str | Sequence[Any] | None) -> int | None:
    """`rows_of` a dataset by its name, or of several. Raises ConfigError."""
    if name is None:
        return None
    if isinstance(name, str):
        return rows_of(get_dataset(name))
    if any(getattr(part, "weight", None) is not None for part in name):
        return None
    return _sum(rows_of_named(part) for part in _paths(name))


def _paths(parts: Sequence[Any]) -> list[str]:
    return [part if isinstance(part, str) else part.path for part in parts]


def _sum(counts: Iterable[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def rows_of(entry: DatasetEntry) -> int | None:
    """How many rows a dataset has, where that is known or takes no time to speak of."""
    if entry.kind == "mix":
        return _rows_of_mix(entry)
    if entry.rows is not None or entry.kind != "files":
        return entry.rows
    try:
        stat = entry.path.stat()
    except OSError:
        return None
    if entry.path.suffix.lower() not in _LINES or stat.st_size > _COUNTED:
        return None
    return _count(entry.path, stat.st_size, stat.st_mtime_ns)


def _rows_of_mix(entry: DatasetEntry) -> int | None:
    """Of parts that stand one after the other; how far weights reach is only known when they are drawn."""
    try:
        return rows_of_named(entry.parts)
    except StudioError:  # a part of it was removed
        return None


@lru_cache(maxsize=256)
def _count(path: Path, _size: int, _changed: int) -> int | None:
    try:
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return None


def _entry(name: str) -> ModelEntry | None:
    return next((entry for entry in _models(_now()) if entry.name == name), None)


def _now() -> int:
    return int(time.monotonic() / _FRESH)


@lru_cache(maxsize=1)
def _models(_moment: int) -> tuple[ModelEntry, ...]:
    return tuple(list_models())
