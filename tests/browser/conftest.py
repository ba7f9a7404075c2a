"""The real studio in a process of its own, and a headless Chromium to look at it.

In: a tiny model, made on the spot and registered under `models/tiny`. Out: a server that can be killed and started
again on the same home, and a page that fails the test on any script error or any request to elsewhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.tiny import make_tiny_llama

CHROMIUM = next(
    (
        found
        for name in (os.environ.get("STUDIO_CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome")
        if name and (found := shutil.which(name))
    ),
    None,
)


class Window:
    """`studio ui` on one home. `start` after `kill` finds the same home again."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home / "ui.log"
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        environment = {**os.environ, "STUDIO_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "studio", "ui", "--no-browser", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}api/hello", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError(f"the studio didn't start:\n{self.log.read_text()}")

    def kill(self) -> None:
        """As the system would: no word, no clean-up."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for process in psutil.process_iter(["cmdline"]):  # workers outlive the window; no test may leave one
            if str(self.home) in " ".join(process.info["cmdline"] or ()):
                process.kill()


@pytest.fixture
def window(studio_home: Path) -> Iterator[Window]:
    """A running studio whose home holds the tiny model as `tiny`."""
    make_tiny_llama(studio_home / "models" / "tiny")
    studio = Window(studio_home)
    studio.start()
    yield studio
    studio.close()


@pytest.fixture(scope="module")  # not longer: playwright keeps an event loop, and other tests run their own
def browser() -> Iterator[Any]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=60_000)  # the machine may be busy with other tests
    assert CHROMIUM, "these tests need Chromium; install it, or name it in STUDIO_CHROMIUM"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, window: Window) -> Iterator[Any]:
    """A page on the studio. Script errors and requests to anywhere else fail the test at its end."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    opened.on(
        "request",
        lambda request: (
            None if request.url.startswith((window.url, "data:", "blob:")) else wrong.append(f"fetched {request.url}")
        ),
    )
    opened.set_default_timeout(60_000)
    opened.goto(window.url)
    yield opened
    context.close()
    assert not wrong, wrong
