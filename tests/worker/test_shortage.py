"""What is advised to a run that ran out of memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.core.config import RunConfig
from studio.core.job import JobFolder
from studio.core.memory.advice import Advice, advise
from studio.worker.shortage import remedies

GIB = 1 << 30


def advised(folder: Path, *advice: Advice, **more: int) -> str:
    forecast = {"advice": [one.to_dict() for one in advice], **more}
    (folder / "estimate.json").write_text(json.dumps(forecast), encoding="utf-8")
    return remedies(JobFolder(folder), None)


def test_F17_the_forecasts_changes_are_named_with_what_they_save(tmp_path: Path) -> None:
    halved = {"training.per_device_train_batch_size": 2, "training.gradient_accumulation_steps": 8}
    said = advised(
        tmp_path,
        Advice({"training.gradient_checkpointing": True}, 3 * GIB, "about 30 % slower"),
        Advice(halved, GIB // 2, "same result"),
        Advice({"adapter": {"type": "lora", "r": 16}}, 7 * GIB, "an adapter is trained"),
        Advice({"training.max_length": 512}, GIB, "rows are cut"),
        device=12 * GIB,
        free=8 * GIB,
    )
    assert "estimated at 12.0 GB, with 8.0 GB free" in said
    assert "training.gradient_checkpointing = true (saves 3.0 GB; about 30 % slower)" in said
    assert (
        "training.per_device_train_batch_size = 2 with training.gradient_accumulation_steps = 8 (saves 0.5 GB" in said
    )
    assert "adapter = lora (saves 7.0 GB" in said
    assert "max_length" not in said  # three are enough
    assert said.endswith("The last checkpoint is kept.")


def test_every_change_that_is_ever_advised_has_words(tmp_path: Path) -> None:
    sizes = iter(range(10**12, 0, -GIB))
    config = RunConfig.model_validate({"training": {"gradient_checkpointing": False}, "model": {"dtype": "float32"}})
    every = advise(config, lambda _: next(sizes))
    assert len(every) >= 5
    for one in every:
        said = advised(tmp_path, one)
        assert all(knob in said for knob in one.change)
        assert one.cost in said


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"advice": 5}', '{"advice": [1, {}, {"change": []}, {"change": {}, "saves": 5}]}']
)
def test_without_a_forecast_nothing_is_made_up(tmp_path: Path, text: str) -> None:
    (tmp_path / "estimate.json").write_text(text, encoding="utf-8")
    assert remedies(JobFolder(tmp_path), None) == ""
    (tmp_path / "estimate.json").unlink()
    assert remedies(JobFolder(tmp_path), None) == ""


def test_F17_without_a_forecasts_advice_it_is_worked_out_anew(tmp_path: Path, tiny_model: Path) -> None:
    config = {"training": {"per_device_train_batch_size": 8, "gradient_checkpointing": False}}
    job = JobFolder(tmp_path)
    job.run_config.write_text(json.dumps(config), encoding="utf-8")
    job.estimate.write_text(json.dumps({"device": 12 * GIB, "free": 8 * GIB}), encoding="utf-8")
    said = remedies(job, tiny_model)
    assert "estimated at 12.0 GB" in said
    assert "training.gradient_checkpointing = true (saves" in said
    assert "training.per_device_train_batch_size = 4 with training.gradient_accumulation_steps" in said
    assert remedies(job, tmp_path / "gone") == ""
