"""Whether a run fits, told: a Forecast as the figures and sentences that the page's card shows.

In: Forecasts, what is known of the dataset's lengths. Out: plain dicts for the page's script, which draws them. Memory
is told in GB of 2^30 bytes, as cards are sold. Knows no machine; what is worked out is core's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.core.forecast import Forecast
from studio.ui import shown
from studio.ui.text_fit import ENGLISH, say
from studio.workspace.estimating import LengthsState

GB = 2**30
_SMALL = 0.05  # GB: what would be shown as 0.0 is put together
_MOST_PARTS = 6
_MATTERS = 0.8  # of what is free: from there on RAM and disk are worth a line


def gb(size: float) -> str:
    """Bytes in GB with one decimal."""
    return f"{size / GB:.1f}"


def between(low: int, high: int) -> str:
    """A range in GB; one figure where both ends are alike."""
    return gb(low) if gb(low) == gb(high) else say("fit.range", low=gb(low), high=gb(high))


def card(found: Forecast, lengths: LengthsState, steps: int | None = None) -> dict[str, Any]:
    """What is told at once. `steps`: of the optimizer, where the forecast's own aren't known."""
    used = found.estimate.device_used
    cuda = used.kind == "cuda"
    parts = _parts(found, cuda)
    return {
        "verdict": verdict(found),
        "parts": parts,
        "low": found.low,
        "high": found.high,
        "free": found.free,
        "free_text": "" if found.free is None else f"{gb(found.free)} GB",
        "kind": "cuda" if cuda else "cpu",
        "total": gb(sum(part["bytes"] for part in parts)),
        "bar": _bar(parts, found.free),
        "used": _used(found) if cuda else "",
        "moment": _moment(found.estimate.peak_moment),
        "lengths": _lengths(found, lengths),
        "counted": found.lengths_known,
        "range": _range(found),
        "notes": notes(found),
        "cost": cost(found, steps if found.steps is None else found.steps),
        "last": _last(found),
        "instant": found.device,
    }


def verdict(found: Forecast) -> dict[str, str]:
    """In one sentence: whether it fits."""
    free = "" if found.free is None else gb(found.free)
    what = "" if found.estimate.device_used.kind == "cuda" else say("fit.ram")
    text = say(f"fit.verdict.{found.verdict}", range=between(found.low, found.high), free=free, what=what)
    return {"state": found.verdict, "text": text}


def method(found: Forecast) -> dict[str, str]:
    """A cell of the table of models and methods."""
    return {"state": found.verdict, "size": gb(found.high), "word": say(f"fit.methods.{found.verdict}")}


# -- part by part -----------------------------------------------------------------------------------------------------


def _parts(found: Forecast, cuda: bool) -> list[dict[str, Any]]:
    """The peak's parts and what lies around them, largest first; together they are what the device shows."""
    estimate = found.estimate
    sizes = {name.replace(" ", "_").lower(): size for name, size in estimate.parts.items()}
    if cuda:
        sizes["context"] = estimate.device - estimate.reserved
        sizes["cached"] = found.device - estimate.allocated - sizes["context"]
    else:
        sizes["process"] = found.device - estimate.allocated
    ordered = sorted(((name, size) for name, size in sizes.items() if size > 0), key=lambda part: -part[1])
    shown_apart = [part for part in ordered[:_MOST_PARTS] if part[1] >= _SMALL * GB]
    rest = ordered[len(shown_apart) :]
    told = [_part(name, size, _tip(name)) for name, size in shown_apart]
    if sum(size for _, size in rest) >= _SMALL * GB:
        names = ", ".join(_name(name) for name, _ in rest)
        told.append(_part("other", sum(size for _, size in rest), say("fit.part.other.tip", parts=names)))
    return told


def _part(name: str, size: int, tip: str) -> dict[str, Any]:
    return {"key": name, "name": _name(name), "tip": tip, "bytes": size, "gb": gb(size)}


def _name(part: str) -> str:
    return say(f"fit.part.{part}") if f"fit.part.{part}" in ENGLISH else part.replace("_", " ").capitalize()


def _tip(part: str) -> str:
    return say(f"fit.part.{part}.tip") if f"fit.part.{part}.tip" in ENGLISH else ""


def _bar(parts: Sequence[Mapping[str, Any]], free: int | None) -> str:
    """The bar for those who can't see it."""
    told = ", ".join(f"{part['name']} {part['gb']} GB" for part in parts)
    return say("fit.bar.unknown", parts=told) if free is None else say("fit.bar", parts=told, free=gb(free))


def _used(found: Forecast) -> str:
    """What other programs hold of the card."""
    total, free = found.estimate.device_used.memory, found.free
    if total is None or free is None or total - free < 0.02 * total:
        return ""
    return say("fit.used", used=gb(total - free), total=gb(total))


# -- sentences --------------------------------------------------------------------------------------------------------


def _moment(moment: str) -> str:
    known = f"fit.moment.{moment}" in ENGLISH
    return say("fit.moment", moment=say(f"fit.moment.{moment}") if known else moment)


def _lengths(found: Forecast, lengths: LengthsState) -> str:
    estimate = found.estimate
    rows, length = shown.count(estimate.rows), shown.count(estimate.length)
    training = found.config.training
    if training.packing:
        size = training.per_device_train_batch_size
        return say("fit.lengths.packed", rows=shown.count(size), length=shown.count(training.max_length))
    if found.lengths_known:
        return say("fit.lengths.known", rows=rows, length=length)
    if lengths.busy and lengths.done is not None and lengths.total:
        counted = {"done": shown.count(lengths.done), "total": shown.count(lengths.total)}
        return say("fit.lengths.counted", length=length, **counted)
    if lengths.busy:
        return say("fit.lengths.counting", length=length)
    return f"{say('fit.lengths.assumed', length=length)} {lengths.problem}".strip()


def _range(found: Forecast) -> str:
    """Where the range comes from."""
    runs = found.correction.runs
    key = "runs" if runs > 2 else "run" if runs else "published"
    return f"{say(f'fit.range.{key}', **({'runs': runs} if runs > 2 else {}))} {say('fit.gb')}"


def notes(found: Forecast) -> list[dict[str, str]]:
    """RAM and disk, where they are nearly used up or would not do."""
    told = []
    ram, disk = found.host_ram, found.disk
    if found.estimate.device_used.kind == "cuda" and "free" in ram:
        needed = max(ram.get(name, 0) for name in ("loading", "training", "checkpoint"))
        key = "fit.host.loading" if needed == ram.get("loading") else "fit.host.ram"
        told.append(_note(key, needed, ram["free"]))
    if "free" in ram:
        told.append(_note("fit.host.merging", ram.get("merging", 0), ram["free"]))
    if "free" in disk:
        key = "fit.host.download" if disk.get("download") else "fit.host.disk"
        more = {"download": gb(disk["download"])} if disk.get("download") else {}
        needed = sum(disk.get(name, 0) for name in ("download", "checkpoints", "final"))
        told.append(_note(key, needed, disk["free"], **more))
    return [note for note in told if note["state"]]


def _note(key: str, needed: int, free: int, **more: str) -> dict[str, str]:
    state = "over" if needed > free else "tight" if needed > _MATTERS * free else ""
    return {"state": state, "text": say(key, needed=gb(needed), free=gb(free), **more)}


def cost(found: Forecast, steps: int | None) -> str:
    """Time, energy and steps, as far as they are known."""
    told = []
    if found.seconds is not None:
        told.append(say("fit.time", time=roughly(found.seconds)))
    if found.kwh is not None:
        small = found.kwh < 0.01
        told.append(say("fit.energy.small") if small else say("fit.energy", kwh=f"{found.kwh:.2g}"))
    if steps is not None:
        told.append(say("fit.steps.one") if steps == 1 else say("fit.steps", steps=shown.count(steps)))
    if found.seconds is None:
        told.append(say("fit.time.unknown"))
    return " · ".join(told)


def roughly(seconds: float) -> str:
    """How long, in the units that a person would say it in."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes / 60
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def _last(found: Forecast) -> dict[str, str] | None:
    last = found.correction.last
    if last is None:
        return None
    return {"run": last.run_id, "text": say("fit.last", measured=gb(last.measured), error=signed(last.error))}


def signed(share: float) -> str:
    """A difference in whole percent, with its sign."""
    percent = round(100 * share)
    return f"\u2212{-percent}" if percent < 0 else f"+{percent}" if percent else "0"
