"""Asks the NVIDIA driver about its cards.

In: nothing but the driver's library (NVML, through nvidia-ml-py). Out: a DriverReading: each card with the figures that
the driver gave, None for those it didn't, and a note in plain words when something is wrong. DriverWatch asks on one
daemon thread with a deadline, so that a driver that hangs holds nobody up. It knows nothing of processors, RAM, torch,
or cards of other makers.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pynvml

DEADLINE_SECONDS = 1.0

_Number = TypeVar("_Number", int, float)

# Bounds of the believable, generous: what lies outside is a driver's nonsense (such as -1 read as an unsigned number).
_MOST_CARDS = 256
_MOST_BYTES = 1 << 50
_MOST_CELSIUS = 150
_MOST_WATTS = 5000.0

# These end the reading of one card, or of all; any other error means only that one figure isn't to be had.
_CARD_GONE = frozenset(
    {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_GPU_NOT_FOUND}
)
_DRIVER_GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
_NO_DRIVER = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})

# What the bindings raise over answers that make no sense: text that isn't UTF-8 and numbers that don't fit (ValueError,
# OverflowError), a list longer than announced (IndexError, MemoryError), a fault inside Windows' library (OSError).
_NONSENSE = (pynvml.NVMLLibraryMismatchError, ValueError, OverflowError, IndexError, MemoryError, OSError)


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory on a card. In a container the driver gives the pids of the host."""

    pid: int
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Gpu:
    """One card; None where the driver doesn't say. `memory_used` counts what the driver itself reserves, too."""

    index: int
    name: str
    memory_total: int | None = None  # bytes
    memory_used: int | None = None  # bytes
    memory_free: int | None = None  # bytes
    load: float | None = None  # percent of the time with work on the card, 0-100
    temperature: float | None = None  # degrees Celsius
    power: float | None = None  # watts
    power_limit: float | None = None  # watts
    processes: tuple[GpuProcess, ...] = ()


@dataclass(frozen=True)
class DriverReading:
    """What the driver said. No cards and no note: there is no driver, or it has no card."""

    gpus: tuple[Gpu, ...] = ()
    note: str | None = None
    driver: str | None = None  # version, like "580.65.06"
    cuda: str | None = None  # the newest CUDA that the driver runs, like "13.0"


class NvidiaDriver:
    """The driver's library, opened at the first reading and, after any fault, opened anew at the next."""

    def __init__(self) -> None:
        self._open = False

    def read(self) -> DriverReading:
        """All cards as they are now. Blocks as long as the driver does; raises nothing that a driver can cause."""
        try:
            if not self._open:
                pynvml.nvmlInit()
                self._open = True
            reading = _read_cards()
        except pynvml.NVMLError as error:
            reading = DriverReading(note=_driver_note(error.value))
        except _NONSENSE:
            reading = DriverReading(note="The NVIDIA driver's answer makes no sense; it is asked again.")
        if reading.note is not None or not reading.gpus:
            self._close()
        return reading

    def _close(self) -> None:
        # A reloaded driver and a card that came back answer only to a library that was shut down and opened again.
        if self._open:
            self._open = False
            _ask(pynvml.nvmlShutdown, fatal=frozenset())


class DriverWatch:
    """Asks the driver on a thread of its own and waits no longer than the deadline.

    There is one such thread at most. While it hangs, readers get the last good reading, marked with its time, at once;
    when the driver answers again, so do the next readings.
    """

    def __init__(self, ask: Callable[[], DriverReading] | None = None) -> None:
        self._ask = ask or NvidiaDriver().read
        self._lock = threading.Lock()
        self._pending: _Pending | None = None
        self._last_good: tuple[float, DriverReading] | None = None  # seconds since the epoch

    def read(self, deadline: float | None = None) -> DriverReading:
        """A fresh reading, or the last good one with a note. `deadline`: seconds (DEADLINE_SECONDS without one)."""
        with self._lock:
            if self._pending is None or self._pending.finished.is_set():
                self._pending = _Pending()
                try:
                    threading.Thread(target=self._run, args=(self._pending,), name="nvidia-driver", daemon=True).start()
                except RuntimeError:  # no more threads in this process: the same as a driver that doesn't answer
                    self._pending = None
            pending = self._pending
        if pending is not None:
            patience = DEADLINE_SECONDS if deadline is None else deadline
            # Counted from when the driver was asked: nobody waits a second time for one that hangs already.
            pending.finished.wait(max(0.0, pending.asked + patience - time.monotonic()))
            if pending.reading is not None:
                return pending.reading
        return self._stale()

    def _run(self, pending: _Pending) -> None:
        began = time.time()
        try:
            reading = self._ask()
            if reading.note is None:
                self._last_good = (began, reading)
            pending.reading = reading
        finally:
            pending.finished.set()

    def _stale(self) -> DriverReading:
        if self._last_good is None or not self._last_good[1].gpus:
            return DriverReading(note="The NVIDIA driver doesn't answer.")
        taken, reading = self._last_good
        clock = time.strftime("%H:%M:%S", time.localtime(taken))
        return replace(reading, note=f"The NVIDIA driver doesn't answer; figures are from {clock}.")


class _Pending:
    """One question to the driver, on its way."""

    def __init__(self) -> None:
        self.asked = time.monotonic()
        self.finished = threading.Event()
        self.reading: DriverReading | None = None


def _read_cards() -> DriverReading:
    count = pynvml.nvmlDeviceGetCount()
    if count > _MOST_CARDS:
        return DriverReading(note=f"The NVIDIA driver reports {count} cards, which can't be; it is asked again.")
    gpus: list[Gpu] = []
    notes: list[str] = []
    for index in range(count):
        try:
            # Handles are fetched anew each time: one kept from before a card was reset can crash the process.
            gpus.append(_read_card(index, pynvml.nvmlDeviceGetHandleByIndex(index)))
        except pynvml.NVMLError as error:
            if error.value in _DRIVER_GONE:
                raise
            gpus.append(Gpu(index, f"NVIDIA GPU {index}"))
            notes.append(_card_note(index, error.value))
    cuda = _within(_ask(pynvml.nvmlSystemGetCudaDriverVersion), 1000, 1_000_000)
    return DriverReading(
        gpus=tuple(gpus),
        note=" ".join(notes) or None,
        driver=_text(_ask(pynvml.nvmlSystemGetDriverVersion)),
        cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    )


def _read_card(index: int, handle: Any) -> Gpu:
    total = used = free = load = None
    memory = _ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is not None and _within(memory.total, 1, _MOST_BYTES) is not None:
        total = int(memory.total)
        used, free = _within(memory.used, 0, total), _within(memory.free, 0, total)
    utilization = _ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    if utilization is not None:
        load = _within(float(utilization.gpu), 0.0, 100.0)
    return Gpu(
        index=index,
        name=_text(_ask(pynvml.nvmlDeviceGetName, handle)) or f"NVIDIA GPU {index}",
        memory_total=total,
        memory_used=used,
        memory_free=free,
        load=load,
        temperature=_temperature(handle),
        power=_watts(_ask(pynvml.nvmlDeviceGetPowerUsage, handle), least=0.0),
        # A limit of nothing is no limit that a card could have.
        power_limit=_watts(_ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle), least=1.0),
        processes=_processes(handle, total or _MOST_BYTES),
    )


def _temperature(handle: Any) -> float | None:
    # The first call is being retired in favour of the second, which drivers of before 2025 don't have.
    for call in (pynvml.nvmlDeviceGetTemperature, pynvml.nvmlDeviceGetTemperatureV):
        degrees = _ask(call, handle, pynvml.NVML_TEMPERATURE_GPU)
        if degrees is not None:
            return _within(float(degrees), 0.0, float(_MOST_CELSIUS))
    return None


def _watts(milliwatts: int | None, least: float) -> float | None:
    return None if milliwatts is None else _within(milliwatts / 1000, least, _MOST_WATTS)


def _processes(handle: Any, most_bytes: int) -> tuple[GpuProcess, ...]:
    """Processes that compute and those that draw; one that does both is in both of the driver's lists."""
    memory: dict[int, int | None] = {}
    for call in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _ask(call, handle) or ():
            if memory.get(process.pid) is None:
                memory[process.pid] = _within(process.usedGpuMemory, 0, most_bytes)
    return tuple(GpuProcess(pid, _process_name(pid), size) for pid, size in sorted(memory.items()))


def _process_name(pid: int) -> str:
    # The driver is asked, not the system: in a container its pids are the host's, and the system would name a stranger.
    name = _text(_ask(pynvml.nvmlSystemGetProcessName, pid))
    return (re.split(r"[\\/]", name)[-1] if name else "") or "unknown"


def _ask(call: Callable[..., Any], *arguments: Any, fatal: frozenset[int] = _CARD_GONE | _DRIVER_GONE) -> Any:
    """The driver's answer; None where it has none or the answer makes no sense. Raises NVMLError of the fatal codes."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in fatal:
            raise
        return None
    except _NONSENSE:
        return None


def _within(value: _Number | None, least: _Number, most: _Number) -> _Number | None:
    return value if value is not None and least <= value <= most else None


def _text(value: str | None) -> str | None:
    """The text, unless it is empty or carries control characters."""
    value = value.strip() if value else None
    return value if value and value.isprintable() else None


def _driver_note(code: int) -> str | None:
    """Why there is no reading at all; None where there simply is no driver."""
    if code in _NO_DRIVER:
        return None
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return "This account may not ask the NVIDIA driver; start the studio as a user who may use the card."
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "The parts of the NVIDIA driver don't match, as after an update; restart the computer."
    if code in _CARD_GONE:
        return "The NVIDIA driver has lost its card; restart the computer."
    if code == pynvml.NVML_ERROR_UNINITIALIZED:
        return "The NVIDIA driver stopped in the middle of an answer; it is asked again."
    return f"The NVIDIA driver reports a fault (NVML error {code}); it is asked again."


def _card_note(index: int, code: int) -> str:
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return f"This account may not read GPU {index}; start the studio as a user who may use the card."
    if code in _CARD_GONE:
        return f"The driver has lost GPU {index}; restart the computer."
    return f"The NVIDIA driver gives no figures for GPU {index} (NVML error {code}); they are asked for again."
