"""What a worker says while it works: one JSON object a line in events.jsonl.

In: values. Out: lines, and events from lines. Only the worker writes them; everyone else reads. JSON has no NaN, so
numbers that are none are written as the strings "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Stage:
    """What is being done now. `done` of `total` where it can be counted (bytes or rows, as `unit` says).

    `starting` opens each attempt; then `attempt` counts from 1 and what was logged after `from_step` is taken back,
    because the run goes on from the checkpoint of that step.
    """

    event: ClassVar[str] = "stage"
    name: str
    text: str
    done: int | None = None
    total: int | None = None
    unit: str = ""
    attempt: int = 0
    from_step: int = 0
    t: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Metrics:
    """Numbers measured at an optimizer step. `elapsed`: seconds of work so far, over all attempts."""

    event: ClassVar[str] = "metrics"
    step: int
    max_steps: int
    epoch: float
    elapsed: float
    values: dict[str, float]
    t: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Note:
    """Something the person should know: rows cut or left out, a setting chosen, a warning."""

    event: ClassVar[str] = "note"
    level: Literal["info", "warning"]
    text: str
    t: float = field(default_factory=time.time)


@dataclass(frozen=True)
class CheckpointSaved:
    """A complete checkpoint stands at `path` (relative to the job folder)."""

    event: ClassVar[str] = "checkpoint"
    step: int
    path: str
    t: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Ended:
    """The last event of an attempt. `result` holds what the job made: paths, sizes, measurements."""

    event: ClassVar[str] = "ended"
    status: Literal["finished", "stopped", "failed"]
    cause: str = ""
    hint: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    t: float = field(default_factory=time.time)


Event: TypeAlias = Stage | Metrics | Note | CheckpointSaved | Ended

_KINDS: dict[str, type[Event]] = {kind.event: kind for kind in (Stage, Metrics, Note, CheckpointSaved, Ended)}
_HINTS = {
    name: {key: hint for key, hint in get_type_hints(kind).items() if key != "event"} for name, kind in _KINDS.items()
}
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain JSON values, `event` naming its kind."""
    return {"event": event.event, **spell(dataclasses.asdict(event))}


def to_line(event: Event) -> str:
    """The event as one line, newline included."""
    return json.dumps(to_json(event), ensure_ascii=False, allow_nan=False) + "\n"


def from_line(line: str | bytes) -> Event | None:
    """The event in a line; None for a line that holds none (a kind this version doesn't know, or damage)."""
    try:
        data = json.loads(line)
        kind = _KINDS[data.pop("event")]
        hints = _HINTS[kind.event]
        known = {key: value for key, value in data.items() if key in hints}
        if kind is Metrics:
            known["values"] = {key: _NUMBERS.get(value, value) for key, value in known["values"].items()}
        return kind(**known) if all(_fits(value, hints[key]) for key, value in known.items()) else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from a line is what its field holds; readers fold events without looking again."""
    if hint is float:
        return isinstance(value, (float, int))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is dict:
        return isinstance(value, dict) and all(_fits(inner, get_args(hint)[1]) for inner in value.values())
    return hint is Any or isinstance(value, hint)


def spell(value: Any) -> Any:
    """The value as JSON can hold it; what JSON doesn't know (a path, say) is left as it is."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):  # half a surrogate pair, which a row's JSON can spell, has no bytes
        return value if value.isascii() else value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {key: spell(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [spell(inner) for inner in value]
    return value
