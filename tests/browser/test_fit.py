""" "Will it fit?" in a real browser: it moves with the form by itself, mends a run, and sees what others take."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from studio.core.configfile import load_config
from studio.ui.context import Studio
from studio.workspace.chat import Chat
from studio.workspace.home import runs_dir
from studio.workspace.supervisor import Supervisor
from tests.browser import test_forms
from tests.browser.conftest import Window
from tests.browser.test_forms import says, served
from tests.fake_nvml import FakeDriver, build_fake_nvml
from tests.fake_worker import FakeWorkers
from tests.ui.fake_estimating import GIB, FakeEstimating, card

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

BATCH, LENGTH = "#knob-training-per_device_train_batch_size input", "#knob-training-max_length input"
WHOLE = ".fit-parts tfoot td"
page = test_forms.page  # a fixture
# Notes when the sum was drawn anew, and how long after the last thing that a hand did.
WATCH = """() => {
  window.moved = [];
  let touched = 0;
  for (const kind of ['input', 'click']) document.addEventListener(kind, () => { touched = performance.now(); }, true);
  const sum = document.querySelector('.fit-parts tfoot td');
  new MutationObserver(() => window.moved.push([sum.textContent, performance.now() - touched])).observe(
    sum, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture
def fake() -> FakeEstimating:
    return FakeEstimating()


@pytest.fixture
def address(workers: FakeWorkers, fake: FakeEstimating) -> Iterator[str]:
    """A whole studio that reckons with an 8B model on a card of the test's choice; its workers are stand-ins."""
    supervisor = Supervisor()
    chat = Chat(supervisor.launcher, supervisor.runs)
    with served(Studio(supervisor, chat, estimating=fake)) as address:  # type: ignore[arg-type]
        yield address
    supervisor.close()


def settled(page: Any, *states: str) -> None:
    page.wait_for_selector(",".join(f'.fit[data-state="{state}"]' for state in states))


def moves(page: Any, act: Callable[..., Any], *about: str) -> float:
    """The sum after a hand has done something; the card is drawn without any further action."""
    before = page.evaluate("window.moved.length")
    act(*about)
    page.wait_for_function("(before) => window.moved.length > before", arg=before)
    return float(page.inner_text(WHOLE))


def test_batch_length_and_adapter_move_the_card_at_once(page: Any, address: str, fake: FakeEstimating) -> None:
    fake.here = card(80)
    page.goto(address)
    settled(page, "fits", "tight", "over")
    page.wait_for_selector(".fit-largest dd")  # what takes longer has come too
    page.evaluate(WATCH)
    sums = [moves(page, page.fill, BATCH, size) for size in ("2", "4", "9")]
    sums.append(moves(page, page.fill, LENGTH, "900"))
    assert sums == sorted(set(sums))
    qlora, full = (moves(page, page.click, f"#knob-adapter label:has-text('{kind}')") for kind in ("QLoRA", "Full"))
    assert qlora < sums[-1] < full
    times = [time for _, time in page.evaluate("window.moved")]
    sys.stderr.write(f"the card moved after {statistics.median(times):.0f} ms (median of {len(times)})\n")
    assert statistics.median(times) < 3000


def test_an_answer_to_older_values_is_never_drawn(page: Any, address: str, fake: FakeEstimating) -> None:
    fake.here = card(80)
    page.goto(address)
    settled(page, "fits", "tight", "over")
    page.evaluate(WATCH)
    last = moves(page, page.fill, BATCH, "2")
    for typed in ("64", "3", "128", "1", "256", "2"):
        page.fill(BATCH, typed)
        page.wait_for_timeout(80)  # long enough that some of them are asked about
    page.wait_for_function(
        "(last) => document.querySelector('.fit-parts tfoot td').innerText === last", arg=f"{last:.1f}"
    )
    page.wait_for_timeout(1500)
    assert float(page.inner_text(WHOLE)) == last
    assert page.evaluate("window.moved.at(-1)[0]") == f"{last:.1f}"


def test_make_it_fit_ends_in_a_run_that_fits(page: Any, address: str, fake: FakeEstimating) -> None:
    fake.here = card(80)
    page.goto(address)
    settled(page, "fits")
    page.fill(LENGTH, "2048")
    page.select_option(".fit-card", "12")  # what if I had
    settled(page, "over")
    assert page.is_hidden("#fit-warning > *")  # it fits the card that it would run on
    page.select_option(".fit-card", "")
    settled(page, "fits")
    fake.here = card(12)
    page.fill(BATCH, "16")
    settled(page, "over")
    says(page, "#fit-warning", "doesn't fit on this machine")
    assert page.is_enabled("#train-start")  # an estimate can err
    page.wait_for_selector(".fit-mend li")
    page.click("#fit-warning button")
    settled(page, "fits")
    page.wait_for_selector("#fit-warning > *", state="hidden")
    shown = page.input_value(BATCH), page.input_value(LENGTH)
    page.wait_for_function("document.querySelector('#knob-adapter label.selected')?.innerText === 'QLoRA'")
    page.click("#train-start")
    page.wait_for_url("**tab=runs&run=*")
    config = load_config(runs_dir() / page.url.rpartition("run=")[2] / "run.yaml")
    assert fake.forecast(config).verdict == "fits"
    assert config.model.quantization == "nf4"
    assert (str(config.training.per_device_train_batch_size), str(config.training.max_length)) == shown
    assert config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps >= 16


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """An NVIDIA driver for every program that is started from here."""
    fake = FakeDriver(build_fake_nvml(tmp_path), tmp_path)
    for name in ("LD_LIBRARY_PATH", "FAKE_NVML", "FAKE_NVML_LOG"):
        monkeypatch.setenv(name, fake.environment()[name])
    return fake


def test_memory_that_another_process_takes_moves_the_verdict(driver: FakeDriver, page: Any, studio_home: Path) -> None:
    """The real studio, its own estimates and the real bindings; nothing is touched between the two verdicts."""
    driver.behaves(total=8 * GIB, used=GIB)
    window = Window(studio_home)
    window.start()
    try:
        page.goto(window.url)
        settled(page, "fits")
        says(page, ".fit-verdict", "of 7.0 GB")
        says(page, ".fit-scale", "1.0 of 8.0 GB in use")
        driver.behaves(total=8 * GIB, used=int(7.7 * GIB), processes=1)
        settled(page, "over")
        says(page, ".fit-verdict", "0.3 GB are free")
        driver.behaves(total=8 * GIB, used=GIB)
        settled(page, "fits")
    finally:
        window.close()
