"""What a run leaves of its data: the report, the parts, and no encoded rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.core.events import Note
from studio.core.inputs import DatasetInput, Inputs
from studio.core.job import EventTail, JobFolder, read_json
from studio.worker.data.split import read_split
from tests.tiny import tiny_rows, write_rows

MakeRun = Callable[..., JobFolder]
InProcess = Callable[[JobFolder], int]


def warnings(job: JobFolder) -> list[str]:
    return [e.text for e in EventTail(job.events).read() if isinstance(e, Note) and e.level == "warning"]


def test_a_run_keeps_what_became_of_its_rows(make_run: MakeRun, in_process: InProcess) -> None:
    rows: list[Any] = tiny_rows(30)
    rows[4], rows[9] = {"messages": []}, rows[2]
    knobs = {"exclude": ["duplicate"], "exclude_rows": [0], "validation_split": 5, "test_split": 0.1}
    job = make_run(rows, dataset=knobs, training={"max_steps": 1})
    assert in_process(job) == 0
    parts = read_split(job.path)
    assert parts is not None
    assert sorted(row for part in parts.values() for row in part.tolist()) == [
        n for n in range(30) if n not in (0, 4, 9)
    ]
    data = read_json(job.path / "data.json") or {}
    assert (data["rows"], data["usable"], data["excluded_rows"]) == (30, 29, 2)
    assert (
        (data["train"], data["validation"], data["test"]) == tuple(len(part) for part in parts.values()) == (19, 5, 3)
    )
    assert not (job.path / "rows").exists()
    told = warnings(job)
    assert any("line 5" in text for text in told)
    assert any("line 10" in text and "exclude" in text for text in told)
    assert any("line 1)" in text and "exclude_rows" in text for text in told)


def test_a_run_validates_on_a_dataset_of_its_own(make_run: MakeRun, in_process: InProcess, tmp_path: Path) -> None:
    held = write_rows(tmp_path / "held.jsonl", tiny_rows(6, seed=8))
    job = make_run(tiny_rows(12), dataset={"validation_path": str(held)}, training={"max_steps": 2, "eval_steps": 1})
    inputs = Inputs.read(job.inputs)
    job.inputs.write_text(replace(inputs, validation=DatasetInput("held", str(held))).to_json(), encoding="utf-8")
    assert in_process(job) == 0
    data = read_json(job.path / "data.json") or {}
    assert (data["train"], data["validation"]) == (12, 6)
    losses = [json.loads(line) for line in job.events.read_text(encoding="utf-8").splitlines() if "eval_loss" in line]
    assert len(losses) >= 2


def test_F37_a_dataset_that_changes_during_a_run_is_told(
    make_run: MakeRun, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    from studio.worker import train

    job = make_run(tiny_rows(12), training={"max_steps": 2})
    path = Path(Inputs.read(job.inputs).dataset.path)
    describe = train._describe

    def and_change(*given: Any) -> None:
        describe(*given)
        write_rows(path, tiny_rows(13))

    monkeypatch.setattr(train, "_describe", and_change)
    assert in_process(job) == 0
    assert [text for text in warnings(job) if "changed during the run" in text]
