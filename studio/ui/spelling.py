"""How a knob's value is written in its control, and read back.

In: a Knob and a value, or what stands in a control. Out: the other of the two. Everything that a valid config may
hold comes back as it was: where plain text can't say it (an empty prompt that is not the same as none, a name with a
comma in it), it is written as JSON. Nothing is judged here: what can't be read as the knob's kind is passed on as it
stands, and core says what is wrong with it.
"""

from __future__ import annotations

import contextlib
import json
import re
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from studio.core.config import RunConfig
from studio.core.knobs import Knob, sections_of, tag_of

_SWITCH = {"true": True, "false": False}
_MIXED = ("training.lr_scheduler_kwargs",)  # numbers and words, by the schedule
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-"})  # as numbers are written in papers


def written(knob: Knob, value: Any) -> Any:
    """What the control shows for a value: text, and for a switch, a choice or a list the value itself."""
    if knob.kind in ("int", "float"):
        return "" if value is None else number(value)
    if knob.kind == "choice":
        return str(value).lower() if isinstance(value, bool) else value
    if knob.kind in ("text", "texts", "map"):
        return _text(knob, value)
    return value


def read(knob: Knob, shown: Any) -> Any:
    """The value that stands in the control. Never raises."""
    if knob.kind == "choice":
        return _SWITCH.get(shown, shown) if "true" in knob.choices and isinstance(shown, str) else shown
    if knob.kind in ("int", "float"):
        return _read_number(shown)
    if knob.kind in ("text", "texts", "map"):
        return _read_text(knob, "" if shown is None else str(shown))
    return shown


def number(value: float) -> str:
    """A number as short as it can be and still be the same: 2e-4, 0.03, 1024."""
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return str(int(value))
    plain = repr(float(value))
    for digits in range(17):
        mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
        if float(short := f"{mantissa}e{int(exponent)}") == value:
            return min(plain, short, key=len)
    return plain


def _read_number(shown: Any) -> Any:
    if not isinstance(shown, str):
        return shown
    text = shown.strip().translate(_MINUS)
    if not text:
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def _text(knob: Knob, value: Any) -> str:
    plain = _plain(knob, value)
    return plain if _same(_read_text(knob, plain), value) else json.dumps(value, ensure_ascii=False)


def _plain(knob: Knob, value: Any) -> str:
    """The value in the most natural words, whether or not they say it exactly."""
    if isinstance(value, dict):
        return ", ".join(f"{key}: {inner}" for key, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value or ""


def _read_text(knob: Knob, text: str) -> Any:
    exact = _read_json(knob, text)
    if exact is not None:
        return exact
    if knob.kind == "map":
        return _read_map(knob, text)
    if knob.kind == "texts":
        parts = [_item(part.strip(), knob.item) for part in text.split(",") if part.strip()]
        return parts or (None if knob.optional else [])
    if not text:
        return None if knob.optional else ""
    if "," in text and _takes_list(knob.path, knob.of):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _read_json(knob: Knob, text: str) -> Any:
    """The value of a text that is JSON of the knob's kind, None otherwise.

    Quotes around a text that needs none are part of it: someone has typed them.
    """
    if not text.startswith(("[", "{", '"')):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if knob.kind == "map":
        return value if isinstance(value, dict) else None
    if isinstance(value, list) and _takes_list(knob.path, knob.of):
        return value
    needed = isinstance(value, str) and not _same(_read_text(knob, value), value)
    return value if needed else None


def _read_map(knob: Knob, text: str) -> Any:
    kind = "number" if knob.path in _MIXED else knob.item
    found = {}
    for part in re.split(r"[,\n]", text):
        key, colon, value = part.partition(":")
        if colon:
            found[key.strip()] = _item(value.strip(), kind)
        elif part.strip():
            return text
    return found


def _item(text: str, kind: str) -> Any:
    """What stands in a list, or behind a colon; what is no number is left to core to refuse."""
    if kind == "text":
        return text
    value = _read_number(text)
    return float(value) if kind == "float" and isinstance(value, int) else value


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


@lru_cache(maxsize=512)
def _takes_list(path: str, of: str) -> bool:
    """Whether a knob may hold a list. `of`: the method or adapter whose knob it is."""
    section: Any = RunConfig
    *sections, leaf = path.split(".")
    for name in sections:
        among = sections_of(section.model_fields[name])
        section = next(one for one in among if len(among) == 1 or tag_of(one) == of)
    return _holds_list(section.model_fields[leaf].annotation)


def _holds_list(annotation: Any) -> bool:
    """Of a type, or of one of those in a union."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return any(_holds_list(branch) for branch in get_args(annotation))
    return get_origin(annotation) is list
