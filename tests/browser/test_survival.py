"""The window may die; the run may not."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Page, expect

from studio.core.job import read_json
from tests.browser.conftest import Window
from tests.browser.test_journey import pick_tiny_model, start, steps_shown, wait_for_step

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]


def logged_steps(run: Path) -> list[int]:
    """The steps whose loss stands in the run's events, in their order."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["step"] for event in events if event["event"] == "metrics" and "loss" in event["values"]]


def test_F06_a_killed_window_finds_its_run_again_and_no_metric_is_lost_or_doubled(page: Page, window: Window) -> None:
    pick_tiny_model(page, epochs=40)
    run_id = start(page)
    run = window.home / "runs" / run_id
    wait_for_step(page, 1)
    worker = read_json(run / "process.json")
    assert worker is not None

    window.kill()
    before = len(logged_steps(run))
    assert psutil.pid_exists(worker["pid"]), "the worker died with the window"
    deadline = time.monotonic() + 60
    while len(logged_steps(run)) <= before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(logged_steps(run)) > before, "the run stood still without its window"

    window.start()
    page.goto(f"{window.url}?tab=runs&run={run_id}")
    wait_for_step(page, 1)
    assert steps_shown(page) >= before
    now = read_json(run / "process.json")
    assert now == worker, "another worker took the run over"
    expect(page.locator('.run .st-pill[data-status="finished"]')).to_be_visible(timeout=240_000)

    steps = logged_steps(run)
    assert steps == list(range(1, 38 * 40 + 1))
    shown = page.evaluate(f"fetch('/api/live?run={run_id}&offset=0').then(answer => answer.json())")
    points = Counter(shown["run"]["series"]["loss"]["steps"])
    assert set(points.values()) == {1}
    assert max(points) == 38 * 40
    assert steps_shown(page) == 38 * 40
