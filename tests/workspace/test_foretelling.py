"""Forecasts beside a submission: kept with the run, and never in its way."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.job import JobFolder, read_json
from studio.workspace import foretelling
from studio.workspace.foretelling import Foretelling
from tests.fake_worker import until

CONFIG = RunConfig()


def test_a_forecast_in_time_is_published_with_the_run() -> None:
    asked: list[RunConfig] = []

    def predict(config: RunConfig) -> dict[str, Any]:
        asked.append(config)
        return {"device": 5}

    files = Foretelling(predict, CONFIG).files()
    assert {name: json.loads(text) for name, text in files.items()} == {"estimate.json": {"device": 5}}
    assert asked == [CONFIG]


def test_a_slow_forecast_holds_nothing_up_and_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foretelling, "_PATIENCE", 0.01)
    ready = threading.Event()

    def predict(_: RunConfig) -> dict[str, Any]:
        assert ready.wait(60)
        return {"device": 7}

    slow = Foretelling(predict, CONFIG)
    job = JobFolder(tmp_path)
    assert slow.files() == {}
    slow.deliver(job)
    assert not job.estimate.exists()
    ready.set()
    until(job.estimate.exists)
    assert read_json(job.estimate) == {"device": 7}


def test_one_that_comes_between_looking_and_publishing_is_written_too(tmp_path: Path) -> None:
    made = Foretelling(lambda _: {"device": 9}, CONFIG)
    made.files()
    made.deliver(JobFolder(tmp_path))
    assert read_json(tmp_path / "estimate.json") == {"device": 9}


def test_a_forecast_for_a_run_that_is_gone_makes_no_folder(tmp_path: Path) -> None:
    made = Foretelling(lambda _: {"device": 9}, CONFIG)
    made.files()
    made.deliver(JobFolder(tmp_path / "gone"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answer", [None, {}, {1, 2}, ValueError("no such model")])
def test_no_forecast_is_no_file(tmp_path: Path, answer: Any) -> None:
    def predict(_: RunConfig) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    for asked in (predict, None):
        made = Foretelling(asked, CONFIG)
        assert made.files() == {}
        made.deliver(JobFolder(tmp_path))
        assert list(tmp_path.iterdir()) == []
