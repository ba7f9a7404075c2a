"""What the System and the Runs tab say of estimates: predicted beside measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from studio.ui.runview import took
from studio.ui.system import MOST_RUNS, learnt
from studio.workspace.hardware import Gpu, Machine, read_machine
from studio.workspace.learning import Learning
from studio.workspace.runs import Runs
from tests.ui.made_runs import ended, make_run, metrics
from tests.workspace.test_learning import CARD, GB, a_run


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    (tmp_path / "runs").mkdir()
    return Runs(tmp_path / "runs")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return replace(read_machine(tmp_path), gpus=())


def test_without_runs_the_published_range_is_told(runs: Runs, machine: Machine, tmp_path: Path) -> None:
    told = learnt(Learning(tmp_path, runs), machine)
    assert (told["runs"], told["count"], told["rates"]) == ([], 0, {})
    assert told["low"] < 0 < told["high"]


def test_the_device_at_hand_is_corrected_and_all_runs_are_listed(runs: Runs, machine: Machine, tmp_path: Path) -> None:
    for number in range(MOST_RUNS):
        a_run(tmp_path, number, outside=GB)
    a_run(tmp_path, 100, device="cpu", outside=GB // 2, predicted=10 * GB)
    learning = Learning(tmp_path, runs)
    on_cpu, on_card = learnt(learning, machine), learnt(learning, replace(machine, gpus=(Gpu(0, CARD),)))
    assert (on_cpu["overhead"], on_card["overhead"]) == (GB // 2, GB)
    assert (on_card["device"], on_card["count"]) == (CARD, MOST_RUNS)
    assert on_cpu["runs"] == on_card["runs"]
    assert len(on_cpu["runs"]) == MOST_RUNS
    latest = on_cpu["runs"][0]
    assert (latest["predicted"], latest["measured"], latest["error"]) == (10 * GB, 10_500_000_000, 0.05)


def test_F62_an_ended_run_shows_what_it_took_beside_what_was_predicted(runs: Runs, tmp_path: Path) -> None:
    run_id = a_run(tmp_path / "made", 1, predicted=10 * GB, outside=GB, mean_watts=200, energy_kwh=0.25)
    folder = make_run(tmp_path / "runs", run_id, metrics(1), ended())
    assert took(runs.get(run_id)) is None
    for name in ("memory.json", "estimate.json"):
        (tmp_path / "made" / "runs" / run_id / name).rename(folder / name)
    told = took(runs.get(run_id))
    assert told == {
        "predicted": 10 * GB,
        "measured": 11 * GB,
        "error": pytest.approx(0.1),
        "kwh": 0.25,
        "watts": 200,
    }


def test_a_live_run_has_not_taken_it_yet(runs: Runs, tmp_path: Path) -> None:
    run_id = a_run(tmp_path / "made", 1)
    folder = make_run(tmp_path / "runs", run_id, metrics(1), alive=True)
    (tmp_path / "made" / "runs" / run_id / "memory.json").rename(folder / "memory.json")
    assert took(runs.get(run_id)) is None
