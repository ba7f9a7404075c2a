"""The calibration, with a toy of a layer; and the standby that has it done in its spare time and drops it for work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from studio.core.config import RunConfig
from studio.worker import calibrate as module
from studio.worker import spare
from studio.worker.calibrate import Layer, Size, build, calibrate, configs, wanted
from studio.worker.device import resolve
from studio.worker.spare import SpareTime
from tests.fake_worker import until

TOY = Size(hidden=64, inner=128, heads=4, tokens=32)


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


# -- what is measured -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 8])
def test_operations_are_counted_as_torch_counts_them(rank: int) -> None:
    layer = Layer(TOY, rank)
    states = torch.randn(1, TOY.tokens, TOY.hidden, requires_grad=True)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        layer(states).sum().backward()
    # Attention by plain products computes both halves of the square and keeps the scores: 3 times 2 products. Kernels
    # compute one half and the scores twice: 3.5 times.
    square = 4 * TOY.tokens**2 * TOY.hidden
    assert counter.get_total_flops() - 3 * square == pytest.approx(layer.flops() - 3.5 * square / 2)


def test_a_frozen_base_stays_frozen_and_its_adapters_learn() -> None:
    lora, qlora, full = (build(config, resolve(config), TOY) for config in configs())
    assert {name.split(".")[0] for name, p in lora.named_parameters() if p.requires_grad} == {"beside"}
    assert {name.split(".")[0] for name, p in qlora.named_parameters() if p.requires_grad} == {"beside"}
    assert all(p.requires_grad for p in full.parameters())
    assert lora.flops() == qlora.flops()


def test_every_kind_gets_a_rate_under_the_name_that_runs_have() -> None:
    answer = calibrate(0.0, TOY)
    assert set(answer["rates"]) == {"cpu/auto/lora", "cpu/auto/qlora", "cpu/auto/full"}
    assert all(rate > 0 for rate in answer["rates"].values())
    assert (answer["device_name"], answer["cards"]) == ("cpu", [])


def test_a_kind_that_cant_be_measured_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.rate

    def rate(config: RunConfig, size: Size, seconds: float) -> float:
        if config.model.quantization != "none":
            raise RuntimeError("no such kernel")
        return real(config, size, seconds)

    monkeypatch.setattr(module, "rate", rate)
    assert set(calibrate(0.0, TOY)["rates"]) == {"cpu/auto/lora", "cpu/auto/full"}


def test_a_card_without_room_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_room", lambda device: False)
    answer = calibrate(0.0, TOY)
    assert answer["rates"] == {}


def test_cards_of_other_makers_are_named_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu", 0))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.xpu, "get_device_name", lambda device: f"Arc {device.index}")
    facts = SimpleNamespace(total_memory=16 << 30)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: facts)
    assert module.cards() == [{"name": f"Arc {n}", "memory_total": 16 << 30} for n in range(2)]
    monkeypatch.setattr(torch.version, "cuda", "13.0")  # NVIDIA's are its driver's to tell of
    assert module.cards() == []


# -- when -------------------------------------------------------------------------------------------------------------


def test_a_machine_is_calibrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_end_with_stdin", lambda: None)
    monkeypatch.setattr(module.psutil, "Process", lambda: SimpleNamespace(nice=lambda value: None))
    answer = tmp_path / "calibration.json"
    assert wanted(answer)
    assert module.main(answer, 0.0, TOY) == 0
    assert not wanted(answer)
    monkeypatch.setattr(module, "calibrate", lambda *_: pytest.fail("measured twice"))
    assert module.main(answer, 0.0, TOY) == 0
    monkeypatch.setattr(module, "in_use", lambda: {"GPU-1": 0})  # another card was put in
    assert wanted(answer)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"schema": 1}', '{"schema": 0, "machine": []}'])
def test_a_damaged_answer_is_measured_anew(tmp_path: Path, damage: str) -> None:
    (tmp_path / "calibration.json").write_text(damage, encoding="utf-8")
    assert wanted(tmp_path / "calibration.json")


Spend = Callable[..., tuple[SpareTime, list[Path]]]


@pytest.fixture
def spend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spend:
    """Spare time of milliseconds in which a process is begun that waits for ever; and what was asked about."""

    def start(wanted: bool = True, quiet: Callable[[], bool] = lambda: True) -> tuple[SpareTime, list[Path]]:
        asked: list[Path] = []

        def ask(path: Path) -> bool:
            asked.append(path)
            return wanted

        def popen(_: list[str], **options: Any) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], **options)

        monkeypatch.setattr(spare, "subprocess", SimpleNamespace(**{**vars(subprocess), "Popen": popen}))
        made = SpareTime(tmp_path / "calibration.json", ask, quiet, idle=0.01)
        made.begin()
        return made, asked

    return start


def test_work_ends_it_at_once(spend: Spend) -> None:
    time, _ = spend()
    child = until(lambda: time._child)
    assert child.poll() is None
    time.end()
    assert child.returncode is not None
    assert child.stdin.closed


def test_work_that_comes_first_lets_nothing_begin(spend: Spend) -> None:
    looked = threading.Event()
    may = threading.Event()

    def quiet() -> bool:
        looked.set()
        return may.wait(60)

    time, _ = spend(quiet=quiet)
    assert looked.wait(60)
    time.end()
    may.set()
    time._thread.join(60)
    assert time._child is None


def test_a_busy_machine_is_looked_at_again_later(spend: Spend) -> None:
    looks = iter([False, False, True])
    time, asked = spend(quiet=lambda: next(looks))
    until(lambda: time._child)
    assert len(asked) == 3
    time.end()


def test_where_it_isnt_wanted_nothing_is_begun(spend: Spend) -> None:
    time, asked = spend(wanted=False)
    time._thread.join(60)
    assert (time._child, len(asked)) == (None, 1)
    time.end()


def test_it_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    """A real calibration, whose stdin ends while it imports or measures: there is no answer, and no process."""
    answer = tmp_path / "calibration.json"
    command = [sys.executable, "-m", "studio.worker", "--calibrate", str(answer)]
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, timeout=120, check=False)
    assert done.returncode == 1
    assert not answer.exists()


def test_a_standbys_place_for_the_answer_is_the_studios_folder(studio_home: Path) -> None:
    assert spare.answer_place() == studio_home / "calibration.json"
