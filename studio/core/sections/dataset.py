"""What a model learns from: rows, how they are laid out, and which of them are held out."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field, model_validator

from studio.core.problems import PROBLEMS
from studio.core.sections.section import Section, knob


class MixPart(Section):
    """One of several datasets that a run learns from together."""

    path: str = Field(min_length=1)
    weight: float | None = Field(None, gt=0)


class DatasetSection(Section):
    path: Annotated[str | list[str | MixPart], Field(min_length=1)] | None = knob(
        "quickstart-sft",
        "Dataset",
        "What the model learns from: a registered dataset, a file or folder of rows, a name on the Hugging Face hub; "
        "or several of these, with weights. Without one a run can only be estimated, as if every row were full.",
        basic=True,
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = knob(
        "first_exhausted",
        "A mix ends",
        "Where datasets are mixed by weight: when the first one is used up, or when all are (smaller ones repeat).",
        group="data",
    )
    format: Literal[
        "auto",
        "messages",
        "sharegpt",
        "alpaca",
        "prompt_completion",
        "prompt_only",
        "preference",
        "alpaca_preference",
        "sharegpt_preference",
        "ultrafeedback",
        "unpaired_preference",
        "alpaca_unpaired",
        "sharegpt_unpaired",
        "text",
    ] = knob("auto", "Layout", "How a row is laid out; auto recognises it from the columns.", group="data")
    columns: dict[str, str] = knob(
        {},
        "Column names",
        "Which of your columns stands for which expected one, where the names differ: expected: yours.",
        group="data",
    )
    tags: dict[str, str] = knob(
        {},
        "Role names",
        "How conversations name their parts, where it is not the usual way: role_tag, content_tag, user_tag, "
        "assistant_tag, system_tag, observation_tag, function_tag.",
        group="data",
    )
    system_prompt: str | None = knob(
        None, "System prompt", "Put before every row that has no system message of its own.", group="data"
    )
    exclude: list[str] | None = knob(
        None,
        "Leave out",
        "Kinds of problems whose rows are left out, such as duplicate or too_long; empty takes what the dataset says.",
        group="data",
    )
    exclude_rows: list[Annotated[int, Field(ge=0)]] = knob(
        [], "Leave out rows", "Single rows that are left out, counted from 0 as in the preview.", group="data"
    )
    validation_split: float = knob(
        0.1,
        "Held out for validation",
        "This part of the rows is never trained on; the loss on it tells learning from memorising. Below 1 a share, "
        "from 1 on a number of rows.",
        group="data",
        ge=0.0,
    )
    test_split: float = knob(
        0.0,
        "Held out for testing",
        "Set aside for a final evaluation after training. Below 1 a share, from 1 on a number of rows.",
        group="data",
        ge=0.0,
    )
    validation_path: str | None = knob(
        None,
        "Validation rows",
        "A dataset or file of its own to validate on, instead of a part of this one.",
        group="data",
    )
    stratify_by: str | None = knob(
        None,
        "Split evenly by",
        "A column whose values are to be equally frequent in each part of the split, such as a label or a language.",
        group="data",
    )
    group_duplicates: Literal["exact", "near", "off"] = knob(
        "exact",
        "Keep together in the split",
        "Rows that are the same (or nearly the same) never stand both in training and in validation.",
        group="data",
    )
    max_samples: int | None = knob(
        None,
        "Rows at most",
        "Uses only the first rows, for a quick trial; empty uses all.",
        group="data",
        ge=1,
        unit="rows",
    )
    train_on: Literal["assistant", "last_assistant", "all"] = knob(
        "assistant",
        "Learn from",
        "Which tokens carry loss: all of the assistant's answers, only the last one, or the whole text.",
        group="data",
    )

    @property
    def label(self) -> str:
        """The dataset's name, or those of a mix's parts; empty without one."""
        if self.path is None:
            return ""
        parts = [self.path] if isinstance(self.path, str) else self.path
        return " + ".join(part if isinstance(part, str) else part.path for part in parts)

    @model_validator(mode="after")
    def _names_and_shares_are_possible(self) -> DatasetSection:
        # A rule over several knobs opens its message with the path of the one to show it at; configfile reads it off.
        shares = [part for part in (self.validation_split, self.test_split) if part < 1]
        if sum(shares) >= 1.0:
            raise ValueError(
                "dataset.validation_split: with test_split it leaves nothing to train on; both must stay below 1"
            )
        unknown = [kind for kind in self.exclude or () if kind not in PROBLEMS]
        if unknown:
            near = get_close_matches(unknown[0], PROBLEMS, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(PROBLEMS)}"
            raise ValueError(f"dataset.exclude: there is no kind of problem {unknown[0]!r}{hint}")
        for name in ("validation_split", "test_split"):
            part = getattr(self, name)
            if 0.9 < part < 1 or (part > 1 and part != int(part)):
                raise ValueError(f"dataset.{name}: should be a share of at most 0.9, or a whole number of rows")
        return self
