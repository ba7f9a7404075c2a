"""The tabs that are filled in, driven in a real browser; workers are stand-ins."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from studio.core.configfile import parse_config, parse_yaml, read_yaml
from studio.ui.context import Studio
from studio.workspace.chat import Chat
from studio.workspace.home import runs_dir
from studio.workspace.supervisor import Supervisor
from tests.fake_worker import FakeWorkers, until
from tests.ui.fake_chat import FakeChat

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>${window.pwned=1}{{value}}`\u202egnp.exe'


@pytest.fixture
def address(workers: FakeWorkers) -> Iterator[str]:
    """A whole studio; its workers are stand-ins."""
    supervisor = Supervisor()
    chat = Chat(supervisor.launcher, supervisor.runs)
    with served(Studio(supervisor, chat)) as address:
        yield address
    chat.unload()
    supervisor.close()


@contextmanager
def served(studio: Studio) -> Iterator[str]:
    """The address of a studio that runs in this process, on a thread of its own."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = _Served(studio, listener)
        server.start()
        until(lambda: server.ready, 60)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.end()


class _Served(threading.Thread):
    def __init__(self, studio: Studio, listener: socket.socket) -> None:
        super().__init__(name="studio under test")
        self.studio, self.listener = studio, listener
        self.server: Any = None

    def run(self) -> None:
        import uvicorn

        from studio.ui.server import create_app

        app = create_app(self.studio, port=self.listener.getsockname()[1])
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
        self.server.run(sockets=[self.listener])

    @property
    def ready(self) -> bool:
        return self.server is not None and bool(self.server.started)

    def end(self) -> None:
        self.server.should_exit = True
        self.join(20)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page; what its scripts complain of, and what others' scripts manage to do, is a failure."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    wrong: list[str] = []
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    yield page
    assert page.evaluate("window.pwned ?? null") is None
    context.close()
    assert wrong == []


def says(page: Any, place: str, text: str) -> None:
    """Wait until a part of the page says this."""
    page.wait_for_function(
        "([place, text]) => document.querySelector(place)?.innerText.includes(text)", arg=[place, text]
    )


def type_in(page: Any, knob: str, text: str) -> None:
    page.fill(f"#knob-{knob} input", text)
    page.keyboard.press("Tab")


def test_from_the_form_to_a_run_to_talking_to_it_to_taking_it_away(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(address)
    page.click("#fold-run button")
    says(page, "#train-card", "38")  # the quickstart is loaded: one click would start it
    _fill_in(page)
    page.fill("#train-name input", HOSTILE)
    page.click("#train-start")
    page.wait_for_url("**tab=runs&run=*")
    run = page.url.rpartition("run=")[2]
    says(page, "#runs-view", "Finished")
    page.click("text=Repeat with a change")
    says(page, "#train-card", "24 (8 × 3)")
    assert page.input_value("#knob-training-learning_rate input") == "3e-4"
    _talk(page, address, run)
    _take_away(page, address, run, tmp_path)


def _fill_in(page: Any) -> None:
    type_in(page, "training-gradient_accumulation_steps", "3")
    says(page, "#train-card", "24 (8 × 3)")
    type_in(page, "training-learning_rate", "fast")
    says(page, "#knob-training-learning_rate", "Learning rate should be a number")
    page.click("#train-start")
    says(page, "#train-problem", "Learning rate")
    assert "tab=runs" not in page.url
    type_in(page, "training-learning_rate", "3e-4")
    page.wait_for_selector("#knob-training-learning_rate:not(.bad)")
    page.click("#fold-data button")
    type_in(page, "dataset-validation_split", "0")
    page.click("[data-mend=no_validation]")
    page.wait_for_function("document.querySelector('#knob-dataset-validation_split input').value === '0.1'")
    page.click("#fold-command button")
    says(page, "#train-command", "--set training.learning_rate=3e-4")


def _talk(page: Any, address: str, run: str) -> None:
    page.goto(f"{address}?tab=chat&run={run}")
    says(page, "#chat-base", "side by side")
    page.fill("#chat-input textarea", f"Hello {HOSTILE}")
    page.press("#chat-input textarea", "Enter")
    for column in ("base", "tuned"):
        says(page, f"#chat-{column}", f"{column} heard Hello <img")
        says(page, f"#chat-{column}", "6.0 tokens/s")
        assert page.locator(f"#chat-{column} :is(img, script)").count() == 0
    page.click("#chat-unload")
    says(page, "#chat-status", "Unloaded")
    page.click("#chat-clear")
    says(page, "#chat-base", "side by side")


def _take_away(page: Any, address: str, run: str, tmp_path: Path) -> None:
    page.goto(f"{address}?tab=export&run={run}")
    page.wait_for_function("document.querySelector('#export-out input')?.value.endsWith('-merged')")
    page.click("text=Just the adapter")
    page.wait_for_function("document.querySelector('#export-out input').value.endsWith('-adapter')")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("", encoding="utf-8")
    page.fill("#export-out input", str(full))
    says(page, ".export-lines", "isn't empty")
    assert page.is_disabled("#export-start")
    page.fill("#export-out input", str(tmp_path / "new"))
    page.click("#export-start")
    says(page, "#export-history", str(tmp_path / "new"))
    page.wait_for_selector(".export-job:not(:has(.export-live))")


def test_an_answer_ends_when_its_page_is_left(page: Any, workers: FakeWorkers) -> None:
    supervisor, fake = Supervisor(), FakeChat(endless=True)
    with served(Studio(supervisor, fake)) as address:  # type: ignore[arg-type]
        page.goto(f"{address}?tab=chat")
        says(page, "#chat-base", "Ask something")
        page.fill("#chat-input textarea", "hello")
        page.click("#chat-send")
        says(page, "#chat-base", "on and on and")
        page.goto("about:blank")
        assert until(fake.halted.is_set)
    supervisor.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_no_tab_is_wider_than_the_window(page: Any, address: str, workers: FakeWorkers, width: int) -> None:
    workers.real_data = True
    page.set_viewport_size({"width": width, "height": 844})
    for tab, there in (
        ("train", "#fit-view .fit"),
        ("data", ".rows-list .pick"),
        ("chat", "#chat-base .greeting"),
        ("export", "#export-empty h2"),
    ):
        page.goto(f"{address}?tab={tab}")
        page.wait_for_selector(there)
        if tab == "train":
            for fold in ("run", "data", "memory", "adapter", "optimizer", "checkpoints", "yaml", "command", "save"):
                page.click(f"#fold-{fold} button")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def choose(page: Any, method: str) -> None:
    page.click("#knob-method-field")
    page.click(f".pick-option:has(input[value={method}])")


def test_a_method_brings_its_knobs_and_start_writes_them_into_the_run(page: Any, address: str) -> None:
    page.goto(address)
    choose(page, "dpo")
    page.wait_for_selector(".pick-panel", state="hidden")
    page.wait_for_selector('[data-mend="misfit"]')  # the quickstart's rows are no pairs: told at once
    page.fill("#knob-dataset-path input", "quickstart-preference")
    page.keyboard.press("Tab")
    page.wait_for_selector('[data-mend="misfit"]', state="detached")
    type_in(page, "method-dpo-beta", "-1")
    says(page, "#knob-method-dpo-beta", "should be greater than 0")
    type_in(page, "method-dpo-beta", "0.25")
    page.wait_for_selector("#knob-method-dpo-beta:not(.bad)")
    page.click("#train-start")
    page.wait_for_url("**tab=runs&run=*")
    config = parse_config(read_yaml(runs_dir() / page.url.rpartition("run=")[2] / "run.yaml"))
    assert config.method.model_dump(include={"name", "beta"}) == {"name": "dpo", "beta": 0.25}
    page.click("text=Repeat with a change")
    page.wait_for_function("document.querySelector('#knob-method-dpo-beta input')?.value === '0.25'")
    page.goto("about:blank")  # the studio ends before the page does, which may still be asking


def test_an_adapter_and_rewards_are_put_together_by_hand(page: Any, address: str) -> None:
    page.goto(address)
    page.click("#fold-adapter > button")
    page.wait_for_selector("#knob-adapter-lora-r")
    page.select_option("#adapter-more", "adalora")
    page.wait_for_selector("#knob-adapter-adalora-init_r")
    assert page.locator("#knob-adapter-lora-r").count() == 0
    page.click("#knob-adapter-adalora-target_modules label:has-text('Picked')")
    page.fill("#knob-adapter-adalora-target_modules input[type=text]", "q_proj, v_proj, o_proj")
    choose(page, "grpo")
    page.select_option(".rewards-list select", "file")
    path = f"/a/{HOSTILE}, b.py".replace("\u202e", "")  # which the page shows by its number
    page.fill(".rewards-list li input", path)
    page.wait_for_selector("#knob-method-grpo-rewards.bad")  # a file is run only once that is allowed
    page.check(".rewards-allow input")
    page.click("text=Add a reward")
    page.fill(".rewards-list li:last-child input.num", "0.5")
    page.wait_for_selector("#knob-method-grpo-rewards:not(.bad)")
    page.click("#fold-yaml button")
    says(page, "#train-yaml", "- 0.5")
    told = parse_yaml(page.inner_text("#train-yaml pre"), "run.yaml")
    assert told["adapter"]["target_modules"] == ["q_proj", "v_proj", "o_proj"]
    assert told["model"]["quantization"] == "none"
    assert told["method"]["rewards"] == [f"file:{path}", "exact_match"]
    assert (told["method"]["reward_weights"], told["method"]["allow_code"]) == ([1.0, 0.5], True)
    page.goto("about:blank")
