"""The device that a run would train on, as estimates see it.

In: a Machine, `hardware.device`. Out: a Device, with what is free on it: the card's own figure and what workers of the
studio hold there, which is free again when the run starts. Knows no torch: a card is usable when its driver speaks.
"""

from __future__ import annotations

import re

import psutil

from studio.core.estimate import Device
from studio.workspace.hardware import Gpu, Machine

# By what cards are called; the first that fits. Compute capabilities 7.0 and 7.5, 8.0 and 8.6, 8.9, 9.0, from 10.0 on.
_GENERATIONS = (
    ("blackwell", r"\bG?B[123]00\b|RTX (PRO|50\d\d)|Blackwell|\bGB10\b"),
    ("hopper", r"\bG?H[12]00\b|\bH20\b|\bH800\b"),
    ("ada", r"RTX 40\d\d|\bL4\b|\bL40S?\b|\bL20\b|Ada"),
    ("ampere", r"\bA\d{1,3}G?\b|RTX 30\d\d|RTX A\d+"),
    ("turing", r"\bT4\b|RTX 20\d\d|GTX 16\d\d|TITAN (RTX|V)|Quadro RTX|\bV100\b|GTX 10\d\d|\bP\d+\b"),
)


def generation(name: str) -> str:
    """turing, ampere, ada, hopper or blackwell; a card of another name is taken to be the usual one, ampere."""
    return next((found for found, pattern in _GENERATIONS if re.search(pattern, name)), "ampere")


def chosen_gpu(machine: Machine, wish: str) -> Gpu | None:
    """The card that `hardware.device` means; None where it means the processor, or a card that isn't here."""
    kind, _, number = wish.partition(":")
    if kind not in ("auto", "cuda"):
        return None
    return next((gpu for gpu in machine.gpus if gpu.index == int(number or 0)), None)


def device_of(machine: Machine, wish: str, memory: int | None = None) -> Device:
    """`memory`: bytes free on a card of the kind that is here, instead of what is."""
    gpu = chosen_gpu(machine, "auto" if memory is not None else wish)
    if memory is not None:
        return Device("cuda", generation(gpu.name) if gpu else "ampere", memory, memory)
    if gpu is not None:
        free = None if gpu.memory_free is None else gpu.memory_free + _idle(gpu)
        if free is not None and gpu.memory_total is not None:
            free = min(free, gpu.memory_total)
        return Device("cuda", generation(gpu.name), gpu.memory_total, free)
    if wish.startswith(("cuda", "xpu", "mps")):
        return Device("cuda" if wish.startswith("cuda") else "cpu")  # of a card that isn't here nothing is known
    return Device("cpu", memory=machine.ram_total, free=machine.ram_available)


def power_limit(machine: Machine, wish: str) -> float | None:
    """Watts that the chosen card may draw; None where nobody says."""
    gpu = chosen_gpu(machine, wish)
    return gpu.power_limit if gpu else None


def _idle(gpu: Gpu) -> int:
    """What the studio's own workers hold on the card: those that talk or wait make room, and a run's goes before the
    next one starts."""
    return sum(process.memory_bytes or 0 for process in gpu.processes if _own(process.pid))


def _own(pid: int) -> bool:
    try:
        words = psutil.Process(pid).cmdline()
    except (psutil.Error, OSError, ValueError):
        return False
    return "studio.worker" in words
