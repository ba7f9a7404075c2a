"""The whole path in the real window: open, pick, start, watch, reload, talk, take away, load elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Window

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]

# Loads the export with plain transformers, base + adapter with plain PEFT, and prints how far their logits lie apart.
_COMPARE = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, merged = sys.argv[1:4]
tokenizer = AutoTokenizer.from_pretrained(merged)
batch = tokenizer.apply_chat_template(
    [{"role": "user", "content": "What is the name of your boat?"}],
    add_generation_prompt=True, return_tensors="pt", return_dict=True,
)
with torch.inference_mode():
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = plain(**batch).logits
    tuned = PeftModel.from_pretrained(plain, adapter)(**batch).logits
    alone = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(**batch).logits
print(json.dumps([(tuned - alone).abs().max().item(), (tuned - before).abs().max().item()]))
"""


def pick_tiny_model(page: Page, epochs: int) -> None:
    """The quickstart as it stands in the form, on the tiny model, long enough to be watched."""
    model = page.get_by_label("Model", exact=True)
    model.fill("tiny")
    model.press("Enter")
    expect(page.locator("#knob-model-name_or_path")).to_contain_text("of weights")
    box = page.locator("#knob-training-num_train_epochs input")
    box.fill(str(epochs))
    box.press("Tab")
    page.locator("#fold-run > button").click()
    steps = r"\D?".join(re.findall(r"\d{1,3}(?=(?:\d{3})*$)", str(38 * epochs)))  # 1 140
    expect(page.locator("dd").get_by_text(re.compile(rf"^{steps}$"))).to_be_visible()


def start(page: Page) -> str:
    """Press Start; returns the run's id, read off the address."""
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"tab=runs&run="))
    return page.url.rpartition("run=")[2]


def steps_shown(page: Page) -> int:
    """The step that the Runs tab shows."""
    text = page.locator(".run-figures").inner_text()
    found = re.search(r"Step\s+(\d[\d,\s]*) /", text)
    return int(re.sub(r"\D", "", found[1])) if found else 0


def wait_for_step(page: Page, step: int) -> None:
    """Wait until the Runs tab shows this step or a later one."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if page.locator(".run-figures").count() and steps_shown(page) >= step:
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"step {step} never came; at the end it was {steps_shown(page)}")


def test_from_opening_to_an_export_that_other_programs_load(page: Page, window: Window, tmp_path: Path) -> None:
    expect(page.get_by_label("Preset")).to_have_value(re.compile("Quickstart"))
    pick_tiny_model(page, epochs=30)
    run_id = start(page)
    wait_for_step(page, 1)
    expect(page.locator(".uplot").first).to_be_visible()
    seen = steps_shown(page)
    wait_for_step(page, seen + 20)

    page.reload()
    expect(page.locator(".uplot").first).to_be_visible()
    assert run_id in page.url
    wait_for_step(page, 1)
    assert steps_shown(page) > seen + 20, "a reload went back"
    expect(page.locator('.run .st-pill[data-status="finished"]')).to_be_visible(timeout=240_000)

    chat_with_both(page)
    merged = tmp_path / "taken away"
    export_merged(page, run_id, merged)
    run = window.home / "runs" / run_id
    command = [sys.executable, "-c", _COMPARE, str(window.home / "models" / "tiny"), str(run / "adapter"), str(merged)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    apart, learnt = json.loads(done.stdout.splitlines()[-1])
    assert learnt > 100 * apart, "the export doesn't hold what was learnt"
    assert apart < 2e-4, f"the export answers differently from base + adapter by {apart}"


def chat_with_both(page: Page) -> None:
    page.locator(".run").get_by_role("button", name="Chat").click()
    page.wait_for_url(re.compile("tab=chat"))
    box = page.locator("#chat-input textarea")
    box.fill("What is the name of your boat?")
    page.get_by_role("button", name="Send").click()
    # Each column closes with its count of tokens.
    expect(page.get_by_text(re.compile(r"\d+ tokens, [\d.]+ tokens/s"))).to_have_count(2, timeout=120_000)
    expect(page.get_by_text("What is the name of your boat?").first).to_be_visible()


def export_merged(page: Page, run_id: str, target: Path) -> None:
    page.get_by_role("tab", name="Export").click()
    box = page.locator("#export-out input, #export-out textarea").first
    expect(box).to_be_visible()
    box.fill(str(target))
    page.locator("#export-start").click()
    expect(page.locator("#tab-export").get_by_text("Finished")).to_be_visible(timeout=120_000)
    assert (target / "model.safetensors").is_file()
    assert (target / "chat_template.jinja").is_file() or "chat_template" in (
        target / "tokenizer_config.json"
    ).read_text()
    # A second export onto the same folder is refused where it is asked for, and nothing is touched.
    before = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    box.fill(str(target))
    expect(page.locator(".export-lines")).to_contain_text("isn't empty")
    expect(page.locator("#export-start")).to_be_disabled()
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == before


def test_a_bad_value_is_told_at_its_field_and_nothing_starts(page: Page, window: Window) -> None:
    box = page.locator("#knob-training-learning_rate input")
    box.fill("-1")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#knob-training-learning_rate")).to_contain_text("should be greater than 0")
    assert not list((window.home / "runs").glob("*"))


def test_every_tab_opens_without_sideways_scrolling(page: Page, window: Window) -> None:
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 860})
        for tab in ("data", "train", "runs", "chat", "export", "system"):
            page.goto(f"{window.url}?tab={tab}")
            expect(page.locator(f"#nav-{tab}")).to_have_attribute("aria-selected", "true")
            page.wait_for_timeout(300)
            wide: Any = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{tab} is {wide} px wide at {width}"
