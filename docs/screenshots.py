"""`python docs/screenshots.py [URL [TAB...]]`: the README's pictures, taken from a running studio.

In: the address of a studio that has at least one finished run; which tabs, all of them where none is named. Out:
docs/screenshots/*.png, the six tabs in light and two of them in dark. Has the quickstart's rows checked and asks the
chat's question anew, so that the pictures show real answers.
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


def main(url: str, wanted: list[str]) -> None:
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
            for tab in (tab for tab in tabs if not wanted or tab in wanted):
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
        page.goto(f"{page.url.partition('?')[0]}?tab=data&dataset=quickstart-sft")
        page.get_by_role("button", name="Check all rows").or_(page.get_by_role("button", name="Check again")).click()
        expect(page.get_by_text(re.compile(r"rows are learned from"))).to_be_visible()
        page.get_by_role("radio", name="As trained on").click()
        expect(page.get_by_text(re.compile(r"they carry loss"))).to_be_visible()
    if tab == "chat":
        page.locator("#chat-input textarea").fill(QUESTION)
        page.locator("#chat-send").click()
        expect(page.get_by_text(re.compile(r"\d+ tokens, [\d.]+ tokens/s"))).to_have_count(2)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860/", sys.argv[2:])
