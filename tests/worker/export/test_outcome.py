"""What a card says of the training: each figure once, beside what was predicted, and nothing that isn't a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.core.events import Ended, Metrics
from studio.core.job import JobFolder
from studio.core.progress import Progress
from studio.worker.export.outcome import outcome


def told(
    folder: Path, result: dict[str, Any], memory: dict[str, Any] | None = None, estimate: dict[str, Any] | None = None
) -> str:
    run, progress = JobFolder(folder), Progress()
    for path, figures in ((run.memory, memory), (run.estimate, estimate)):
        if figures is not None:
            path.write_text(json.dumps(figures), encoding="utf-8")
    events = [Metrics(step, 9, 1.0, 1.0, {"loss": loss}) for step, loss in ((1, 2.5), (9, 0.5))]
    for event in (*events, Ended("finished", result=result)):
        progress.fold(event)
    return outcome(run, progress, False)


RESULT = {"seconds": 1234.4, "tokens": 56789, "peak_rss": 3_000_000_000, "energy_kwh": 0.01234}


def test_time_memory_and_energy_stand_there(tmp_path: Path) -> None:
    text = told(tmp_path, RESULT)
    for line in (
        "- training loss: 2.500 at step 1, 0.500 at the end",
        "- time: 1,234 s",
        "- tokens: 56,789",
        "- peak of memory: 3.00 GB",
        "- energy: 0.0123 kWh",
    ):
        assert line in text.splitlines()
    assert "predicted" not in text


def test_what_was_predicted_stands_beside_what_was_measured(tmp_path: Path) -> None:
    card = {
        "device_kind": "cuda",
        "device_name": "NVIDIA Something",
        "peak": {"allocated": 9e9, "reserved": 10e9, "device": 10.5e9, "rss": 4e9},
    }
    text = told(tmp_path, RESULT, card, {"device": 10_200_000_000, "seconds": 1100.0, "kwh": 0.02})
    for line in (
        "- time: 1,234 s (predicted: 1,100 s)",
        "- peak of graphics memory (NVIDIA Something): 10.50 GB (predicted: 10.20 GB)",
        "- peak of memory: 4.00 GB",
        "- energy: 0.0123 kWh (predicted: 0.02 kWh)",
    ):
        assert line in text.splitlines()


def test_on_a_processor_its_own_memory_is_what_was_predicted(tmp_path: Path) -> None:
    measured = {"device_kind": "cpu", "device_name": "cpu", "peak": {"device": None, "rss": 2e9}}
    text = told(tmp_path, RESULT, measured, {"device": 2_500_000_000})
    assert "- peak of memory: 2.00 GB (predicted: 2.50 GB)" in text.splitlines()
    assert "graphics" not in text


@pytest.mark.parametrize("damaged", [{"peak": [], "device_kind": 3}, {"peak": {"device": "x", "rss": None}}, {}])
def test_damaged_figures_are_left_out(tmp_path: Path, damaged: dict[str, Any]) -> None:
    text = told(tmp_path, {"seconds": None, "energy_kwh": float("nan"), "tokens": True}, damaged, {"device": "much"})
    assert text.splitlines()[-1].startswith("- training loss")


def test_a_run_from_before_these_figures_has_a_card_too(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text("{", encoding="utf-8")
    assert "peak" not in told(tmp_path, {})
