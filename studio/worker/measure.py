"""What a training worker measures of itself: memory at each step of the ladder, pace, energy.

    start -> loaded -> first_step -> peak      bytes: allocated, reserved, device, rss

In: a job's folder, the device. Out: memory.json there, anew at each step, and what a run's result says of it. Measuring
never fails a run: what can't be told is null. How a figure was predicted isn't known here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import psutil
import torch

from studio.core.job import JobFolder, read_json, write_text
from studio.worker.energy import Drawn, Meter, Processor
from studio.worker.nvidia import Card, device_name, in_use

_MOST_STEPS = 1000  # of the latest steps whose time is kept for the median
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

_Given = ParamSpec("_Given")


def _harmless(method: Callable[_Given, None]) -> Callable[_Given, None]:
    """Whatever goes wrong in it, the run goes on."""

    @functools.wraps(method)
    def tried(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - drivers and systems fail in ways nobody lists, and a figure is no run
            sys.stderr.write(f"not measured ({type(error).__name__}: {error})\n")

    return tried


class Measure:
    """One attempt's figures. Called in this order: on, mark("loaded"), begin, step ..., finish."""

    def __init__(self, folder: JobFolder) -> None:
        self._path = folder.memory
        self._device = torch.device("cpu")
        self._weights: torch.dtype | None = None
        self._kind = ""
        self._card: Card | None = None
        self._before: dict[str, int] = {}  # bytes in use on each card before this process took any
        self._meter: Meter | None = None
        self._ladder: dict[str, dict[str, int | None]] = {}
        self._loading_rss = 0
        self._seconds: deque[float] = deque(maxlen=_MOST_STEPS)
        self._steps = 0
        self._busy = 0.0  # seconds of steps without the first, and the tokens that went through them
        self._busy_tokens = 0
        self._tokens: int | None = None
        self._kwh = 0.0
        self._drawn: Drawn | None = None
        self._prepare()

    @_harmless
    def _prepare(self) -> None:
        self._kwh = float((read_json(self._path) or {}).get("energy_kwh") or 0.0)  # of the attempts before
        self._before = in_use()

    @_harmless
    def on(self, device: torch.device, weights: torch.dtype, kind: str) -> None:
        """The run computes there, with the base's weights in this format; `kind`: see core/work.py."""
        self._device, self._weights, self._kind = device, weights, kind
        self._card = Card.find(device)
        self.mark("start")

    @_harmless
    def mark(self, rung: str) -> None:
        """Look at the memory now; the peak is that of everything since `loaded`."""
        self._ladder[rung] = self._look(peak=rung == "peak")
        if rung == "loaded":
            self._forget_highest_rss()
        self.write()

    @_harmless
    def begin(self) -> None:
        """Training begins: energy is counted from here."""
        counter = self._card or (Processor.find() if self._device.type == "cpu" else None)
        if counter is not None:
            self._meter = Meter(counter)
            self._meter.start()

    @_harmless
    def wait(self) -> None:
        """Wait for what the device still computes: without it a step's time is that of handing it over."""
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)

    @_harmless
    def step(self, seconds: float, tokens: int) -> None:
        """An optimizer step took so long; `tokens` were trained on so far."""
        self._steps += 1
        if self._tokens is None:  # the first one chooses kernels, fills caches and makes the optimizer's state
            self.mark("first_step")
        else:
            self._seconds.append(seconds)
            self._busy += seconds
            self._busy_tokens += tokens - self._tokens
        self._tokens = tokens

    @_harmless
    def finish(self) -> None:
        """Training has ended."""
        self.mark("peak")
        if self._meter is not None:
            self._drawn = self._meter.stop()
            self._meter = None
        self.write()

    def result(self) -> dict[str, Any]:
        """What the run's last event says: the ladder, and the energy where it is known."""
        kwh = self._energy()
        return {"memory": self._ladder, **({"energy_kwh": kwh} if kwh is not None else {})}

    @property
    def highest_rss(self) -> int:
        """The largest resident set of this process so far, in bytes; loading counts too."""
        return max(self._loading_rss, _highest_rss())

    @_harmless
    def write(self) -> None:
        """Put what is known into the run's folder."""
        with contextlib.suppress(OSError):
            write_text(self._path, json.dumps(self._figures(), indent=1))

    def _figures(self) -> dict[str, Any]:
        drawn = self._meter.so_far() if self._meter else self._drawn
        return {
            "schema": 1,
            "time": time.time(),
            "device_name": device_name(self._device, self._card),
            "device_kind": self._device.type,
            "kind": self._kind,
            "weights": str(self._weights).removeprefix("torch.") if self._weights else None,
            **self._ladder,
            "steps": self._steps,
            "seconds_per_step": round(statistics.median(self._seconds), 6) if self._seconds else None,
            "tokens_per_second": round(self._busy_tokens / self._busy, 3) if self._busy > 0 else None,
            "energy_kwh": self._energy(),
            "mean_watts": drawn and round(drawn.mean, 1),
            "most_watts": drawn and drawn.most and round(drawn.most, 1),
        }

    def _energy(self) -> float | None:
        drawn = self._meter.so_far() if self._meter else self._drawn
        kwh = self._kwh + (drawn.kwh if drawn else 0.0)
        return round(kwh, 9) if kwh else None

    def _look(self, peak: bool) -> dict[str, int | None]:
        allocated, reserved = self._torch(peak)
        rss = _highest_rss() if peak else int(psutil.Process().memory_info().rss)
        return {"allocated": allocated, "reserved": reserved, "device": self._on_card(reserved, peak), "rss": rss}

    def _torch(self, peak: bool) -> tuple[int | None, int | None]:
        """Bytes that torch's allocator has given out, and those that it holds."""
        if self._device.type in ("cpu", "mps"):
            return None, None
        memory = torch.accelerator if self._device.type != "cuda" else torch.cuda
        if peak:
            return memory.max_memory_allocated(self._device), memory.max_memory_reserved(self._device)
        return memory.memory_allocated(self._device), memory.memory_reserved(self._device)

    def _on_card(self, reserved: int | None, peak: bool) -> int | None:
        """Bytes that the driver counts as this process's.

        It keeps no peak: that is the allocator's, and beside it what the card holds outside the allocator now. Where
        the driver doesn't show this process (in a container), all that was taken since the start counts as its own.
        """
        if self._card is None:
            return None
        held = self._card.used_by_me()
        if held is None:
            used, before = self._card.used(), self._before.get(self._card.uuid() or "")
            held = None if used is None or before is None else max(0, used - before)
        if held is None or not peak or reserved is None:
            return held
        return reserved + max(0, held - int(torch.cuda.memory_reserved(self._device)))

    def _forget_highest_rss(self) -> None:
        """From here on the system keeps the highest resident set anew (Linux): loading a model is no training step."""
        self._loading_rss = _highest_rss()
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")  # man 5 proc: resets VmHWM


def _highest_rss() -> int:
    """The kernel's own count for this process; getrusage's may be that of the process that started it."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    from studio.worker.job import peak_rss

    return peak_rss()
