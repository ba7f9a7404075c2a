"""`python docs/screenshots.py [URL]`: the README's pictures, taken from a running studio.

In: the address of a studio that has at least one finished run. Out: docs/screenshots/*.png, the six tabs in light and
two of them in dark. Asks the chat's question anew, so that the picture shows real answers.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import expect, sync_playwright

FOLDER = Path(__file__).parent / "screenshots"
QUESTION = "Why is the sky blue?"


def main(url: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    expect.set_options(timeout=120_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("STUDIO_CHROMIUM", "/usr/bin/chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for theme, tabs in (
            ("light", ("train", "data", "runs", "chat", "export", "system")),
            ("dark", ("train", "runs")),
        ):
            page = browser.new_page(viewport={"width": 1280, "height": 860}, color_scheme=theme)
            page.set_default_timeout(120_000)
            for tab in tabs:
                page.goto(f"{url}?tab={tab}")
                expect(page.locator(f"#nav-{tab}")).to_have_attribute("aria-selected", "true")
                page.wait_for_timeout(3000)  # curves drawn, meters read
                prepare(page, tab)
                page.screenshot(path=str(FOLDER / f"{tab}{'-dark' if theme == 'dark' else ''}.png"))
                sys.stderr.write(f"{tab} {theme}\n")
        browser.close()


def prepare(page: Any, tab: str) -> None:
    """Bring a tab to where it shows what it is for."""
    if tab == "data":
        page.get_by_text("As trained").click()
        expect(page.get_by_text(re.compile(r"of them carry loss"))).to_be_visible()
    if tab == "chat":
        page.locator("#chat-input textarea").fill(QUESTION)
        page.locator("#chat-send").click()
        expect(page.get_by_text(re.compile(r"\d+ tokens, [\d.]+ tokens/s"))).to_have_count(2)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860/")
