"""RunConfig's fields, described so that a form, a command line or a page of docs can be made from them.

In: the pydantic models of `config`. Out: `Knob`s, one a leaf. Knows no widget.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studio.core.config import RunConfig

Kind = Literal["int", "float", "bool", "choice", "text", "list", "texts", "map"]


@dataclass(frozen=True)
class Knob:
    """One leaf of run.yaml.

    `path` is dotted; a `list` is chosen from `choices`, `texts` is a list of anything; `optional` means it may be
    null; bounds are inclusive (`ge`, `le`) or not.
    """

    path: str
    title: str
    help: str
    kind: Kind
    default: Any
    choices: tuple[str, ...] = ()
    optional: bool = False
    ge: float | None = None
    le: float | None = None
    gt: float | None = None
    lt: float | None = None
    group: str = ""
    basic: bool = False
    unit: str = ""

    @property
    def name(self) -> str:
        """The argument's own name, as TRL, PEFT and transformers call it."""
        return self.path.rpartition(".")[2]


def knobs(kind: type[BaseModel] = RunConfig) -> list[Knob]:
    """Every knob, in the order of run.yaml; the tags that choose a method or an adapter are not knobs."""
    return list(_walk(kind, ""))


def _walk(section: type[BaseModel], prefix: str) -> list[Knob]:
    found = []
    for name, field in section.model_fields.items():
        inner = [t for t in _branches(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
        if inner:
            found += _walk(inner[0], f"{prefix}{name}.")
        elif field.title:
            found.append(_knob(f"{prefix}{name}", field))
    return found


def _branches(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _knob(path: str, field: FieldInfo) -> Knob:
    branches = _branches(field.annotation)
    plain = [b for b in branches if b is not type(None)]
    choices = tuple(str(c) for b in plain if get_origin(b) is Literal for c in get_args(b))
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    bounds = {
        name: getattr(mark, name)
        for mark in field.metadata
        for kind, name in ((Ge, "ge"), (Le, "le"), (Gt, "gt"), (Lt, "lt"))
        if isinstance(mark, kind)
    }
    if bool in plain and choices:
        choices = (*choices, "true", "false")
    return Knob(
        path=path,
        title=str(field.title),
        help=str(field.description),
        kind=_kind(plain, choices),
        default=field.get_default(call_default_factory=True),
        choices=choices or _inner_choices(plain),
        optional=type(None) in branches,
        group=str(extra.get("group", "")),
        basic=bool(extra.get("basic", False)),
        unit=str(extra.get("unit", "")),
        **bounds,
    )


def _kind(plain: list[Any], choices: tuple[str, ...]) -> Kind:
    if choices:
        return "choice"
    if any(get_origin(b) is dict for b in plain):
        return "map"
    if any(get_origin(b) is list for b in plain) and str not in plain:
        return "list" if _inner_choices(plain) else "texts"
    for kind, name in ((bool, "bool"), (float, "float"), (int, "int")):
        if kind in plain:
            return name  # type: ignore[return-value]
    return "text"


def _inner_choices(plain: list[Any]) -> tuple[str, ...]:
    for branch in plain:
        for inner in get_args(branch):
            if get_origin(inner) is Literal:
                return tuple(str(c) for c in get_args(inner))
    return ()
