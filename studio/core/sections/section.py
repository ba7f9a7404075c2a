"""What every section of run.yaml is made of: knobs, and a model that refuses what it doesn't know."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def knob(
    default: Any,
    title: str,
    help: str,
    *,
    group: str = "",
    basic: bool = False,
    unit: str = "",
    rule: str = "",
    **bounds: Any,
) -> Any:
    """A pydantic Field with what a form needs beside it.

    `title` is the plain name, `help` one sentence a first-timer understands, `group` the fold it lives in, `basic`
    whether it stands in sight, `unit` what its number counts, `rule` a rule of thumb with its source, `bounds`
    pydantic's own (ge, le, gt, lt, min_length).
    """
    extra: dict[str, Any] = {"group": group, "basic": basic, "unit": unit, "rule": rule}
    return Field(default, title=title, description=help, json_schema_extra=extra, **bounds)


class Section(BaseModel):
    """A part of run.yaml: unknown keys are refused, values are validated on assignment too."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False, protected_namespaces=())
