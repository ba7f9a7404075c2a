"""Energy: counters with known contents."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.worker import energy
from studio.worker.energy import Meter, Processor


class Tank:
    """A counter that gives what the test says, and notes how often it was asked."""

    def __init__(self, joules: Iterator[float] | None, watts: float | None) -> None:
        self._joules, self._watts = joules, watts
        self.asked = 0

    def joules(self) -> float | None:
        return next(self._joules) if self._joules else None

    def watts(self) -> float | None:
        self.asked += 1
        return self._watts


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "EVERY", 0.01)


def seen(tank: Tank, looks: int = 5) -> energy.Drawn | None:
    meter = Meter(tank)
    meter.start()
    deadline = time.monotonic() + 30
    while tank.asked < looks and time.monotonic() < deadline:
        time.sleep(0.005)
    return meter.stop()


def test_energy_is_the_difference_of_the_counter() -> None:
    count = iter(range(7_200_000, 10**9, 3_600_000))
    tank = Tank(map(float, count), 200.0)
    drawn = seen(tank)
    assert drawn is not None
    assert drawn.kwh == pytest.approx(tank.asked - 1)  # a kilowatt-hour between two looks
    assert drawn.most == 200.0


def test_without_a_counter_it_is_the_draw_times_the_time() -> None:
    began = time.monotonic()
    drawn = seen(Tank(None, 360.0))
    seconds = time.monotonic() - began
    assert drawn is not None
    assert drawn.mean == pytest.approx(360.0)
    assert 0 < drawn.kwh <= 360.0 * seconds / 3.6e6 * 1.001


def test_where_nothing_is_told_nothing_is_said() -> None:
    assert seen(Tank(None, None)) is None
    assert seen(Tank(iter([5.0] * 1000), None)) is None  # a counter that stands still


def package(root: Path, name: str, microjoules: int, whole: int = 1_000_000) -> Path:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n", encoding="utf-8")
    (folder / "max_energy_range_uj").write_text(f"{whole}\n", encoding="utf-8")
    return folder / "energy_uj"


def test_a_processors_packages_are_summed_over_their_overflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ROOT", tmp_path)
    one = package(tmp_path, "intel-rapl:0", 900_000)
    two = package(tmp_path, "intel-rapl:1", 100_000)
    package(tmp_path, "intel-rapl:0:0", 5)  # the cores alone: the package has them
    processor = Processor.find()
    assert processor is not None
    assert processor.joules() == 0
    one.write_text("100000\n", encoding="utf-8")  # past its end: 100,000 to there, and as much again
    two.write_text("400000\n", encoding="utf-8")
    assert processor.joules() == pytest.approx(0.5)
    two.unlink()
    assert processor.joules() == pytest.approx(0.5)


def test_counters_that_cant_be_read_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "ROOT", tmp_path)
    assert Processor.find() is None
    package(tmp_path, "intel-rapl:0", 1).write_text("secret", encoding="utf-8")
    assert Processor.find() is None
