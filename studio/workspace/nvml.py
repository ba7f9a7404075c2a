"""Asks the NVIDIA driver about its cards.

In: nothing but the driver's library (NVML, through nvidia-ml-py). Out: a DriverReading: its cards as `card` reads them,
and a note in plain words when something is wrong. DriverWatch asks on one daemon thread with a deadline, so that a
driver that hangs holds nobody up. It knows nothing of processors, RAM, torch, or cards of other makers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pynvml

from studio.workspace.card import CARD_GONE, DRIVER_GONE, NONSENSE, Gpu, ask, read_card, text, within

DEADLINE_SECONDS = 1.0

_MOST_CARDS = 256  # more of them are a driver's nonsense
_NO_DRIVER = frozenset({pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED})


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
        except NONSENSE:
            reading = DriverReading(note="The NVIDIA driver's answer makes no sense; it is asked again.")
        if reading.note is not None or not reading.gpus:
            self._close()
        return reading

    def _close(self) -> None:
        # A reloaded driver and a card that came back answer only to a library that was shut down and opened again.
        if self._open:
            self._open = False
            ask(pynvml.nvmlShutdown, fatal=frozenset())


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
            gpus.append(read_card(index, pynvml.nvmlDeviceGetHandleByIndex(index)))
        except pynvml.NVMLError as error:
            if error.value in DRIVER_GONE:
                raise
            gpus.append(Gpu(index, f"NVIDIA GPU {index}"))
            notes.append(_card_note(index, error.value))
    cuda = within(ask(pynvml.nvmlSystemGetCudaDriverVersion), 1000, 1_000_000)
    return DriverReading(
        gpus=tuple(gpus),
        note=" ".join(notes) or None,
        driver=text(ask(pynvml.nvmlSystemGetDriverVersion)),
        cuda=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    )


def _driver_note(code: int) -> str | None:
    """Why there is no reading at all; None where there simply is no driver."""
    if code in _NO_DRIVER:
        return None
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return "This account may not ask the NVIDIA driver; start the studio as a user who may use the card."
    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "The parts of the NVIDIA driver don't match, as after an update; restart the computer."
    if code in CARD_GONE:
        return "The NVIDIA driver has lost its card; restart the computer."
    if code == pynvml.NVML_ERROR_UNINITIALIZED:
        return "The NVIDIA driver stopped in the middle of an answer; it is asked again."
    return f"The NVIDIA driver reports a fault (NVML error {code}); it is asked again."


def _card_note(index: int, code: int) -> str:
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return f"This account may not read GPU {index}; start the studio as a user who may use the card."
    if code in CARD_GONE:
        return f"The driver has lost GPU {index}; restart the computer."
    return f"The NVIDIA driver gives no figures for GPU {index} (NVML error {code}); they are asked for again."
