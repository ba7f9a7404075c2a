"""What this machine's own runs teach about estimates made on it.

In: run folders, each with what was predicted (estimate.json) and what was measured (memory.json); what the calibration
found (calibration.json). Out: Corrections by device, and the history that shows how good the estimates were. Kept in
learning.json: deleting runs unlearns nothing, and a file that is lost or damaged is made anew from the runs that are
there. Fits by medians, so that a run or two that went oddly change little. What is allocated is never corrected.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import statistics
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from studio.core.correction import PUBLISHED_HIGH, PUBLISHED_LOW, Correction, Last
from studio.core.job import JobFolder, read_json, write_text
from studio.workspace.runs import Runs

SCHEMA = 1
KEEP = 500  # lessons, the latest
LATEST = 30  # of a device's lessons that a correction is made from: drivers and libraries change
ENOUGH = 3  # runs, before their own spread says more than the published measurements'
_PATIENCE = 5.0  # seconds for another process that is writing
_RATIOS = (0.5, 3.0)  # an allocator holds no less and no more; what lies outside is a fault of something else
_NARROWEST = 0.02  # no band reaches less far to either side: the next run would make it a lie
_OUTLYING = 4.0  # robust standard deviations from the median, beyond which a run went oddly
_DEVIATION = 1.4826  # median absolute deviation -> standard deviation, for a normal distribution


@dataclass(frozen=True)
class Lesson:
    """One finished run. Bytes; None for what wasn't predicted or couldn't be measured there.

    `device` names the device; `measured` and `predicted` are of the whole process on it: what the driver counts, or the
    resident set on a processor. `reserved` is what a card's allocator held, `reserved_predicted` its estimate before
    any correction, `outside` what was beside it (on a processor: resident before there was a model). `assumed`: rows'
    lengths weren't known, so the estimate is of the longest that are allowed.
    """

    run_id: str
    device: str
    time: float
    predicted: int | None = None
    measured: int | None = None
    allocated_predicted: int | None = None
    allocated: int | None = None
    reserved_predicted: int | None = None
    reserved: int | None = None
    outside: int | None = None
    assumed: bool = False
    kind: str | None = None
    rate: float | None = None  # FLOP/s
    draw: float | None = None  # watts
    energy: float | None = None  # kWh

    @property
    def error(self) -> float | None:
        """(measured - predicted) / predicted."""
        return (self.measured - self.predicted) / self.predicted if self.measured and self.predicted else None


class Learning:
    """See the module. Safe to use from several threads and processes."""

    def __init__(self, home: Path, runs: Runs) -> None:
        self._path = home / "learning.json"
        self._calibration = home / "calibration.json"
        self._runs = runs
        self._lock = threading.Lock()
        self._caught_up = False
        self._seen: tuple[tuple[int, int], dict[str, Lesson]] | None = None

    def correction(self, device: str) -> Correction:
        """What is known of a device: the name the driver gives it, or "cpu". Some milliseconds at first, then none."""
        lessons = [lesson for lesson in self._lessons() if lesson.device == device][:LATEST]
        return fit(lessons, self._calibrated(device))

    def history(self, device: str | None = None, most: int = 10) -> list[Lesson]:
        """Runs that were both predicted and measured, the latest first."""
        known = [x for x in self._lessons() if x.error is not None and device in (None, x.device)]
        return known[:most]

    def note(self, run_id: str) -> None:
        """A run has ended: learn from it, if there is something to be learnt."""
        lesson = read_lesson(self._runs.folder / run_id)
        if lesson is not None:
            self._keep([lesson])

    # -- what is kept -------------------------------------------------------------------------------------------------

    def _lessons(self) -> list[Lesson]:
        """All, the latest first."""
        with self._lock:
            begin, self._caught_up = not self._caught_up, True
        if begin:
            self._catch_up()
        known, _ = self._read()
        return sorted(known.values(), key=lambda lesson: -lesson.time)

    def _catch_up(self) -> None:
        """Learn from runs that ended while no studio looked, and from all of them where the file is lost."""
        known, _ = self._read()
        with contextlib.suppress(OSError):
            unknown = [run_id for run_id in self._runs.ids()[:KEEP] if run_id not in known]
            found = [read_lesson(self._runs.folder / run_id) for run_id in unknown]
            self._keep(lesson for lesson in found if lesson is not None)

    def _keep(self, lessons: Iterable[Lesson]) -> None:
        new = {lesson.run_id: lesson for lesson in lessons}
        if not new:
            return
        with contextlib.suppress(OSError, Timeout), FileLock(self._path.with_suffix(".lock"), timeout=_PATIENCE):
            known, writable = self._read()
            if not writable:
                return
            kept = sorted({**known, **new}.values(), key=lambda lesson: -lesson.time)[:KEEP]
            if {lesson.run_id: lesson for lesson in kept} == known:
                return
            runs = {lesson.run_id: _spell(lesson) for lesson in kept}
            write_text(self._path, json.dumps({"schema": SCHEMA, "runs": runs}, indent=1))

    def _read(self) -> tuple[dict[str, Lesson], bool]:
        """The lessons kept, and whether the file may be written: a newer studio's is left alone."""
        try:
            stat = self._path.stat()
        except OSError:
            return {}, True
        mark = (stat.st_mtime_ns, stat.st_size)
        seen = self._seen
        if seen is not None and seen[0] == mark:
            return seen[1], True
        data = read_json(self._path) or {}
        schema = data.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            return {}, False
        runs = data.get("runs")
        found = [_parse(run_id, fields) for run_id, fields in (runs.items() if isinstance(runs, dict) else ())]
        known = {lesson.run_id: lesson for lesson in found if lesson is not None}
        self._seen = (mark, known)
        return known, True

    def _calibrated(self, device: str) -> dict[str, float]:
        """FLOP/s by kind of work, as the calibration measured them on that device."""
        data = read_json(self._calibration) or {}
        rates = data.get("rates")
        if data.get("schema") != SCHEMA or data.get("device_name") != device or not isinstance(rates, dict):
            return {}
        return {str(kind): rate for kind, value in rates.items() if (rate := _positive(value)) is not None}


def fit(lessons: list[Lesson], calibrated: Mapping[str, float]) -> Correction:
    """The correction from a device's lessons, the latest first."""
    outside = [lesson.outside for lesson in lessons if lesson.outside is not None]
    overhead = int(statistics.median(outside)) if outside else None
    ratio = _ratio(lessons)
    low, high, runs = _band(lessons, overhead, ratio)
    draws = [lesson.draw for lesson in lessons if lesson.draw is not None]
    rates = dict(calibrated)
    for kind in {lesson.kind for lesson in lessons if lesson.kind and lesson.rate}:
        rates[kind] = statistics.median(lesson.rate for lesson in lessons if lesson.kind == kind and lesson.rate)
    last = next((x for x in lessons if x.error is not None), None)
    return Correction(
        overhead=overhead,
        reserved_ratio=ratio,
        low=low,
        high=high,
        runs=runs,
        rates=rates,
        draw=statistics.median(draws) if draws else None,
        last=Last(last.run_id, last.predicted or 0, last.measured or 0) if last else None,
    )


def _ratio(lessons: list[Lesson]) -> float:
    known = [lesson for lesson in lessons if not lesson.assumed]
    ratios = [x.reserved / x.reserved_predicted for x in known if x.reserved and x.reserved_predicted]
    if len(ratios) < ENOUGH:
        return 1.0
    return min(max(statistics.median(ratios), _RATIOS[0]), _RATIOS[1])


def _band(lessons: list[Lesson], overhead: int | None, ratio: float) -> tuple[float, float, int]:
    """Low, high, and how many runs they come from: what would be left of their errors with this correction."""
    left = [error for lesson in lessons if (error := _error_left(lesson, overhead, ratio)) is not None]
    if len(left) < ENOUGH:
        return PUBLISHED_LOW, PUBLISHED_HIGH, len(left)
    middle = statistics.median(left)
    deviation = _DEVIATION * statistics.median(abs(x - middle) for x in left)
    usual = [x for x in left if abs(x - middle) <= _OUTLYING * deviation + _NARROWEST]
    # Of n runs, the next lies beyond their lowest or highest twice in n + 1 times: one more gap to either side.
    gap = max(_NARROWEST, (max(usual) - min(usual)) / max(1, len(usual) - 1))
    return max(min(usual) - gap, -0.9), max(usual) + gap, len(left)


def _error_left(lesson: Lesson, overhead: int | None, ratio: float) -> float | None:
    """The error of an estimate that had been corrected so. On a processor nothing but the process itself is corrected,
    and what was said then is what would be said now."""
    if lesson.assumed or lesson.measured is None:
        return None
    if lesson.reserved is None or lesson.reserved_predicted is None or overhead is None:
        return lesson.error
    corrected = lesson.reserved_predicted * ratio + overhead
    return (lesson.measured - corrected) / corrected


# -- from and to files ----------------------------------------------------------------------------------------------


def read_lesson(folder: Path) -> Lesson | None:
    """What a run's folder teaches; None for a run that never came to its end, or whose figures are damaged."""
    job = JobFolder(folder)
    memory, estimate = read_json(job.memory) or {}, read_json(job.estimate) or {}
    device, peak = memory.get("device_name"), _section(memory, "peak")
    if not isinstance(device, str) or not device or not peak:
        return None
    on_cpu = memory.get("device_kind") == "cpu"
    measured = _bytes(peak.get("rss" if on_cpu else "device"))
    reserved = _bytes(peak.get("reserved"))
    if on_cpu:
        outside = _bytes(_section(memory, "start").get("rss"))
    else:
        outside = measured - reserved if measured and reserved and measured >= reserved else None
    assumed = estimate.get("lengths_known") is False
    return Lesson(
        run_id=folder.name,
        device=device,
        time=_positive(memory.get("time")) or 0.0,
        predicted=_bytes(estimate.get("device")),
        measured=measured,
        allocated_predicted=_bytes(estimate.get("allocated")),
        allocated=_bytes(peak.get("allocated")),
        reserved_predicted=_bytes(estimate.get("reserved")),
        reserved=reserved,
        outside=outside,
        assumed=assumed,
        kind=memory["kind"] if isinstance(memory.get("kind"), str) else None,
        rate=None if assumed else _rate(memory, estimate),
        draw=_positive(memory.get("mean_watts")),
        energy=_positive(memory.get("energy_kwh")),
    )


def _rate(memory: dict[str, Any], estimate: dict[str, Any]) -> float | None:
    """FLOP/s: the operations that a token of this run takes, times the tokens that a second took."""
    flops, tokens = _positive(estimate.get("flops")), _positive(estimate.get("tokens"))
    speed = _positive(memory.get("tokens_per_second"))
    return flops / tokens * speed if flops and tokens and speed else None


def _parse(run_id: str, fields: Any) -> Lesson | None:
    """A kept lesson; None for one that is damaged."""
    if not isinstance(fields, dict) or not isinstance(fields.get("device"), str):
        return None
    whole = {name: _bytes(fields.get(name)) for name in _BYTES}
    kind = fields.get("kind")
    return Lesson(
        run_id=run_id,
        device=fields["device"],
        time=_positive(fields.get("time")) or 0.0,
        assumed=fields.get("assumed") is True,
        kind=kind if isinstance(kind, str) else None,
        rate=_positive(fields.get("rate")),
        draw=_positive(fields.get("draw")),
        energy=_positive(fields.get("energy")),
        **whole,
    )


_BYTES = tuple(field.name for field in dataclasses.fields(Lesson) if field.type == "int | None")


def _spell(lesson: Lesson) -> dict[str, Any]:
    fields = dataclasses.asdict(lesson)
    return {name: value for name, value in fields.items() if value not in (None, False) and name != "run_id"}


def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _positive(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        return None
    return float(value)


def _bytes(value: object) -> int | None:
    number = _positive(value)
    return int(number) if number is not None and number < 1 << 50 else None
