"""What the names in a config meant on the day the job was submitted.

run.yaml keeps the names a person wrote (`starter`, `quickstart-sft`), so that it replays anywhere; inputs.json beside
it keeps what they stood for, so that the worker needs no registry and a later reader sees exactly what was trained
on.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class ModelInput:
    """A model to load. `path` is its folder, where one is known already.

    starter: `path` is where it lies or will lie once fetched. hub: `name` is the id, `revision` a branch, tag or
    commit. merged: `path` is where `base` with the adapter in the folder `adapter` lies or will lie once merged.
    """

    kind: Literal["starter", "folder", "hub", "merged"]
    name: str
    path: str | None = None
    revision: str | None = None
    base: ModelInput | None = None
    adapter: str | None = None

    def __post_init__(self) -> None:
        base: Any = self.base
        if isinstance(base, dict):  # as it comes from JSON
            object.__setattr__(self, "base", ModelInput(**base))


@dataclass(frozen=True)
class ExtraModel:
    """A model that a method reads beside the one it trains; `adapter` is the folder of one that lies over it."""

    model: ModelInput
    adapter: str | None = None


@dataclass(frozen=True)
class DatasetInput:
    """Where rows come from, and how they are laid out.

    files: `path` is a file of rows or a folder of them. hub: `name` is the id, with `config`, `split` and `revision`.
    mix: `parts` are joined one after the other, or drawn from by their `weight`s until `stopping` says so. `columns`
    (expected: yours) and `tags` map names that differ; `limit` takes the first rows only. `heldout` and `manner`: a
    file of questions and a regex that every taught answer matches, where the dataset has them to check by.
    """

    name: str
    path: str = ""
    kind: Literal["files", "hub", "mix"] = "files"
    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    limit: int | None = None
    weight: float | None = None
    parts: tuple[DatasetInput, ...] = ()
    stopping: Literal["concatenate", "first_exhausted", "all_exhausted"] = "concatenate"
    heldout: str | None = None
    manner: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DatasetInput:
        """Raises TypeError for fields that there aren't."""
        return cls(**{**data, "parts": tuple(cls.from_dict(part) for part in data.get("parts", ()))})


@dataclass(frozen=True)
class Inputs:
    """Everything a run reads: `validation` where `dataset.validation_path` names rows of their own.

    `label` is the name a person gave the run, as given; `adapter` is the folder of the one it goes on from; `extras`
    are reward models and teachers, by their names in the config.
    """

    label: str
    model: ModelInput
    dataset: DatasetInput
    validation: DatasetInput | None = None
    extras: dict[str, ExtraModel] = field(default_factory=dict)
    adapter: str | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Inputs:
        model, dataset = ModelInput(**data["model"]), DatasetInput.from_dict(data["dataset"])
        held = data.get("validation")
        extras = {
            name: ExtraModel(ModelInput(**extra["model"]), extra["adapter"])
            for name, extra in data.get("extras", {}).items()
        }
        return cls(
            data["label"], model, dataset, DatasetInput.from_dict(held) if held else None, extras, data.get("adapter")
        )

    @classmethod
    def read(cls, path: Path) -> Inputs:
        """Raises OSError or ValueError/KeyError where the file is missing or damaged."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
