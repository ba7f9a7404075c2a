"""What this machine has and how busy it is: cards, processor, memory, disk, and the versions of what trains.

In: a path whose disk counts. Out: a Machine, at most SNAPSHOT_SECONDS old, None for whatever the system doesn't say.
Nothing here raises or waits long, whatever state the machine is in. Memory is what this process may use: a control
group's limit (container, batch job) counts where it is lower than the RAM. It knows nothing of runs, and never imports
torch: which device and which number format a run takes is the worker's affair.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from studio.core.errors import StudioError
from studio.core.job import read_json
from studio.workspace.card import Gpu, GpuPart, GpuProcess, text
from studio.workspace.home import home
from studio.workspace.memory import ram
from studio.workspace.nvml import DriverReading, DriverWatch
from studio.workspace.systemfiles import lines

__all__ = ["Gpu", "GpuPart", "GpuProcess", "Machine", "read_machine", "torch_build_problem", "versions"]

SNAPSHOT_SECONDS = 0.8
ROOT = Path("/")  # where /proc and /sys begin; tests put a tree of their own here

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "gradio",
    "nvidia-ml-py",
)
_MAKERS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel"}  # PCI vendor ids
# What psutil and the system raise where a container or a sandbox hides the figures.
_UNTOLD = (psutil.Error, OSError, RuntimeError, ValueError, LookupError)
_BY_TORCH = "torch names this card and its memory; how busy, warm and full it is isn't read here."
_CARD_CLASSES = ("0x03", "0x12")  # PCI: display controllers, processing accelerators


@dataclass(frozen=True)
class Machine:
    """One look at the machine; memory and disk in bytes, loads in percent."""

    gpus: tuple[Gpu, ...]
    gpu_note: str | None  # why there are no cards, or no fresh figures
    driver: str | None
    cuda: str | None
    cpu_name: str
    cpu_count: int  # logical processors that this process may use
    cpu_load: float | None  # of the whole machine, since the look before
    ram_total: int | None
    ram_used: int | None
    ram_available: int | None
    disk_total: int | None
    disk_free: int | None
    os: str


def read_machine(disk_path: Path) -> Machine:
    """The machine, with the disk that `disk_path` is or would be on; the same answer to all within SNAPSHOT_SECONDS."""
    return _watch.read(disk_path)


def versions() -> dict[str, str]:
    """Python's version and those of the packages that training rests on; "missing" for what isn't installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package) or "unknown"
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def torch_build_problem(deadline: float | None = None) -> str | None:
    """What to do when there is an NVIDIA card and a torch that can't use it; None when all is well or torch is missing.

    `deadline`: seconds that the driver may take (the first answer after a boot can take a few); 1 without one.
    """
    build = _torch_build()
    if build is None or build.cuda or not _watch.driver.read(deadline).gpus:
        return None
    return (
        "This torch was built without CUDA, so the NVIDIA card stays unused. Install the CUDA build: open "
        f"pytorch.org/get-started, choose your system, and run its command with {sys.executable} -m pip."
    )


class _MachineWatch:
    """Looks at the machine once for all who ask at about the same time."""

    def __init__(self) -> None:
        self.driver = DriverWatch()
        self._processor = _Processor()
        self._lock = threading.Lock()
        self._seen: tuple[float, Path, Machine] | None = None  # monotonic seconds

    def read(self, disk_path: Path) -> Machine:
        with self._lock:
            if self._seen is not None and self._seen[1] == disk_path:
                taken, _, machine = self._seen
                if time.monotonic() - taken < SNAPSHOT_SECONDS:
                    return machine
            machine = self._look(disk_path)
            self._seen = (time.monotonic(), disk_path, machine)
            return machine

    def _look(self, disk_path: Path) -> Machine:
        reading = self.driver.read()
        gpus = reading.gpus or _cards_by_torch()
        ram_total, ram_used, ram_available = ram(ROOT)
        disk_total, disk_free = _disk(disk_path)
        return Machine(
            gpus=gpus,
            gpu_note=_BY_TORCH if gpus and not reading.gpus else _gpu_note(reading),
            driver=reading.driver,
            cuda=reading.cuda,
            cpu_name=_cpu_name(ROOT),
            cpu_count=_cpu_count(),
            cpu_load=self._processor.load(),
            ram_total=ram_total,
            ram_used=ram_used,
            ram_available=ram_available,
            disk_total=disk_total,
            disk_free=disk_free,
            os=_os_name(),
        )


class _Processor:
    """The processor's load between two looks; psutil's own counts for each thread apart, which a server can't use."""

    def __init__(self) -> None:
        self._before = self._seconds()
        self._load: float | None = None

    def load(self) -> float | None:
        now = self._seconds()
        if now is None or self._before is None:
            self._before = now
            return None
        busy, passed = now[0] - self._before[0], now[1] - self._before[1]
        if passed > 0:
            self._load = min(100.0, max(0.0, 100 * busy / passed))
            self._before = now
        return self._load

    @staticmethod
    def _seconds() -> tuple[float, float] | None:
        """Seconds spent working, and in all, of all processors since the start of the system."""
        try:
            times = psutil.cpu_times()
        except _UNTOLD:
            return None
        # Linux counts a guest system's time twice: as the guest's and as the user's.
        passed = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return passed - times.idle - getattr(times, "iowait", 0.0), passed


def _cpu_count() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    with contextlib.suppress(OSError):
        if affinity is not None:
            return len(affinity(0))
    return os.cpu_count() or 1


@functools.cache
def _cpu_name(root: Path) -> str:
    for line in lines(root / "proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"


@functools.cache
def _os_name() -> str:
    kernel = f"{platform.system()} {platform.release()}".strip()
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if platform.system() == "Linux":
        try:
            return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {kernel}"
        except (OSError, ValueError, KeyError):
            return kernel
    return kernel or "unknown"


def _disk(path: Path) -> tuple[int | None, int | None]:
    """Total and free bytes of the disk under `path`, or under its nearest folder that exists."""
    with contextlib.suppress(OSError):  # a relative path in a working folder that was deleted
        path = path.absolute()
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError, ValueError):
            usage = shutil.disk_usage(folder)
            return usage.total, usage.free
    return None, None


def _gpu_note(reading: DriverReading) -> str | None:
    """The driver's note; without one and without a card, why there is none."""
    if reading.note is not None or reading.gpus:
        return reading.note
    build = _torch_build()
    makers = _card_makers(ROOT)
    if "NVIDIA" in makers:
        return (
            "This computer has an NVIDIA card, but its driver isn't loaded; training runs on the processor. "
            "Install NVIDIA's driver; in a container, start it with the card passed in."
        )
    usable = {"Apple"} & makers
    if build is not None:
        usable |= ({"AMD"} if build.hip else set()) | ({"Intel"} if build.xpu else set())
    note = "No NVIDIA GPU found." if usable else "No NVIDIA GPU found; training runs on the processor."
    others = sorted(usable | makers)
    return f"{note} Figures of {' and '.join(others)} GPUs aren't read here." if others else note


def _cards_by_torch() -> tuple[Gpu, ...]:
    """Cards of other makers, as torch named them when a worker calibrated this machine (worker/calibrate.py)."""
    try:
        known = (read_json(home() / "calibration.json") or {}).get("cards")
    except StudioError:
        return ()
    cards = [card for card in known if isinstance(card, dict)] if isinstance(known, list) else []
    sizes = [card.get("memory_total") for card in cards]
    return tuple(
        Gpu(index, text(str(card.get("name") or "")) or "unknown", size if isinstance(size, int) and size > 0 else None)
        for index, (card, size) in enumerate(zip(cards, sizes, strict=True))
    )


def _card_makers(root: Path) -> set[str]:
    """Who made the graphics cards and accelerators: known from the system on Linux and on Apple's own processors."""
    if platform.system() == "Darwin":
        return {"Apple"} if platform.machine() == "arm64" else set()
    makers = set()
    for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
        maker = _MAKERS.get("".join(lines(vendor)))
        if maker and "".join(lines(vendor.with_name("class"))).startswith(_CARD_CLASSES):
            makers.add(maker)
    return makers


class _TorchBuild(NamedTuple):
    """What the installed torch was built for: versions of CUDA, ROCm and XPU."""

    cuda: str | None
    hip: str | None
    xpu: str | None


def _torch_build() -> _TorchBuild | None:
    """Read from torch's own note of its build, without importing it; None when torch is missing or says nothing."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    folders = spec.submodule_search_locations or []
    text = "\n".join(line for folder in folders for line in lines(Path(folder) / "version.py"))
    facts: dict[str, str | None] = {}
    try:
        for node in ast.parse(text).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                facts[target.id] = value.value if isinstance(value.value, str) else None
    except (SyntaxError, ValueError):
        facts = {}
    if "cuda" not in facts:
        # A build for processors carries that in its version, as in 2.13.0+cpu.
        local = versions()["torch"].partition("+")[2]
        return _TorchBuild(None, None, None) if local == "cpu" else None
    return _TorchBuild(facts["cuda"], facts.get("hip"), facts.get("xpu"))


_watch = _MachineWatch()
