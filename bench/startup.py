"""From the command to a window that can be used, and what the idle server weighs."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from bench.rows import Row

_ROUNDS = 3


def measure(home: Path) -> list[Row]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("STUDIO_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        rows = _measure(browser)
        browser.close()
    return rows


def _measure(browser: Any) -> list[Row]:
    answered, usable = [], []
    server_mb = standby_mb = 0.0
    for _ in range(_ROUNDS):
        port = _free_port()
        page = browser.new_page()
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "studio", "ui", "--no-browser", "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for_200(f"http://127.0.0.1:{port}/", process)
            answered.append(time.monotonic() - began)
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            page.get_by_role("button", name="Start", exact=True).wait_for(state="visible")
            usable.append(time.monotonic() - began)
            page.close()
            time.sleep(12)  # the standby's imports are done by then
            server = psutil.Process(process.pid)
            server_mb = server.memory_info().rss / 1e6
            standby_mb = sum(child.memory_info().rss for child in server.children(recursive=True)) / 1e6
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
    return [
        Row("command to HTTP 200", statistics.median(answered), "s", note=f"median of {_ROUNDS}"),
        Row(
            "command to a usable page (Start can be pressed)", statistics.median(usable), "s", note="headless Chromium"
        ),
        Row("idle server, resident", server_mb, "MB"),
        Row("standby worker, resident", standby_mb, "MB"),
    ]


def _wait_for_200(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    raise RuntimeError("the studio ended before it answered")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
