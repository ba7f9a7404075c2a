"""A search for better settings in a real browser, from the fold on Train to the best trial's settings in the form; and
what the learning-rate finder shows. Workers are stand-ins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from studio.core.configfile import config_to_yaml, parse_config
from studio.core.events import Ended
from studio.ui.context import Studio
from studio.workspace import sweeps
from studio.workspace.chat import Chat
from studio.workspace.home import runs_dir
from studio.workspace.supervisor import Supervisor
from studio.workspace.sweeps import Sweeps
from tests.browser import test_forms
from tests.browser.test_forms import HOSTILE, says, served
from tests.fake_worker import FakeWorkers
from tests.ui.made_runs import STARTED, make_run, metrics

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

page = test_forms.page  # a fixture
RATE = "training.learning_rate"


@pytest.fixture
def address(workers: FakeWorkers, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A whole studio whose trials are best at a learning rate of 1e-3."""
    monkeypatch.setattr(sweeps, "_POLL", 0.05)
    workers.script = "sign start judge:1 judge:2 judge:4 adapter end:finished"
    supervisor = Supervisor()
    searches = Sweeps(supervisor)
    with served(Studio(supervisor, Chat(supervisor.launcher, supervisor.runs), sweeps=searches)) as address:
        yield address
    searches.close()
    supervisor.close()


def test_F54_a_search_from_the_form_to_the_best_trials_settings(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_text("Search for better settings").click()
    page.wait_for_selector(".sweep-row >> nth=1")
    high = page.locator(".sweep-row").first.get_by_label("Highest")
    high.fill("2")
    says(page, ".sweep-row .st-error", "less than or equal to 1")
    high.fill("1e-1")
    page.wait_for_selector(".sweep-row .st-error", state="hidden")
    page.locator("#sweep-trials").fill("3")
    page.locator("#sweep-name").fill(HOSTILE)
    page.get_by_role("button", name="Start search").click()
    says(page, ".sweep .st-pill", "Finished")
    assert page.locator(".sweep-table tbody tr").count() == page.locator(".sweep-frame g.trial").count() == 3
    says(page, ".sweep h2", "<img src=x")
    says(page, ".runs-items", "Trial 3 of 3")
    page.locator(".sweep-table tbody tr").nth(1).hover()
    assert page.locator("g.trial.lit").count() == 1
    page.get_by_role("button", name="Sort by Evaluation loss").press("Enter")
    figures = [float(cell) for cell in page.locator(".sweep-table tbody td:nth-child(4)").all_inner_texts()]
    assert figures == sorted(figures)
    assert "best" in page.locator(".sweep-table tbody tr").first.inner_text()
    best = page.locator(".sweep-table tbody tr").first.locator("td").first.get_attribute("title")
    page.get_by_role("button", name="Use the best").click()
    page.wait_for_function(f"(best) => Number(window.studioForm['{RATE}']) === Number(best)", arg=best)


def test_the_finder_draws_loss_over_rate_and_its_rate_goes_into_the_form(page: Any, address: str) -> None:
    points = [metrics(step, loss=3 - step / 10, learning_rate=10.0 ** (step / 2 - 7)) for step in range(1, 10)]
    end = Ended("finished", "", "", {"suggested": 3e-4}, t=STARTED + 300)
    folder = make_run(runs_dir(), "20261122-1200-rate", *points, end, label="Learning rate")
    config = parse_config({"training": {"find_learning_rate": True, "learning_rate": 1e-5, "max_length": 96}})
    (folder / "run.yaml").write_text(config_to_yaml(config), encoding="utf-8")
    page.goto(f"{address}?tab=runs&run=20261122-1200-rate")
    says(page, ".run .title", "Learning-rate finder")
    page.wait_for_selector(".sweep-rate text.suggested:has-text('3e-4')")
    assert len(page.get_attribute(".sweep-rate polyline.raw", "points").split()) == 9
    assert page.locator(".run-actions").inner_text().split("\n") == ["Repeat with a change", "Delete"]
    page.get_by_role("button", name="Use 3e-4").click()
    page.wait_for_function(f"Number(window.studioForm?.['{RATE}']) === 3e-4")
    form = page.evaluate("window.studioForm")
    assert form["training.find_learning_rate"] is False and form["training.max_length"] == "96"
