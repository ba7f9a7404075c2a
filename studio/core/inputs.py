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
    commit.
    """

    kind: Literal["starter", "folder", "hub"]
    name: str
    path: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class DatasetInput:
    """A file of rows; `manner` is a regex that every taught answer matches, where the dataset has one to check by."""

    name: str
    path: str
    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    heldout: str | None = None
    manner: str | None = None


@dataclass(frozen=True)
class Inputs:
    """Everything a run reads. `label` is the name a person gave the run, as given."""

    label: str
    model: ModelInput
    dataset: DatasetInput

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Inputs:
        return cls(data["label"], ModelInput(**data["model"]), DatasetInput(**data["dataset"]))

    @classmethod
    def read(cls, path: Path) -> Inputs:
        """Raises OSError or ValueError/KeyError where the file is missing or damaged."""
        return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
