"""What a run will take, told before it starts: memory with its range, host memory, disk, steps, time, energy.

In: a RunConfig, a ModelShape, row lengths, a Device, what this machine's own runs have taught (a Correction), and its
Surroundings. Out: a Forecast; what needs many estimates (the largest batch and length, advice) is worked out when it
is first asked for. Starts nothing, asks nothing: whoever knows the machine says what it is like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from studio.core import footprint
from studio.core.config import RunConfig
from studio.core.correction import Correction
from studio.core.estimate import Device, Estimate, Practice, Versions, estimate, largest_batch, largest_length
from studio.core.footprint import Surroundings
from studio.core.memory.advice import Advice, advise, fit
from studio.core.rowlengths import RowLengths
from studio.core.shapes import ModelShape
from studio.core.work import Work, work, work_kind

__all__ = ["Forecast", "Surroundings", "Verdict", "forecast", "make_it_fit"]

Verdict = Literal["fits", "tight", "over", "unknown"]
_MOST_ROWS = 4096  # a micro-batch has no more, so only the longest so many rows can be in the largest one


@dataclass(frozen=True)
class Forecast:
    """Bytes. `low` to `high`: what `device` may come out as; `free`: what the device has left for it.

    `verdict`: fits (all of the range does), tight (some of it), over (not even the least that it needs), unknown
    (nobody knows what is free). `host_ram`: loading, training, checkpoint, merging, peak, and free if it is known;
    `disk`: download, checkpoints, final, merge, total, and free. `rows`: usable ones in the dataset; `seconds` and
    `kwh` are None where no speed, or no draw, is known.
    """

    config: RunConfig
    estimate: Estimate
    correction: Correction
    device: int
    low: int
    high: int
    free: int | None
    fits: bool | None
    verdict: Verdict
    host_ram: dict[str, int]
    disk: dict[str, int]
    rows: int | None
    work: Work | None
    seconds: float | None
    kwh: float | None
    lengths_known: bool
    shape: ModelShape = field(repr=False, compare=False)
    lengths: RowLengths | None = field(default=None, repr=False, compare=False)
    surroundings: Surroundings = field(default_factory=Surroundings, repr=False, compare=False)
    options: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run; None where the rows aren't known."""
        return self.work.steps if self.work else None

    @property
    def tokens(self) -> int | None:
        """Tokens that the whole run computes, without padding; None where the rows aren't known."""
        return self.work.tokens if self.work else None

    @property
    def flops(self) -> float | None:
        """Floating-point operations of all optimizer steps; None where the rows aren't known."""
        return self.work.flops if self.work else None

    @cached_property
    def largest_micro_batch(self) -> int | None:
        """The most rows a batch that fit; 0 where not even one does, None where nobody knows what is free."""
        return None if self.free is None else largest_batch(self.config, self.shape, self.free, **self.options)

    @cached_property
    def largest_max_length(self) -> int | None:
        """The longest rows that fit, whatever the dataset's are."""
        options = {**self.options, "lengths": None}
        return None if self.free is None else largest_length(self.config, self.shape, self.free, **options)

    @cached_property
    def advice(self) -> list[Advice]:
        """Changes that save memory, each alone, in the order of what they cost."""
        return advise(self.config, self.needs, self.lengths)

    def needs(self, config: RunConfig) -> int:
        """The least that a config would take on this device."""
        return estimate(config, self.shape, **self.options).needed

    def quick(self) -> dict[str, Any]:
        """What is known at once: everything in `to_dict` but the largest batch and length and the advice."""
        return {
            **self.estimate.to_dict(),
            "device": self.device,
            "low": self.low,
            "high": self.high,
            "fits": self.fits,
            "verdict": self.verdict,
            "free": self.free,
            "host_ram": self.host_ram,
            "disk": self.disk,
            "steps": self.steps,
            "tokens": self.tokens,
            "flops": self.flops,
            "seconds": self.seconds,
            "kwh": self.kwh,
            "lengths_known": self.lengths_known,
            "dataset_rows": self.rows,
            "correction": {"runs": self.correction.runs, "low": self.correction.low, "high": self.correction.high},
        }

    def to_dict(self) -> dict[str, Any]:
        """As `studio estimate --json` prints it."""
        return {
            **self.quick(),
            "largest_micro_batch": self.largest_micro_batch,
            "largest_max_length": self.largest_max_length,
            "advice": [one.to_dict() for one in self.advice],
        }


def forecast(
    config: RunConfig,
    shape: ModelShape,
    *,
    lengths: Sequence[int] | None = None,
    rows: int | None = None,
    device: Device | None = None,
    correction: Correction | None = None,
    surroundings: Surroundings | None = None,
    versions: Versions | None = None,
    practice: Practice | None = None,
) -> Forecast:
    """A Forecast, in some milliseconds.

    `lengths`: tokens of each usable row of the dataset; where they aren't known every row is as long as
    `training.max_length`, and `rows` says how many there are. `versions`, `practice`: as in `estimate`.
    """
    learnt, around = correction or Correction(), surroundings or Surroundings()
    device = device or Device(kind="cpu" if config.hardware.device == "cpu" else "cuda")
    if device.overhead is None and learnt.overhead is not None:
        device = replace(device, overhead=learnt.overhead)
    known = RowLengths.of(lengths) if lengths else None
    options: dict[str, Any] = {
        "lengths": known[:_MOST_ROWS] if known else None,
        "device": device,
        "versions": versions,
        "practice": practice,
    }
    found = estimate(config, shape, **options)
    total = round(found.reserved * learnt.reserved_ratio) + (found.device - found.reserved)
    low, high = round(total * (1 + learnt.low)), round(total * (1 + learnt.high))
    whole = work(config, shape, rows=rows, lengths=known, device=device)
    seconds = _seconds(whole, learnt.rates.get(work_kind(config, device.kind)))
    watts = learnt.draw if learnt.draw is not None else around.power_limit
    free = device.free if device.free is not None else device.memory
    return Forecast(
        config=config,
        estimate=found,
        correction=learnt,
        device=total,
        low=low,
        high=high,
        free=free,
        fits=found.fits,
        verdict=_verdict(found.needed, high, free, learnt),
        host_ram=footprint.host_ram(found, shape, around),
        disk=footprint.disk(found, shape, around),
        rows=len(known) if known else rows,
        work=whole,
        seconds=seconds,
        kwh=None if seconds is None or watts is None else seconds * watts / 3.6e6,
        lengths_known=known is not None,
        shape=shape,
        lengths=known,
        surroundings=around,
        options=options,
    )


def _seconds(whole: Work | None, rate: float | None) -> float | None:
    return (whole.flops + whole.evaluation) / rate if whole and rate else None


def _verdict(needed: int, high: int, free: int | None, learnt: Correction) -> Verdict:
    """What the allocator hoards can be given back, so too little is only what is less than is needed at the least."""
    if free is None:
        return "unknown"
    if high <= free:
        return "fits"
    return "over" if needed * (1 + learnt.low) > free else "tight"


def make_it_fit(found: Forecast) -> tuple[RunConfig, list[Advice]]:
    """Changes made one after the other, cheapest first, until all of the range fits or none is left; and which."""
    if found.free is None:
        return found.config, []
    room = found.free / (1 + max(0.0, found.correction.high))
    config, made = found.config, list[Advice]()
    for _ in range(3):
        config, made = fit(found.config, found.needs, int(room), found.lengths)
        now = again(found, config)
        if now.verdict == "fits" or now.estimate.needed > room:
            break
        room *= found.free / now.high  # what is reserved beyond what is needed
    return config, made


def again(found: Forecast, config: RunConfig) -> Forecast:
    """The same question about another config."""
    return forecast(
        config,
        found.shape,
        lengths=found.lengths,
        rows=found.rows,
        device=found.options["device"],
        correction=found.correction,
        surroundings=found.surroundings,
        versions=found.options["versions"],
        practice=found.options["practice"],
    )
