"""A finished run, taken away in the window: cards, what stands before, proof, zip, cancel. Everything is real."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from studio.workspace.runs import read_export
from tests.browser.conftest import Window

pytestmark = [pytest.mark.browser, pytest.mark.timeout(420)]


def trained(window: Window, name: str = "Boats", *settings: str) -> str:
    """A run that has finished, made from the command line beside the window; its id."""
    config = window.home / "run.yaml"
    config.write_text("{model: {name_or_path: tiny}, training: {max_steps: 4, learning_rate: 0.01}}", encoding="utf-8")
    overrides = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "studio", "train", str(config), "--name", name, *overrides]
    environment = {**os.environ, "STUDIO_HOME": str(window.home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    return Path(done.stdout.strip().splitlines()[-1]).name


def choose(page: Page, format: str) -> None:
    page.locator(f'.export-card[data-format="{format}"]').click()
    expect(page.locator(f'.export-card[data-format="{format}"] input')).to_be_checked()
    expect(page.locator("#export-out input")).to_have_value(re.compile(rf"-{format}(-\d+)?$"))


def taken(page: Page, format: str) -> Any:
    """Export in this format and wait for its end; the entry in the list."""
    choose(page, format)
    expect(page.locator('.export-lines li[data-state="bad"]')).to_have_count(0)
    before = page.locator(".export-job").count()
    page.locator("#export-start").click()
    expect(page.locator(".export-job")).to_have_count(before + 1)
    expect(page.locator(".export-job .st-pill:not([data-status=finished])")).to_have_count(0, timeout=180_000)
    return page.locator(".export-job").filter(has_text=f"-{format}").first


def test_from_a_finished_run_to_files_that_are_proven_and_downloaded(
    page: Page, window: Window, tmp_path: Path
) -> None:
    run = trained(window)
    page.goto(f"{window.url}?tab=export&run={run}")
    expect(page.locator(".export-card")).to_have_count(6)
    expect(page.locator(".export-card .size").filter(has_text="about")).to_have_count(6)
    for key in ("base", "disk", "memory", "compare", "target"):
        expect(page.locator(f'.export-lines li[data-key="{key}"]')).to_have_attribute("data-state", "ok")

    merged = taken(page, "merged")
    expect(merged.locator(".parity")).to_have_attribute("data-parity", "good")
    merged.locator('[data-fold="parity"] summary').click()
    expect(merged.locator(".replies tbody tr")).to_have_count(4)
    expect(merged.locator('[data-check="same"]')).to_have_count(5)
    merged.locator('[data-fold="load"] summary').click()
    expect(merged.locator("code").first).to_contain_text("from_pretrained")

    gguf = taken(page, "gguf")
    expect(gguf.locator(".parity")).to_have_attribute("data-parity", "good")
    expect(gguf.locator('[data-fold="load"]')).to_contain_text("llama-cli")
    for entry in (merged, gguf):
        same_when_downloaded(page, window, entry, tmp_path)


def same_when_downloaded(page: Page, window: Window, entry: Any, tmp_path: Path) -> None:
    with page.expect_download() as waiting:
        entry.get_by_text("Download as zip").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    job = read_export(window.home / "exports" / str(entry.get_attribute("data-job")))
    folder = Path(job.result["path"])
    there = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(file) as archive:
        held = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert held == there
    assert any(name.endswith((".safetensors", ".gguf")) for name in held)


def test_what_can_t_be_is_told_and_what_was_opened_stays_open(page: Page, window: Window) -> None:
    run = trained(window, "Whole", "adapter=null")
    page.goto(f"{window.url}?tab=export&run={run}")
    card = page.locator('.export-card[data-format="adapter"]')
    expect(card).to_contain_text("not possible")
    card.click()
    expect(page.locator("#export-start")).to_be_disabled()
    choose(page, "bnb")
    page.locator(".export-cards summary").click()
    page.locator('[data-choice="quantization"]').select_option("int8")
    expect(page.locator('.export-card[data-format="bnb"] .size')).to_contain_text("about")
    size = page.locator('[data-choice="shard_size"]')
    size.fill("none")
    size.press("Tab")
    expect(page.locator("#export-problem")).to_contain_text("Largest file (GB)")
    size.fill("0,5")
    size.press("Tab")
    expect(page.locator("#export-problem")).to_be_empty()
    expect(page.locator('[data-choice="quantization"]')).to_have_value("int8")
    page.reload()
    expect(page.locator("#export-run select")).to_have_value(run)
    expect(page.locator(".export-cards details")).to_have_attribute("open", "")


def test_cancel_leaves_nothing_and_its_choices_can_be_taken_up_again(
    page: Page, window: Window, tmp_path: Path
) -> None:
    run = trained(window)
    page.goto(f"{window.url}?tab=export&run={run}")
    choose(page, "merged")
    target = tmp_path / "place" / "cancelled"
    page.fill("#export-out input", str(target))
    page.locator("#export-start").click()
    page.locator(".export-job [data-cancel]").click()
    expect(page.locator(".export-job .st-pill")).to_have_text("Cancelled", timeout=120_000)
    assert not target.exists()
    assert not target.parent.exists() or list(target.parent.iterdir()) == []


def test_a_push_without_a_way_to_the_hub_says_so_and_can_be_tried_again(page: Page, window: Window) -> None:
    run = trained(window)
    page.goto(f"{window.url}?tab=export&run={run}")
    entry = taken(page, "adapter")
    entry.locator('[data-fold="push"] summary').click()
    box = entry.locator(".push-form input").first
    expect(entry.get_by_label("Private")).to_be_checked()
    box.fill("not a name")
    entry.get_by_role("button", name="Push", exact=True).click()
    expect(entry.locator(".refused")).to_contain_text("can't be a name")
    box.fill("me/boats")
    entry.get_by_role("button", name="Push", exact=True).click()
    expect(entry).to_contain_text("HF_HUB_OFFLINE", timeout=120_000)
    expect(entry.locator(".push-form input").first).to_have_value("me/boats")
    kept = json.loads((window.home / "exports" / str(entry.get_attribute("data-job")) / "push.json").read_text())
    assert (kept["repo"], kept["private"], kept["state"]) == ("me/boats", True, "failed")
