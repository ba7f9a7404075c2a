"""What the NVIDIA driver knows of the card that this worker computes on: its memory, energy and watts.

In: a CUDA device of torch's. Out: a Card; each of its figures is None where the driver doesn't give it. A driver that
hangs is waited for once, and not asked again: a run is never held up by being measured. Everything else about cards is
the workspace's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pynvml
import torch

PATIENCE = 2.0  # seconds for an answer

# What the bindings raise, over answers that make no sense too (see workspace/nvml.py).
_FAULTS = (
    pynvml.NVMLError,
    pynvml.NVMLLibraryMismatchError,
    ValueError,
    OverflowError,
    IndexError,
    MemoryError,
    OSError,
)
_MOST_BYTES, _MOST_WATTS = 1 << 50, 5000.0


class Card:
    """One card. `find` gives None where there is no driver, or it knows no such card."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._silent = False

    @classmethod
    def find(cls, device: torch.device) -> Card | None:
        """The driver's card for a CUDA device, whatever CUDA_VISIBLE_DEVICES made of its number."""
        if device.type != "cuda" or torch.version.cuda is None:
            return None
        facts = torch.cuda.get_device_properties(device)
        found = _in_time(lambda: _handle(facts))
        return cls(found[0]) if found and found[0] is not None else None

    def name(self) -> str | None:
        """As the driver calls it."""
        return self._ask(pynvml.nvmlDeviceGetName) or None

    def uuid(self) -> str | None:
        """As the driver spells it."""
        return self._ask(pynvml.nvmlDeviceGetUUID) or None

    def used(self) -> int | None:
        """Bytes in use on the card, by everybody."""
        info = self._ask(pynvml.nvmlDeviceGetMemoryInfo)
        return None if info is None or not 0 <= info.used <= _MOST_BYTES else int(info.used)

    def used_by_me(self) -> int | None:
        """Bytes that this process holds there. In a container the driver's pids are the host's, and ours isn't seen."""
        for process in self._ask(pynvml.nvmlDeviceGetComputeRunningProcesses) or ():
            if process.pid == os.getpid() and process.usedGpuMemory is not None:
                held = int(process.usedGpuMemory)
                return held if held <= _MOST_BYTES else None
        return None

    def joules(self) -> float | None:
        """Energy since the driver was loaded; from Volta on."""
        millijoules = self._ask(pynvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1000

    def watts(self) -> float | None:
        """Draw of the last moment."""
        milliwatts = self._ask(pynvml.nvmlDeviceGetPowerUsage)
        return None if milliwatts is None or milliwatts > _MOST_WATTS * 1000 else milliwatts / 1000

    def _ask(self, call: Callable[[Any], Any]) -> Any:
        if self._silent:
            return None
        answer = _in_time(lambda: call(self._handle))
        self._silent = not answer
        return answer[0] if answer else None


def device_name(device: torch.device, card: Card | None) -> str:
    """What learning calls a device: the driver's name for it, else torch's; "cpu" for the processor."""
    named = card.name() if card else None
    if named is None and device.type in ("cuda", "xpu"):
        named = str(getattr(torch, device.type).get_device_name(device))
    return named or device.type


def in_use() -> dict[str, int]:
    """Bytes in use on each card, by its UUID, asked without torch: that may take memory there itself."""
    answer = _in_time(_each_in_use)
    return (answer[0] if answer else None) or {}


def _each_in_use() -> dict[str, int]:
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(min(64, pynvml.nvmlDeviceGetCount()))]
    return {pynvml.nvmlDeviceGetUUID(each): int(pynvml.nvmlDeviceGetMemoryInfo(each).used) for each in handles}


def _in_time(call: Callable[[], Any]) -> list[Any]:
    """What a call to the driver gives, None for a fault; an empty list if it took longer than PATIENCE."""
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(_answer(call)), name="nvidia-driver", daemon=True)
    asking.start()
    asking.join(PATIENCE)
    return answers[:1]


def _answer(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except _FAULTS:
        return None


def _handle(facts: Any) -> Any:
    """`facts`: what torch says of the device. torch gives a UUID without what it names: a card or a part of one."""
    pynvml.nvmlInit()
    uuid = str(getattr(facts, "uuid", "") or "")
    for name in (f"GPU-{uuid}", f"MIG-{uuid}", uuid) if uuid else ():
        found = _by_uuid(name)
        if found is not None:
            return found
    address = f"{facts.pci_domain_id:08x}:{facts.pci_bus_id:02x}:{facts.pci_device_id:02x}.0"
    return pynvml.nvmlDeviceGetHandleByPciBusId(address.encode())


def _by_uuid(name: str) -> Any:
    return _answer(lambda: pynvml.nvmlDeviceGetHandleByUUID(name.encode()))
