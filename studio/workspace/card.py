"""One NVIDIA card, as its driver describes it.

In: the driver's handle of a card (NVML, through nvidia-ml-py). Out: a Gpu; None for every figure that the driver
doesn't give, or that can't be true. Raises NVMLError where the card or the driver has gone: what that means for the
others is `nvml`'s to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import pynvml

_Number = TypeVar("_Number", int, float)

# Bounds of the believable, generous: what lies outside is a driver's nonsense (such as -1 read as an unsigned number).
_MOST_BYTES = 1 << 50
_MOST_CELSIUS = 150
_MOST_WATTS = 5000.0
_MOST_MEGAHERTZ = 20_000
_MOST_JOULES = 1e12
_MOST_PARTS = 16  # of a card that is shared out

# These end the reading of one card, or of all; any other error means only that one figure isn't to be had.
CARD_GONE = frozenset(
    {pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED, pynvml.NVML_ERROR_GPU_NOT_FOUND}
)
DRIVER_GONE = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)

# What the bindings raise over answers that make no sense: text that isn't UTF-8 and numbers that don't fit (ValueError,
# OverflowError), a list longer than announced (IndexError, MemoryError), a fault inside Windows' library (OSError).
NONSENSE = (pynvml.NVMLLibraryMismatchError, ValueError, OverflowError, IndexError, MemoryError, OSError)

# nvml.h, nvmlClocksEventReasons: why clocks are lower than they could be. Being idle and being told to are no trouble,
# and so are left out: a card at rest would seem ill.
_SLOWED = {
    pynvml.nvmlClocksEventReasonSwPowerCap: "power_limit",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hardware",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "heat",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "heat_hardware",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "power_brake",
}


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory on a card. In a container the driver gives the pids of the host."""

    pid: int
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class GpuPart:
    """A part of a card that is shared out by MIG; it has memory of its own."""

    name: str
    memory_total: int | None  # bytes
    memory_used: int | None  # bytes


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
    power_range: tuple[float, float] | None = None  # watts between which the limit can be set
    energy: float | None = None  # joules since the driver was loaded
    clock: int | None = None  # MHz of the multiprocessors, now
    clock_most: int | None = None
    memory_clock: int | None = None
    memory_clock_most: int | None = None
    slowed: tuple[str, ...] = ()  # why clocks are held back: power_limit, power_brake, heat, heat_hardware, hardware
    pcie_generation: int | None = None  # of the link as it is now: at rest it is turned down
    pcie_generation_most: int | None = None
    pcie_width: int | None = None  # lanes
    pcie_width_most: int | None = None
    mig: bool | None = None  # whether it is shared out in parts; None where it can't be
    parts: tuple[GpuPart, ...] = ()
    processes: tuple[GpuProcess, ...] = ()


def read_card(index: int, handle: Any) -> Gpu:
    """The card as it is now. Raises NVMLError of CARD_GONE and DRIVER_GONE."""
    total, used, free = _memory(handle)
    utilization = ask(pynvml.nvmlDeviceGetUtilizationRates, handle)
    millijoules = ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
    shared = _mig(handle)
    return Gpu(
        index=index,
        name=text(ask(pynvml.nvmlDeviceGetName, handle)) or f"NVIDIA GPU {index}",
        memory_total=total,
        memory_used=used,
        memory_free=free,
        load=None if utilization is None else within(float(utilization.gpu), 0.0, 100.0),
        temperature=_temperature(handle),
        power=_watts(ask(pynvml.nvmlDeviceGetPowerUsage, handle), least=0.0),
        # A limit of nothing is no limit that a card could have.
        power_limit=_watts(ask(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle), least=1.0),
        power_range=_power_range(handle),
        energy=None if millijoules is None else within(millijoules / 1000, 0.0, _MOST_JOULES),
        clock=_clock(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        clock_most=_clock(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        memory_clock=_clock(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        memory_clock_most=_clock(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        slowed=_slowed(handle),
        pcie_generation=within(ask(pynvml.nvmlDeviceGetCurrPcieLinkGeneration, handle), 1, 20),
        pcie_generation_most=within(ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle), 1, 20),
        pcie_width=within(ask(pynvml.nvmlDeviceGetCurrPcieLinkWidth, handle), 1, 64),
        pcie_width_most=within(ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle), 1, 64),
        mig=shared,
        parts=_parts(handle) if shared else (),
        processes=_processes(handle, total or _MOST_BYTES),
    )


def _memory(handle: Any) -> tuple[int | None, int | None, int | None]:
    """Total, used and free bytes."""
    memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
    if memory is None or within(memory.total, 1, _MOST_BYTES) is None:
        return None, None, None
    total = int(memory.total)
    return total, within(memory.used, 0, total), within(memory.free, 0, total)


def _temperature(handle: Any) -> float | None:
    # The first call is being retired in favour of the second, which drivers of before 2025 don't have.
    for call in (pynvml.nvmlDeviceGetTemperature, pynvml.nvmlDeviceGetTemperatureV):
        degrees = ask(call, handle, pynvml.NVML_TEMPERATURE_GPU)
        if degrees is not None:
            return within(float(degrees), 0.0, float(_MOST_CELSIUS))
    return None


def _watts(milliwatts: int | None, least: float) -> float | None:
    return None if milliwatts is None else within(milliwatts / 1000, least, _MOST_WATTS)


def _power_range(handle: Any) -> tuple[float, float] | None:
    limits = ask(pynvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
    least, most = (_watts(limit, least=1.0) for limit in limits) if limits else (None, None)
    return (least, most) if least is not None and most is not None and least <= most else None


def _clock(call: Callable[..., Any], handle: Any, kind: int) -> int | None:
    return within(ask(call, handle, kind), 0, _MOST_MEGAHERTZ)


def _slowed(handle: Any) -> tuple[str, ...]:
    # The second is the name by which drivers of before 2023 know it.
    for call in (pynvml.nvmlDeviceGetCurrentClocksEventReasons, pynvml.nvmlDeviceGetCurrentClocksThrottleReasons):
        reasons = ask(call, handle)
        if reasons is not None:
            # A word with bits that no driver has set in it is no word of reasons.
            return tuple(name for bit, name in _SLOWED.items() if reasons & bit) if reasons < 1 << 32 else ()
    return ()


def _mig(handle: Any) -> bool | None:
    mode = ask(pynvml.nvmlDeviceGetMigMode, handle)
    return {0: False, 1: True}.get(mode[0]) if mode else None


def _parts(handle: Any) -> tuple[GpuPart, ...]:
    found = []
    for place in range(within(ask(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle), 0, _MOST_PARTS) or 0):
        part = ask(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if part:
            total, used, _ = _memory(part)
            found.append(GpuPart(text(ask(pynvml.nvmlDeviceGetName, part)) or f"part {place}", total, used))
    return tuple(found)


def _processes(handle: Any, most_bytes: int) -> tuple[GpuProcess, ...]:
    """Processes that compute and those that draw; one that does both is in both of the driver's lists."""
    memory: dict[int, int | None] = {}
    for call in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in ask(call, handle) or ():
            if memory.get(process.pid) is None:
                memory[process.pid] = within(process.usedGpuMemory, 0, most_bytes)
    return tuple(GpuProcess(pid, _process_name(pid), size) for pid, size in sorted(memory.items()))


def _process_name(pid: int) -> str:
    # The driver is asked, not the system: in a container its pids are the host's, and the system would name a stranger.
    name = text(ask(pynvml.nvmlSystemGetProcessName, pid))
    return (re.split(r"[\\/]", name)[-1] if name else "") or "unknown"


def ask(call: Callable[..., Any], *arguments: Any, fatal: frozenset[int] = CARD_GONE | DRIVER_GONE) -> Any:
    """The driver's answer; None where it has none or the answer makes no sense. Raises NVMLError of the fatal codes."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in fatal:
            raise
        return None
    except NONSENSE:
        return None


def within(value: _Number | None, least: _Number, most: _Number) -> _Number | None:
    """The value, unless it lies outside what is believable."""
    return value if value is not None and least <= value <= most else None


def text(value: str | None) -> str | None:
    """The text, unless it is empty or carries control characters."""
    value = value.strip() if value else None
    return value if value and value.isprintable() else None
