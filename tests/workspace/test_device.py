"""Which device a run would take, and what is free on it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.workspace.device import chosen_gpu, device_of, generation, power_limit
from studio.workspace.hardware import Gpu, GpuProcess, Machine, read_machine

GIB = 2**30
CARD = Gpu(0, "NVIDIA GeForce RTX 4090", 24 * GIB, 4 * GIB, 20 * GIB, power_limit=450.0)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """This machine, as if it had two cards."""
    second = dataclasses.replace(CARD, index=1, name="NVIDIA A100-SXM4-80GB", memory_total=80 * GIB)
    return dataclasses.replace(read_machine(tmp_path), gpus=(CARD, second))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Tesla T4", "turing"), ("Quadro RTX 8000", "turing"), ("NVIDIA GeForce RTX 2080 Ti", "turing"),
        ("NVIDIA A100-SXM4-80GB", "ampere"), ("NVIDIA A10G", "ampere"), ("NVIDIA RTX A6000", "ampere"),
        ("NVIDIA GeForce RTX 3090", "ampere"), ("NVIDIA L40S", "ada"), ("NVIDIA L4", "ada"),
        ("NVIDIA RTX 6000 Ada Generation", "ada"), ("NVIDIA H100 80GB HBM3", "hopper"),
        ("NVIDIA GH200 480GB", "hopper"),
        ("NVIDIA B200", "blackwell"), ("NVIDIA GeForce RTX 5090", "blackwell"), ("NVIDIA Mystery", "ampere"),
    ],
)  # fmt: skip
def test_a_cards_generation_is_told_by_its_name(name: str, expected: str) -> None:
    assert generation(name) == expected


def test_the_wished_device_is_the_one_that_counts(machine: Machine) -> None:
    first, second, cpu = (device_of(machine, wish) for wish in ("auto", "cuda:1", "cpu"))
    assert (first.kind, first.generation, first.memory, first.free) == ("cuda", "ada", 24 * GIB, 20 * GIB)
    assert (second.generation, second.memory) == ("ampere", 80 * GIB)
    assert (cpu.kind, cpu.free) == ("cpu", machine.ram_available)
    assert chosen_gpu(machine, "cuda:7") is None and power_limit(machine, "cuda:0") == 450.0


def test_another_card_is_of_the_kind_that_is_here(machine: Machine) -> None:
    assert device_of(machine, "cpu", 12 * GIB).generation == "ada"
    bare = dataclasses.replace(machine, gpus=())
    asked = device_of(bare, "auto", 12 * GIB)
    assert (asked.kind, asked.memory, asked.free) == ("cuda", 12 * GIB, 12 * GIB)
    absent = device_of(bare, "cuda")
    assert (absent.kind, absent.memory, absent.free) == ("cuda", None, None)
    assert device_of(bare, "auto").kind == "cpu" and power_limit(bare, "auto") is None


def test_what_idle_workers_hold_makes_room_for_a_run(machine: Machine) -> None:
    code = "import sys, time; time.sleep(60)"
    idle = subprocess.Popen([sys.executable, "-c", code, "studio.worker", "--serve"])
    try:
        held = (GpuProcess(idle.pid, "python", 2 * GIB), GpuProcess(os.getpid(), "other", GIB))
        card = dataclasses.replace(CARD, processes=held)
        assert device_of(dataclasses.replace(machine, gpus=(card,)), "auto").free == 22 * GIB
    finally:
        idle.kill()
        idle.wait()
