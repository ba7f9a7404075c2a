"""What can be picked on the forms, and what is worth knowing about it before it is picked.

In: the workspace's lists. Out: (label, value) pairs for dropdowns, one short line about a choice, and the few figures
a plan is made with. Everything here answers at once: what would take reading a large file is left unknown.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from studio.core.errors import StudioError
from studio.core.job import read_json
from studio.ui import shown
from studio.ui.text_forms import say
from studio.workspace.datasets import DatasetEntry, get_dataset, list_datasets, read_page
from studio.workspace.models import ModelEntry, list_models, resolve_model
from studio.workspace.presets import list_presets

_FRESH = 3.0  # seconds for which a list of models is good: every look at it walks through folders
# Bytes up to which the rows of a file are counted here and now: lines by offsets, tables and arrays by parsing.
_COUNTED = {".jsonl": 48 * 2**20, ".ndjson": 48 * 2**20, ".json": 8 * 2**20, ".csv": 8 * 2**20, ".tsv": 8 * 2**20}

Pairs = list[tuple[str, str]]


def presets() -> Pairs:
    return [(say("train.preset.own", title=p.title) if p.own else p.title, p.name) for p in list_presets()]


def models() -> Pairs:
    return [(entry.title, entry.name) for entry in _models(_now())]


def datasets() -> Pairs:
    return [(entry.title, entry.name) for entry in list_datasets()]


def dataset_note(name: str) -> str:
    """Rows, size and layout of a dataset. Raises ConfigError where there is none of this name."""
    entry = get_dataset(name)
    rows = rows_of(entry)
    layout = entry.format if entry.format != "auto" else say("pick.dataset.auto")
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


def rows_of_named(name: str) -> int | None:
    """`rows_of` a dataset by its name. Raises ConfigError."""
    return rows_of(get_dataset(name))


def rows_of(entry: DatasetEntry) -> int | None:
    """How many rows a dataset has, where counting them takes no time to speak of."""
    try:
        stat = entry.path.stat()
    except OSError:
        return None
    suffix = entry.path.suffix.lower()
    if suffix != ".parquet" and stat.st_size > _COUNTED.get(suffix, 0):
        return None
    return _count(entry.path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _count(path: Path, _size: int, _changed: int) -> int | None:
    try:
        return read_page(path, 0, 0).total
    except (StudioError, OSError):
        return None


def _entry(name: str) -> ModelEntry | None:
    return next((entry for entry in _models(_now()) if entry.name == name), None)


def _now() -> int:
    return int(time.monotonic() / _FRESH)


@lru_cache(maxsize=1)
def _models(_moment: int) -> tuple[ModelEntry, ...]:
    return tuple(list_models())
