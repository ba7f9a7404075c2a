"""What a run draws: watts looked at once a second, and the energy that they come to.

In: a card, or the processor's own counters where this account may read them. Out: a Drawn; nothing where nobody counts.
What else runs on the same card or processor is counted with it: neither tells them apart.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

EVERY = 1.0  # seconds between two looks
ROOT = Path("/")  # where /sys begins
JOULES_PER_KWH = 3.6e6


class Counter(Protocol):
    """A card (`nvidia.Card`) or a Processor: energy since some moment, and the draw of this one."""

    def joules(self) -> float | None: ...

    def watts(self) -> float | None: ...


@dataclass(frozen=True)
class Drawn:
    """kWh, and watts: the mean and the most that was seen."""

    kwh: float
    mean: float
    most: float | None


class Processor:
    """RAPL: the counters of a processor's packages, in microjoules (Linux' powercap; often root's alone to read)."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._last = [_number(package / "energy_uj") for package in packages]
        self._sum = 0.0  # microjoules
        self._seen = (time.monotonic(), 0.0)

    @classmethod
    def find(cls) -> Processor | None:
        """None where no package's counter can be read."""
        zones = sorted(
            ROOT.glob("sys/class/powercap/intel-rapl:*")
        )  # AMD's too; of `intel-rapl:0:1` its package has it
        packages = [zone for zone in zones if zone.name.count(":") == 1 and _number(zone / "energy_uj") is not None]
        return cls(packages) if packages else None

    def joules(self) -> float | None:
        """Since this object was made; to be asked more often than the counters overflow (minutes)."""
        for place, package in enumerate(self._packages):
            now, before = _number(package / "energy_uj"), self._last[place]
            if now is not None and before is not None:
                whole = _number(package / "max_energy_range_uj") or 0
                self._sum += now - before if now >= before else now + max(0, whole - before)
            self._last[place] = now
        return self._sum / 1e6

    def watts(self) -> float | None:
        """Between the question before and this one."""
        (then, before), now, joules = self._seen, time.monotonic(), self.joules()
        if joules is None or now <= then:
            return None
        self._seen = (now, joules)
        return (joules - before) / (now - then)


class Meter:
    """Looks at a counter from `start` to `stop`, on a thread of its own."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="energy", daemon=True)
        self._began = 0.0
        self._first: float | None = None
        self._last: float | None = None
        self._looks: list[tuple[float, float]] = []  # seconds since the look before, watts
        self._most: float | None = None

    def start(self) -> None:
        self._began = time.monotonic()
        self._first = self._counter.joules()
        self._counter.watts()
        self._thread.start()

    def stop(self) -> Drawn | None:
        """None where nothing was told. Energy is the counter's own, else the draws' sum."""
        self._ended.set()
        self._thread.join()
        return self.so_far()

    def so_far(self) -> Drawn | None:
        """Up to the last look."""
        seconds = time.monotonic() - self._began
        if self._first is not None and self._last is not None and self._last > self._first:
            joules = self._last - self._first
        else:
            looked = sum(span for span, _ in self._looks)
            joules = sum(span * watts for span, watts in self._looks) * (seconds / looked if looked else 0)
        if not joules or seconds <= 0:
            return None
        return Drawn(joules / JOULES_PER_KWH, joules / seconds, self._most)

    def _watch(self) -> None:
        then = self._began
        while True:
            last = self._ended.wait(EVERY)
            self._last, watts, now = self._counter.joules(), self._counter.watts(), time.monotonic()
            if watts is not None:
                self._looks.append((now - then, watts))
                self._most = max(self._most or 0.0, watts)
            then = now
            if last:
                return


def _number(path: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(path.read_text())
    return None
