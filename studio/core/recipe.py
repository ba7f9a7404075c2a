"""A recipe: how a dataset is shaped into another, step by step.

In: plain values, as a form or recipe.yaml gives them. Out: a Recipe, inert, or a ConfigError that names the step and
the field at fault. Positions are those of the rows as read (from 0, as in the preview), wherever a step stands. Carries
nothing out and reads no rows.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from studio.core.config import Section
from studio.core.configfile import parse_as
from studio.core.errors import ConfigError
from studio.core.formats import FORMATS
from studio.core.problems import PROBLEMS

Part = Literal["whole", "prompt", "answer"]


class EditRows(Section):
    """Replaces rows by others: {position: row}. Stands first, since it is the rows as read that a person edits."""

    do: Literal["edit"] = "edit"
    rows: dict[Annotated[int, Field(ge=0)], dict[str, Any]] = Field(min_length=1)


class LeaveOutRows(Section):
    """Leaves single rows out."""

    do: Literal["rows"] = "rows"
    positions: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


class LeaveOutProblems(Section):
    """Leaves out the rows in which a check found problems of these kinds. Rows that can't be used go in any case."""

    do: Literal["problems"] = "problems"
    kinds: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _are_known(self) -> LeaveOutProblems:
        for kind in self.kinds:
            if kind not in PROBLEMS:
                raise ValueError(f"kinds: there is no kind of problem called {_shown(kind, PROBLEMS)}")
        return self


class KeepLength(Section):
    """Keeps rows with at least and at most so many characters or tokens, both ends included."""

    do: Literal["length"] = "length"
    part: Part = "whole"
    unit: Literal["characters", "tokens"] = "characters"
    least: int | None = Field(None, ge=0)
    most: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _bounds_something(self) -> KeepLength:
        _check_bounds(self.least, self.most)
        return self


class KeepLanguage(Section):
    """Keeps rows in these languages: ISO 639 codes such as en, de, zh; `unknown` where it can't be told."""

    do: Literal["language"] = "language"
    part: Part = "whole"
    keep: list[str] = Field(min_length=1)


class KeepScript(Section):
    """Keeps rows most of whose letters are of these scripts: Latin, Cyrillic, Han, ...; `none` has no letters."""

    do: Literal["script"] = "script"
    part: Part = "whole"
    keep: list[str] = Field(min_length=1)


class KeepPattern(Section):
    """Keeps the rows in which a regular expression is found, or the others."""

    do: Literal["pattern"] = "pattern"
    pattern: str = Field(min_length=1, max_length=2000)
    part: Part = "whole"
    keep: Literal["matching", "others"] = "matching"
    ignore_case: bool = False


class KeepScore(Section):
    """Keeps rows whose number in a column is at least and at most so much, both ends included."""

    do: Literal["score"] = "score"
    column: str = Field(min_length=1)
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> KeepScore:
        _check_bounds(self.least, self.most)
        return self


class Sample(Section):
    """Draws so many rows, each as likely as any other; they stay in their order."""

    do: Literal["sample"] = "sample"
    rows: int = Field(ge=1)
    seed: int = Field(42, ge=0, le=2**32 - 1)


class AddSystemPrompt(Section):
    """Puts a system message before every conversation that has none."""

    do: Literal["system"] = "system"
    text: str = Field(min_length=1)


class Convert(Section):
    """Writes the rows in another layout."""

    do: Literal["convert"] = "convert"
    format: str

    @model_validator(mode="after")
    def _is_known(self) -> Convert:
        if self.format not in FORMATS:
            raise ValueError(f"format: there is no layout called {_shown(self.format, FORMATS)}")
        return self


Step = Annotated[
    EditRows
    | LeaveOutRows
    | LeaveOutProblems
    | KeepLength
    | KeepLanguage
    | KeepScript
    | KeepPattern
    | KeepScore
    | Sample
    | AddSystemPrompt
    | Convert,
    Field(discriminator="do"),
]

STEPS: dict[str, type[Section]] = {
    "edit": EditRows,
    "rows": LeaveOutRows,
    "problems": LeaveOutProblems,
    "length": KeepLength,
    "language": KeepLanguage,
    "script": KeepScript,
    "pattern": KeepPattern,
    "score": KeepScore,
    "sample": Sample,
    "system": AddSystemPrompt,
    "convert": Convert,
}


class Recipe(Section):
    """The steps, in order. None at all copies what can be used."""

    steps: list[Step] = Field(default_factory=list)

    @model_validator(mode="after")
    def _edits_stand_first(self) -> Recipe:
        kinds = [step.do for step in self.steps]
        if "edit" in kinds[1:]:
            number = kinds.index("edit", 1)
            raise ValueError(f"steps.{number}: rows are edited as they were read, so that is the first step")
        return self


def parse_recipe(data: Mapping[str, Any]) -> Recipe:
    """Validate a recipe. Raises ConfigError for the first thing at fault: `steps.2.least`."""
    steps = data.get("steps", [])
    if not isinstance(steps, (list, tuple)):
        raise ConfigError("steps", "should be a list of steps.", "Write each as `do: length` with its settings.")
    parsed = [_step(number, step) for number, step in enumerate(steps)]
    return parse_as(Recipe, {**data, "steps": parsed})


def _step(number: int, step: Any) -> Section:
    place = f"steps.{number}"
    if isinstance(step, Section):
        step = step.model_dump()
    if not isinstance(step, Mapping):
        raise ConfigError(place, "should be a step with its settings.", "Write it as `do: length` with its settings.")
    kind = step.get("do")
    if not isinstance(kind, str) or kind not in STEPS:
        hint = f"Known are {', '.join(STEPS)}."
        raise ConfigError(f"{place}.do", f"there is no step called {_shown(str(kind), STEPS)}.", hint)
    try:
        return parse_as(STEPS[kind], {str(key): value for key, value in step.items()})
    except ConfigError as error:
        field = f"{place}.{error.field}" if error.field else place
        raise ConfigError(field, error.message, error.hint) from None


def _check_bounds(least: float | None, most: float | None) -> None:
    if least is None and most is None:
        raise ValueError("least: give the least, the most, or both")
    if least is not None and most is not None and least > most:
        raise ValueError("most: is below the least")


def _shown(name: str, known: Mapping[str, Any]) -> str:
    """The unknown name, and the nearest known one. A colon would end the field's path in pydantic's message."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return repr(name[:40].replace(":", "")) + (f" (the nearest is {near[0]})" if near else "")
