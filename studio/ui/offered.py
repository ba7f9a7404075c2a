"""What the form offers beside free text, as far as it is known at once: layers, runs with a result, the rows' type.

In: a config, the workspace's runs, what is known of the model's shape. Out: short lists of (label, value), a type in
TRL's terms. Waits for nobody and raises nothing: what isn't known here is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection, RunConfig
from studio.core.errors import StudioError
from studio.core.formats import choose_layout
from studio.core.inputs import DatasetInput
from studio.core.shapes import ModelShape
from studio.ui import choices, shown
from studio.workspace.datasets import resolve_dataset
from studio.workspace.runs import Run

_READ = 2**20  # bytes of a file in which its first row is looked for
_LINES = (".jsonl", ".ndjson")
_NO_LAYERS = re.compile(r"(^|\.)(embed\w*|wte|wpe|word_embeddings|lm_head|embed_out|score)\.weight$")
_RUN = "run:"

Pairs = list[tuple[str, str]]


def row_type(section: DatasetSection) -> str:
    """The type of a dataset's rows in TRL's terms; "" where telling it would take reading more than a first line."""
    try:
        dataset = resolve_dataset(section)
        named = section.format if section.format != "auto" else dataset.format
        row = {} if named != "auto" else _first_row(dataset)
        return "" if row is None else choose_layout(section, dataset, row).format.type
    except StudioError:  # said where the rows are looked at
        return ""


def _first_row(dataset: DatasetInput) -> Any:
    path = Path(dataset.path) if dataset.kind == "files" and dataset.path else None
    if path is not None and path.is_dir():
        path = next(iter(sorted(one for one in path.iterdir() if one.suffix in _LINES)), None)
    if path is None or path.suffix.lower() not in _LINES:
        return None
    try:
        return _first_line(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=64)
def _first_line(path: Path, _changed: int) -> Any:
    with path.open("rb") as file:
        line = file.readline(_READ)
    try:
        return json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def parameters(shape: ModelShape | None) -> float | None:
    """How many a model has."""
    return None if shape is None else float(sum(math.prod(tensor.shape) for tensor in shape.tensors))


def modules(shape: ModelShape | None) -> list[str]:
    """The last names of a model's matrices that an adapter can be laid on, in the order of its layers."""
    matrices = [tensor.name for tensor in shape.tensors if len(tensor.shape) == 2] if shape else []
    layers = [name for name in matrices if name.endswith(".weight") and not _NO_LAYERS.search(name)]
    return list(dict.fromkeys(name.removesuffix(".weight").rpartition(".")[2] for name in layers))


def suggestions(config: RunConfig, runs: Iterable[Run]) -> dict[str, Pairs]:
    """What can be typed into the chosen method's and adapter's controls that name models or runs, by control."""
    method, kind = config.method.name, getattr(config.adapter, "type", "")
    found: dict[str, Pairs] = {}
    finished = [run for run in runs if run.output is not None]
    if method == "distill":
        found["method.distill.teacher_model_name_or_path"] = [
            *((label, name) for label, name in choices.models() if name != config.model.name_or_path),
            *((_label(run), f"{_RUN}{run.id}") for run in finished if run.config.method.name != "reward"),
        ]
    if hasattr(config.method, "rewards"):
        judges = [run for run in finished if run.config.method.name == "reward"]
        found[f"method.{method}.rewards"] = [(_label(run), f"{_RUN}{run.id}") for run in judges]
    if hasattr(config.adapter, "continue_from"):
        alike = [run for run in finished if getattr(run.config.adapter, "type", "") == kind]
        found[f"adapter.{kind}.continue_from"] = [(_label(run), f"{_RUN}{run.id}") for run in alike]
    return found


def _label(run: Run) -> str:
    return shown.plain(run.label or run.id, 60)
