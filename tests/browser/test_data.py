"""The Data tab in the real window: faults that are not trained on, rows of somebody else, no mouse, many rows."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Dialog, Page, expect

from studio.core.events import Ended
from studio.core.job import EventTail, JobFolder, read_json
from studio.worker.data.split import read_split
from tests.browser.conftest import Window
from tests.tiny import make_tiny_llama, sentence

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

MARKUP = (
    '<img src=x onerror="window.pwned=1"><svg onload="window.pwned=1"></svg>'
    '<a href="javascript:window.pwned=1">here</a></script><script>window.pwned=1</script>'
)
HOSTILE = f"{MARKUP}\u202egnp.exe\x1b[31m"
FILE_NAME = '<img src=x onerror="window.pwned=1">\u202egnp.jsonl'
MANY = 3000
EMPTY = (41, 1234, 2999)  # lines of `many` whose answer is empty

# What somebody else's text may never become, and what of it may never stand in the page bare. A field is no reading.
_HARM = """() => {
  const tab = document.getElementById('tab-data');
  const made = 'img, script, iframe, object, embed, [onload], [onerror], svg:not(.histogram)';
  const found = [...tab.querySelectorAll(made)].map((one) => one.outerHTML);
  const links = [...tab.querySelectorAll('a')].map((link) => link.href).filter((to) => !to.startsWith(location.origin));
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const bare = [];
  while (walker.nextNode()) if (/[\\u202e\\u001b]/.test(walker.currentNode.data)) bare.push(walker.currentNode.data);
  const loose = [...tab.querySelectorAll('.foreign')].filter((one) => getComputedStyle(one).unicodeBidi !== 'isolate');
  return { pwned: window.pwned ?? null, found: [...found, ...links], bare, loose: loose.length };
}"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """One studio for all of these; each test brings datasets of its own."""
    home = tmp_path_factory.mktemp("studio-data")
    make_tiny_llama(home / "models" / "tiny")
    studio = Window(home)
    studio.start()
    yield studio
    studio.close()


@pytest.fixture(autouse=True)
def no_dialog(page: Page) -> Iterator[None]:
    """Whatever a script opens is closed, and a failure."""
    opened: list[str] = []

    def close(dialog: Dialog) -> None:
        opened.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", close)
    yield
    assert opened == []


def words(seed: int) -> str:
    return sentence(random.Random(seed), 4, 12)


def lines(rows: list[Any]) -> bytes:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()


def sharegpt(asked: str, said: str, asks: str = "human") -> dict[str, Any]:
    return {"conversations": [{"from": asks, "value": asked}, {"from": "gpt", "value": said}]}


def upload(page: Page, name: str, content: bytes) -> None:
    """Through the panel, as a person would; the dataset is open afterwards."""
    page.locator("#nav-data").click()
    page.locator("#data-add").click()
    page.set_input_files("#data-file", {"name": name, "mimeType": "application/jsonl", "buffer": content})
    page.wait_for_url(re.compile("dataset="))
    expect(page.locator(".rows-list [data-pick]").first).to_be_visible()


def read_by_tiny(page: Page, length: int) -> None:
    page.locator("#data-model").select_option("tiny")
    page.locator("#data-max-length").fill(str(length))
    page.locator("#data-max-length").press("Enter")


def check(page: Page) -> None:
    page.locator(".strip [data-act=check]").click()
    expect(page.locator(".strip .learned")).to_be_visible()


def finding(page: Page, kind: str) -> Any:
    return page.locator(f".check-full .finding:has([data-kind={kind}])")


# -- from a file with faults to a run on the rest ---------------------------------------------------------------------

TOLD = {"unknown_role": 5, "empty_answer": 9, "unreadable": 14, "duplicate": 20}  # kind -> line
LONG = 22  # the line of a row that is cut


def faulty() -> list[Any]:
    rows: list[Any] = [sharegpt(f"{number}: {words(number)}", words(100 + number)) for number in range(1, 25)]
    rows[TOLD["unknown_role"] - 1] = sharegpt("Once upon a time", "there was a boat", asks="narrator")
    rows[TOLD["empty_answer"] - 1] = sharegpt("Say nothing", "")
    rows[TOLD["unreadable"] - 1] = '{"conversations": [{"from": "human", "value": "torn'
    rows[TOLD["duplicate"] - 1] = rows[2]
    rows[LONG - 1] = sharegpt("Go on", "and on " * 300)
    return rows


def test_faults_are_named_left_out_and_not_trained_on(page: Page, window: Window) -> None:
    rows = faulty()
    upload(page, "faulty.jsonl", lines(rows))
    read_by_tiny(page, 128)
    check(page)
    page.locator("#section-check").click()
    for kind, line in TOLD.items():
        expect(finding(page, kind).locator(".where")).to_have_text(re.compile(rf"^line {line}$"))
    expect(finding(page, "too_long").locator(".where")).to_contain_text(str(LONG))
    expect(page.locator(".strip .learned")).to_have_text("21 of 24 rows are learned from.")
    finding(page, "duplicate").locator("[data-leave=duplicate]").check()
    expect(page.locator(".strip .learned")).to_have_text("20 of 24 rows are learned from.")
    _see_as_trained(page, rows)
    _train(page)
    _trained_on_the_rest(JobFolder(window.home / "runs" / page.url.rpartition("run=")[2]), len(rows))


def _see_as_trained(page: Page, rows: list[Any]) -> None:
    page.locator("#section-rows").click()
    page.locator("[data-light=trained]").click()
    expect(page.locator(".tokens .token.special").first).to_be_visible()
    said = rows[0]["conversations"][1]["value"]
    assert "".join(page.locator(".tokens .token.loss").all_inner_texts()) == f"{said}<|im_end|>"
    assert page.locator(".cut-line").count() == 0
    page.locator("#rows-go").fill(str(LONG))
    page.locator("#rows-go").press("Enter")
    expect(page.locator(".row-place")).to_have_text(f"Row {LONG}")
    expect(page.locator(".cut-line")).to_be_visible()
    before = page.evaluate("document.querySelectorAll('.tokens .token:not(.cut)').length")
    assert before == 128


def _train(page: Page) -> None:
    page.locator("#data-train").click()
    expect(page.locator("#nav-train")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#knob-training-max_length input").first).to_have_value("128")
    model = page.get_by_label("Model", exact=True)
    model.fill("tiny")
    model.press("Enter")
    expect(page.locator("#knob-model-name_or_path")).to_contain_text("of weights")
    box = page.locator("#knob-training-num_train_epochs input")
    box.fill("1")
    box.press("Tab")
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url(re.compile(r"tab=runs&run="))
    expect(page.locator('.run .st-pill[data-status="finished"]')).to_be_visible(timeout=120_000)


def _trained_on_the_rest(job: JobFolder, rows: int) -> None:
    config = yaml.safe_load(job.run_config.read_text(encoding="utf-8"))
    assert config["dataset"]["exclude"] == ["duplicate"]
    parts = read_split(job.path)
    assert parts is not None
    used = sorted(row for part in parts.values() for row in part.tolist())
    assert used == [row for row in range(rows) if row + 1 not in TOLD.values()]
    data = read_json(job.path / "data.json") or {}
    assert (data["rows"], data["train"] + data["validation"]) == (rows, len(used))
    assert [event.status for event in EventTail(job.events).read() if isinstance(event, Ended)] == ["finished"]


# -- rows of somebody else --------------------------------------------------------------------------------------------


def harmless(page: Page) -> None:
    """Nothing of a text became anything but text, and its reading order stays its own."""
    assert page.evaluate(_HARM) == {"pwned": None, "found": [], "bare": [], "loose": 0}


def hostile_rows() -> list[Any]:
    rows: list[Any] = []
    for number in range(30):
        topic = ("boats", "water", "night")[number % 3]
        asked = f"{number} {HOSTILE} {words(number)} onerror{topic} onerror{topic}"
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": asked},
                    {"role": "assistant", "content": f"{HOSTILE} {topic} {words(number + 50)}"},
                ],
                HOSTILE: HOSTILE,
            }
        )
    rows[4] = {"messages": [{"role": HOSTILE, "content": HOSTILE}], HOSTILE: ""}
    rows[6] = rows[7]
    rows[8] = f"{{torn {HOSTILE}".replace("\x1b", "")
    return rows


def test_F54_S9_rows_columns_and_names_of_somebody_else_are_only_text(page: Page) -> None:
    upload(page, FILE_NAME, lines(hostile_rows()))
    read_by_tiny(page, 512)
    expect(page.locator(".data-about h2")).to_contain_text("<img src=x onerror")
    expect(page.locator(".rows-list")).to_contain_text("0 <img src=x")
    expect(page.locator(".rows-list")).to_contain_text("unknown role")
    harmless(page)
    for light, place in (("conversation", ".bubble p"), ("raw", "pre.raw"), ("trained", ".tokens")):
        page.locator(f"[data-light={light}]").click()
        expect(page.locator(f".row-content {place}").first).to_contain_text("window.pwned")
        # A tokenizer may cut the one character into bytes; the other is one.
        mark = "U+001B" if light == "trained" else "U+202E"
        expect(page.locator(f".row-content {place} .unseen", has_text=mark).first).to_be_visible()
        harmless(page)
    page.locator(".rows-list [data-pick='4']").click()
    expect(page.locator(".row-content")).to_contain_text("can't be used")
    harmless(page)
    _harmless_when_searched(page)
    _harmless_in_reports(page)
    _harmless_in_forms(page)


def _harmless_when_searched(page: Page) -> None:
    page.locator("#rows-find").fill(MARKUP[:36])
    page.locator("#rows-find").press("Enter")
    expect(page.locator("#rows-where")).to_contain_text("found")
    expect(page.locator(".rows-list")).to_contain_text("<img src=x")
    harmless(page)
    page.locator("#rows-clear").click()


def _harmless_in_reports(page: Page) -> None:
    check(page)
    page.locator("#section-check").click()
    for kind in ("duplicate", "unknown_role", "unreadable"):
        expect(finding(page, kind).locator(".example")).to_be_visible()
    expect(finding(page, "duplicate").locator(".example")).to_contain_text("<img src=x")
    harmless(page)
    page.locator("#section-stats").click()
    page.locator("#stats-start").click()
    expect(page.locator(".bars", has_text="<img").first).to_be_visible()
    harmless(page)
    page.locator("#section-map").click()
    page.locator("#map-start").click()
    expect(page.locator(".map-group").first).to_be_visible()
    harmless(page)


def _harmless_in_forms(page: Page) -> None:
    page.locator("#section-shape").click()
    expect(page.locator("#shape-name")).to_have_value(re.compile("<img"))
    page.locator("#data-change-layout").click()
    assert any("onerror" in one for one in page.locator(".layout-columns option").all_inner_texts())
    harmless(page)
    page.locator("#data-add").click()
    expect(page.locator(".mix-line", has_text="<img")).to_be_visible()
    page.locator("#data-source").fill(f"/nowhere/{HOSTILE}")
    page.locator("#data-add-do").click()
    expect(page.locator(".data-add .st-error")).to_contain_text("/nowhere/<img")
    harmless(page)
    page.keyboard.press("Escape")
    page.locator("#data-remove").click()
    expect(page.locator("dialog h2")).to_contain_text("<img")
    harmless(page)
    page.locator("#data-remove-yes").click()
    expect(page.locator(".datasets-list [role=status]")).to_contain_text("was removed")
    harmless(page)


# -- many rows, work that takes its time ------------------------------------------------------------------------------


def many_rows() -> list[Any]:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Number {number}, please: {words(number)}"},
                {"role": "assistant", "content": "" if number in EMPTY else f"{number} it is, {words(number + 7)}"},
            ]
        }
        for number in range(1, MANY + 1)
    ]
    return list(rows)


def test_many_rows_are_paged_searched_and_found_by_problem(page: Page) -> None:
    upload(page, "many.jsonl", lines(many_rows()))
    where, items = page.locator("#rows-where"), page.locator(".rows-list [data-pick]")
    expect(where).to_have_text("Rows 1 to 20 of 3,000")
    page.locator("#rows-next").click()
    expect(where).to_have_text("Rows 21 to 40 of 3,000")
    page.locator("#rows-go").fill("2507")
    page.locator("#rows-go").press("Enter")
    expect(where).to_have_text("Rows 2,501 to 2,520 of 3,000")
    expect(page.locator(".rows-list [aria-selected=true]")).to_contain_text("Number 2507,")
    expect(page.locator(".bubble").first).to_contain_text("Number 2507,")
    page.locator("#rows-find").fill("number 1777, PLEASE")
    page.locator("#rows-search").click()
    expect(where).to_have_text("1 to 1 of 1 found")
    expect(items).to_have_count(1)
    page.locator("#rows-find").fill("no such words anywhere")
    page.locator("#rows-search").click()
    expect(page.locator(".rows-list")).to_contain_text("No row is like that")
    page.locator("#rows-clear").click()
    expect(where).to_have_text("Rows 1 to 20 of 3,000")

    page.locator("#data-model").select_option("")
    _a_check_is_found_again_and_stopped(page)
    page.locator("#section-check").click()
    page.locator("#check-near").uncheck()
    page.locator("#check-start").click()
    expect(page.locator(".strip .learned")).to_have_text("2,997 of 3,000 rows are learned from.")
    page.locator("#section-rows").click()
    page.locator("#rows-kind").select_option("empty_answer")
    expect(where).to_have_text("1 to 3 of 3 found")
    assert [item.get_attribute("data-pick") for item in items.all()] == [str(line - 1) for line in EMPTY]


def _a_check_is_found_again_and_stopped(page: Page) -> None:
    page.locator(".strip [data-act=check]").click()
    expect(page.locator(".strip .work")).to_be_visible()
    page.reload()
    expect(page.locator(".strip .work")).to_be_visible()
    page.locator(".strip .work").get_by_role("button", name="Stop").click()
    expect(page.locator(".strip .work")).to_be_hidden()
    expect(page.locator(".strip")).to_contain_text("Stopped; nothing was kept.")
    expect(page.locator(".strip .learned")).to_have_count(0)


# -- without a mouse, and what is typed and not yet saved -------------------------------------------------------------


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until this has the focus, and see that it shows."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            break
    else:
        raise AssertionError(f"{selector} can't be reached by Tab")
    style = page.evaluate(
        "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
    )
    assert style[0] != "none" and style[1] != "0px", f"{selector} doesn't show that it has the focus"


def test_rows_and_checks_need_no_mouse(page: Page, window: Window) -> None:
    rows = [sharegpt(f"Question {number}", f"Answer {number}") for number in range(1, 8)]
    upload(page, "keys.jsonl", lines([*rows, rows[0]]))
    page.locator("#data-model").select_option("")
    page.goto(f"{window.url}?tab=data&dataset=keys")
    expect(page.locator(".bubble").first).to_contain_text("Question 1")
    tab_to(page, ".datasets-list [data-pick=keys]")
    tab_to(page, ".strip [data-act=check]")
    page.keyboard.press("Enter")
    expect(page.locator(".strip .learned")).to_be_visible()
    tab_to(page, ".strip [data-leave=duplicate]")
    page.keyboard.press("Space")
    expect(page.locator(".strip .learned")).to_have_text("7 of 8 rows are learned from.")
    tab_to(page, ".rows-list [data-pick='0']")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".bubble").first).to_contain_text("Question 3")
    tab_to(page, "#row-leave")
    page.keyboard.press("Space")
    expect(page.locator(".strip .learned")).to_have_text("6 of 8 rows are learned from.")
    expect(page.locator(".rows-list [data-pick='2']")).to_have_class(re.compile("left-out"))
    tab_to(page, "[data-light=conversation]")
    page.keyboard.press("ArrowRight")
    expect(page.locator("pre.raw")).to_contain_text("Question 3")
    registered = yaml.safe_load(Path(window.home / "datasets/keys/dataset.yaml").read_text(encoding="utf-8"))
    assert (registered["exclude"], registered["exclude_rows"]) == (["duplicate"], [2])


def test_a_changed_row_outlives_a_reload_until_it_is_saved(page: Page, window: Window) -> None:
    rows = [sharegpt(f"Question {number}", f"Answer {number}") for number in range(1, 5)]
    upload(page, "edited.jsonl", lines(rows))
    page.locator("#data-model").select_option("")
    page.locator("#row-edit").click()
    page.locator(".row-edit textarea").fill(json.dumps(sharegpt("Question 1", "A better answer")))
    page.locator("#row-edit-keep").click()
    expect(page.locator(".rows-list [data-pick='0'] .unsaved")).to_be_visible()
    page.reload()
    expect(page.locator(".rows-list [data-pick='0'] .unsaved")).to_be_visible()
    page.locator("#section-shape").click()
    page.locator("#shape-name").fill("Better")
    page.locator("#shape-do").click()
    page.locator("#shape-open").click()
    expect(page.locator(".data-about h2")).to_have_text("Better")
    expect(page.locator(".bubble").nth(1)).to_contain_text("A better answer")
    assert page.evaluate("sessionStorage.length") == 0
    kept = [file.read_bytes() for file in (window.home / "datasets/edited").glob("*.jsonl")]
    assert kept == [lines(rows)], "the original was touched"


def test_no_part_is_wider_than_a_phone(page: Page, window: Window) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    upload(page, "phone.csv", b"frage,antwort\nWas?,Das.\n")
    page.locator("#layout-map").click()
    expect(page.locator(".layout-form [data-column=prompt]")).to_be_visible()
    parts = ["#section-rows", "#section-check", "#section-stats", "#section-map", "#section-shape", "#data-add"]
    for part in parts:
        page.locator(part).click()
        page.wait_for_timeout(200)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{part} is {wide} px wide"
