"""What a machine's own finished runs say of estimates made on it: a Correction.

In: nothing. Out: plain data that `workspace/learning.py` fills and forecasts apply. Only what physics leaves open is
corrected: what lies outside torch's allocator, how much it holds beyond what is allocated, how fast and at how many
watts the machine works. What is allocated is never scaled: an error there is a mistake in the estimate. How any of
it is measured or fitted isn't known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# (measured - predicted) / predicted of `device`, where a machine has too few runs of its own to say: the band that
# holds the published measurements of real GPUs against this estimate (`python -m bench memory`).
PUBLISHED_LOW = -0.05
PUBLISHED_HIGH = 0.12


@dataclass(frozen=True)
class Last:
    """The latest run that was predicted and measured on a device; bytes of the whole process there."""

    run_id: str
    predicted: int
    measured: int

    @property
    def error(self) -> float:
        """(measured - predicted) / predicted."""
        return (self.measured - self.predicted) / self.predicted


@dataclass(frozen=True)
class Correction:
    """Neutral as it is made without arguments: nothing was learnt yet."""

    overhead: int | None = None  # bytes outside torch's allocator (context, libraries); None: the estimate's own table
    reserved_ratio: float = 1.0  # measured reserved / estimated reserved
    low: float = PUBLISHED_LOW  # (measured - predicted) / predicted of `device` lies between low ...
    high: float = PUBLISHED_HIGH  # ... and high
    runs: int = 0  # how many runs of this device are behind it
    rates: Mapping[str, float] = field(default_factory=dict)  # FLOP/s by kind of work (`core/work.py` names them)
    draw: float | None = None  # watts while training
    last: Last | None = None
