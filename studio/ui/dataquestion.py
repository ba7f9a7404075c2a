"""What is asked of a dataset beside its name: by which model and length it is read, and what a task is told.

In: a request's fields. Out: the fields of the desk's questions. The page asks for a kept answer by the same fields by
which it was begun, so both are made here.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.core.config import DatasetSection, TrainingSection
from studio.core.errors import ConfigError
from studio.core.problems import PROBLEMS
from studio.core.recipe import parse_recipe

_LENGTH = TrainingSection().max_length
# What only says what becomes of the rows, not how they are: a report stays good when it is changed.
_AFTERWARDS = ("validation_split", "test_split", "stratify_by", "group_duplicates")


class Reading(BaseModel):
    """By whom a dataset is read, and the knobs of an epoch; an empty `model` counts no tokens."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field("", max_length=400)
    max_length: int = Field(_LENGTH, ge=8, le=1_048_576)
    near: bool = True
    batch: int = Field(TrainingSection().per_device_train_batch_size, ge=1, le=4096)
    accumulation: int = Field(TrainingSection().gradient_accumulation_steps, ge=1, le=4096)
    epochs: float = Field(TrainingSection().num_train_epochs, gt=0, le=1000)
    packing: bool = False


class Search(BaseModel):
    """What rows are to be like. Lengths are in characters."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field("", max_length=1000)
    role: str = Field("", max_length=40)
    longer: int | None = Field(None, ge=0)
    shorter: int | None = Field(None, ge=0)
    kind: str = Field("", max_length=40)


class Shaping(BaseModel):
    """A recipe's steps, as core.recipe has them, and what is to be made of it; `preview` only counts.

    `edits` maps positions to rows as JSON texts: a browser's numbers have fewer digits than a row's may.
    """

    model_config = ConfigDict(extra="forbid")

    steps: list[dict[str, Any]] = Field([], max_length=50)
    edits: dict[int, str] = Field({}, max_length=1000)
    title: str = Field("", max_length=200)
    format: Literal["jsonl", "parquet"] = "jsonl"
    preview: bool = False


def check_question(asked: Reading) -> dict[str, Any]:
    """The fields of `check`: about the rows as they stand, beside those that they are to be validated on."""
    return {**_read_by(asked), "near": asked.near, "section": _as_they_stand()}


def stats_question(asked: Reading) -> dict[str, Any]:
    """The fields of `stats`. What an epoch takes is worked out when it is shown, by the knobs of that moment."""
    return {**_read_by(asked), "training": None, "section": _alone()}


def map_question(_asked: Reading) -> dict[str, Any]:
    return {"section": _alone()}


QUESTIONS = {"check": check_question, "stats": stats_question, "map": map_question}


def search_question(search: Search, findings: str | None) -> dict[str, Any]:
    """The fields of `search`; `findings` is the folder of the check that knows the rows of a kind of problem."""
    kind = search.kind if search.kind in PROBLEMS else None
    told = {"text": search.text, "role": search.role or None, "longer": search.longer, "shorter": search.shorter}
    return {**told, "kind": kind, "findings": findings if kind else None}


def shape_question(shaping: Shaping, asked: Reading) -> dict[str, Any]:
    """The fields of `shape`, and of `preview`, which only counts. Raises ConfigError that names the step at fault."""
    try:
        rows = {position: json.loads(text) for position, text in shaping.edits.items()}
    except (ValueError, RecursionError) as error:
        raise ConfigError("steps.0.rows", f"a changed row is no JSON ({error}).", "Change it again.") from None
    edits = [{"do": "edit", "rows": rows}] if rows else []
    recipe = parse_recipe({"steps": edits + shaping.steps}).model_dump(mode="json")
    question = {**_read_by(asked), "recipe": recipe, "section": _as_they_stand()}
    return question if shaping.preview else {**question, "format": shaping.format, "title": shaping.title}


def _read_by(asked: Reading) -> dict[str, Any]:
    return {"model": asked.model or None, "max_length": asked.max_length}


def _as_they_stand() -> dict[str, Any]:
    """Changes to a dataset's section: nothing is left out."""
    section = {name: DatasetSection.model_fields[name].get_default() for name in _AFTERWARDS}
    return {**section, "exclude": [], "exclude_rows": []}


def _alone() -> dict[str, Any]:
    return {**_as_they_stand(), "validation_path": None}
