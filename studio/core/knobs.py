"""RunConfig's fields, described so that a form, a command line or a page of docs can be made from them.

In: the pydantic models of `config`. Out: `Knob`s, one a leaf. Knows no widget.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from studio.core.config import RunConfig

Kind = Literal["int", "float", "bool", "choice", "text", "list", "texts", "map"]
Item = Literal["text", "int", "float"]


@dataclass(frozen=True)
class Knob:
    """One leaf of run.yaml.

    `path` is dotted; `of` is the method or the adapter that has it, where not all do; a `list` is chosen from
    `choices`, `texts` is a list of anything; `item` is what stands in `texts` and in a `map`, and `min_length` how many
    there are at least; `optional` means it may be null; bounds are inclusive (`ge`, `le`) or not; `rule` is a rule of
    thumb with its source.
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
    min_length: int = 0
    item: Item = "text"
    group: str = ""
    basic: bool = False
    unit: str = ""
    of: str = ""
    rule: str = ""

    @property
    def key(self) -> str:
        """What no other knob is called: methods and adapters may have knobs of one name that differ."""
        section, _, name = self.path.partition(".")
        return f"{section}.{self.of}.{name}" if self.of else self.path

    @property
    def name(self) -> str:
        """The argument's own name, as TRL, PEFT and transformers call it."""
        return self.path.rpartition(".")[2]


def knobs(kind: type[BaseModel] = RunConfig) -> list[Knob]:
    """Every knob, in the order of run.yaml; the tags that choose a method or an adapter are not knobs."""
    return list(_walk(kind, ""))


def _walk(section: type[BaseModel], prefix: str, of: str = "") -> list[Knob]:
    found = []
    for name, field in section.model_fields.items():
        inner = sections_of(field)
        for one in inner:
            found += _walk(one, f"{prefix}{name}.", tag_of(one) if len(inner) > 1 else of)
        if field.title and not inner:
            found.append(_knob(f"{prefix}{name}", field, of))
    return found


def sections_of(field: FieldInfo) -> list[type[BaseModel]]:
    """The sections that may stand in a field: none for a leaf, several where one is chosen by its tag."""
    return [t for t in _branches(field.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]


def tag_of(section: type[BaseModel]) -> str:
    """What chooses this one among several: `name: dpo`, `type: lora`."""
    field = section.model_fields.get("name") or section.model_fields["type"]
    return str(field.default)


def _branches(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, and of the unions in it."""
    if get_origin(annotation) is Annotated:
        return _branches(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(branch for part in get_args(annotation) for branch in _branches(part))
    return (annotation,)


def _knob(path: str, field: FieldInfo, of: str = "") -> Knob:
    branches = _branches(field.annotation)
    plain = [b for b in branches if b is not type(None)]
    choices = tuple(str(c) for b in plain if get_origin(b) is Literal for c in get_args(b))
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    bounds = {
        name: getattr(mark, name)
        for mark in field.metadata
        for kind, name in ((Ge, "ge"), (Le, "le"), (Gt, "gt"), (Lt, "lt"), (MinLen, "min_length"))
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
        item=_item(plain),
        group=str(extra.get("group", "")),
        basic=bool(extra.get("basic", False)),
        unit=str(extra.get("unit", "")),
        of=of,
        rule=str(extra.get("rule", "")),
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


def _item(plain: list[Any]) -> Item:
    """What stands in a list, or behind the colon in a map."""
    inner = [_branches(get_args(branch)[-1]) for branch in plain if get_args(branch)]
    types = {one for branches in inner for one in branches}
    return "text" if str in types or not types & {int, float} else "float" if float in types else "int"


def _inner_choices(plain: list[Any]) -> tuple[str, ...]:
    for branch in plain:
        for inner in get_args(branch):
            if get_origin(inner) is Literal:
                return tuple(str(c) for c in get_args(inner))
    return ()
