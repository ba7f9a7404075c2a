"""A dataset shaped into a new one by a recipe.

In: a Source, a Recipe, a folder that isn't there yet. Out: rows.jsonl or rows.parquet and recipe.yaml in that folder,
which has its name only once everything in it is on the disk; and how many rows went into and out of each step, and
why. The original is only read. Of the dataset section only the layout counts: what else it asks is the run's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from studio.core.config import DatasetSection
from studio.core.configfile import to_yaml
from studio.core.errors import ConfigError, DataError
from studio.core.inputs import DatasetInput, ModelInput
from studio.core.recipe import LeaveOutProblems, Recipe, parse_recipe
from studio.worker.data.findings import NEED_MODEL, find
from studio.worker.data.newfolder import published
from studio.worker.data.rowfile import RowWriter, to_parquet
from studio.worker.data.sieve import Find, Sieve
from studio.worker.data.source import Progress, Source, Stopped, layouts, never, open_source, quiet, reporting


@dataclass(frozen=True)
class _Asked:
    """A request of shape_op or preview_op, understood."""

    name: str
    source: Source
    section: DatasetSection
    recipe: Recipe
    tokenizer: Any
    find: Find


def shape_op(request: dict[str, Any], part: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Answers as `shape`.

    Fields of the request: `dataset`, `section`, `recipe`, `out` (a folder), `format`; and where steps count tokens or
    leave out problems that only a model tells, `model` and `max_length`; `validation`, a dataset, for leaks.
    """
    format: Any = request.get("format") or "jsonl"
    if format not in ("jsonl", "parquet"):
        raise ConfigError("format", f"rows can't be saved as {format!r}.", "Choose jsonl or parquet.")
    report = reporting(part)
    asked = _asked(request, report)
    return shape(
        asked.source,
        asked.section,
        asked.recipe,
        Path(request["out"]),
        format,
        name=asked.name,
        tokenizer=asked.tokenizer,
        find=asked.find,
        progress=report,
    )


def preview_op(request: dict[str, Any], part: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """How many rows a recipe would leave, and what each step takes: `rows`, `steps`. Fields as shape_op's, no `out`."""
    report = reporting(part)
    asked = _asked(request, report)
    sieve = Sieve(
        asked.source,
        layouts(asked.section, asked.source),
        asked.recipe,
        encoder=_encoder(asked.tokenizer, asked.section),
        find=asked.find,
        progress=report,
    )
    rows = sum(1 for _ in sieve.run(asked.recipe.steps))
    return {"rows": rows, "steps": [count.plain() for count in sieve.counts]}


def _asked(request: dict[str, Any], report: Progress) -> _Asked:
    recipe = parse_recipe(request["recipe"])
    _check_problems(recipe, bool(request.get("model")), bool(request.get("validation")))
    tokenizer = None
    if request.get("model"):
        from studio.worker.models import fetch, load_tokenizer

        tokenizer = load_tokenizer(fetch(ModelInput(**request["model"]), report))
    dataset, section = DatasetInput.from_dict(request["dataset"]), DatasetSection(**request["section"])
    source, held = open_source(dataset), request.get("validation")
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "max_length": int(request.get("max_length") or 1024),
        "validation": DatasetInput.from_dict(held) if held else None,
        "progress": report,
    }
    return _Asked(
        dataset.name,
        source,
        section,
        recipe,
        tokenizer,
        lambda kinds: find(source, layout_only(section), kinds, **options),
    )


def _encoder(tokenizer: Any, section: DatasetSection) -> Any:
    if tokenizer is None:
        return None
    from studio.worker.encode import Encoder

    return Encoder(tokenizer, section.train_on)


def layout_only(section: DatasetSection) -> DatasetSection:
    """What a recipe takes from a section: how rows are laid out, and which tokens count as the answer's."""
    kept = section.model_dump(include={"path", "format", "columns", "tags", "train_on"})
    return DatasetSection(**kept)


def _check_problems(recipe: Recipe, model: bool, validation: bool) -> None:
    for number, step in enumerate(recipe.steps):
        if not isinstance(step, LeaveOutProblems):
            continue
        place = f"steps.{number}.kinds"
        if not model and (kinds := sorted(NEED_MODEL & set(step.kinds))):
            raise ConfigError(place, f"{kinds[0]} is found only under a model.", "Choose one, or take that kind out.")
        if not validation and "leak" in step.kinds:
            raise ConfigError(place, "a leak is found only beside validation rows.", "Name them, or take leak out.")


def shape(
    source: Source,
    section: DatasetSection,
    recipe: Recipe,
    out: Path,
    format: Literal["jsonl", "parquet"] = "jsonl",
    *,
    name: str = "",
    tokenizer: Any = None,
    find: Find | None = None,
    progress: Progress = quiet,
    stopped: Stopped = never,
) -> dict[str, Any]:
    """Write the shaped rows to the folder `out`.

    `find` gives the positions of the rows with each kind of problem, for steps that leave those out. `name` is what
    recipe.yaml calls the source. Returns `path` (of the rows), `rows`, `recipe` (its path), `steps` (their counts),
    `columns_lost`, and `format`, `columns`, `tags` to read the result by. Raises ConfigError naming the step at fault,
    DataError where no row is left, TargetError where `out` is there already, Cancelled.
    """
    began = time.monotonic()
    encoder = _encoder(tokenizer, section)
    with published(Path(out)) as staging:
        state = source.fingerprint()
        chosen = layouts(section, source)
        sieve = Sieve(source, chosen, recipe, encoder=encoder, find=find, progress=progress, stopped=stopped)
        path = staging / "rows.jsonl"
        with RowWriter(path) as rows:
            for item in sieve.run(recipe.steps):
                rows.write(item.row)
        sieve.check_result()
        if format == "parquet":
            path = to_parquet(path, progress, stopped)
        sha256 = source.sha256(progress)
        if source.fingerprint() != state:
            raise DataError("The dataset has changed while it was read.", "Shape it again once it keeps still.")
        origin = {"name": name, "files": [str(file) for file in source.files], "sha256": sha256, **sieve.as_read()}
        result = {"rows": rows.count, **sieve.as_written(), "columns_lost": sorted(sieve.lost)}
        counts = [count.plain() for count in sieve.counts]
        steps = recipe.model_dump(mode="json")["steps"]
        told = {"source": origin, "steps": steps, "counts": counts, "result": {"file": path.name, **result}}
        (staging / "recipe.yaml").write_text(to_yaml(told), encoding="utf-8")
    answer = {"path": str(Path(out) / path.name), "recipe": str(Path(out) / "recipe.yaml"), "steps": counts}
    return {**answer, **result, "seconds": round(time.monotonic() - began, 3)}
