"""The exports there have been, as they are shown: what each state says, and that nobody's words become markup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.core.events import Ended, Note, Stage
from studio.core.progress import State
from studio.ui import exportview
from studio.ui.exportparityview import verdict
from studio.workspace.push import Push
from studio.workspace.runs import ExportJob, read_export
from tests.ui.made_exports import SAME, done, make_export
from tests.ui.made_runs import STARTED

HOSTILE = '<img src=x onerror="alert(1)">'


def job(out: Path, *events: Any, **more: Any) -> ExportJob:
    return read_export(make_export(out, *events, **more))


def live(found: ExportJob) -> ExportJob:
    """The same, as if its worker lived."""
    return replace(found, state=State("running"))


def shown(found: ExportJob, push: Push | None = None, token: bool = True) -> str:
    return exportview.entry(found, push, token)


def test_a_finished_one_tells_size_time_memory_place_and_where_to(tmp_path: Path) -> None:
    out = tmp_path / "out"
    html = shown(job(out, done(out, SAME)))
    for words in ("A run, merged", "1.0 kB", "12 s to write", "480 MB of memory", str(out), "2 Jan 2026, 15:30"):
        assert words in html
    assert "/zip" in html
    assert "data-push-form" in html
    assert f'data-copy-text="{out}"' in html


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "good"),
        ({"greedy_match": 0.96}, "fair"),
        ({"greedy_match": 0.3, "proven": "bf16", "proven_diff": 0.003}, "coarse"),
        ({"max_logit_diff": None, "same": False, "proven": "bf16", "problems": ["The bf16 differs."]}, "bad"),
        ({"same": False, "problems": ["It differs."]}, "bad"),
        ({"max_logit_diff": None, "same": None, "skipped": "Too large."}, "none"),
    ],
)
def test_parity_is_one_word_with_its_figures(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    found = job(tmp_path / "out", done(tmp_path / "out", {**SAME, **change}))
    assert verdict(found) == word
    html = shown(found)
    assert f'data-parity="{word}"' in html
    for told in (*change.get("problems", ()), change.get("skipped", "")):
        assert told in html
    if change.get("max_logit_diff", 0) is not None:
        assert "differ by 0.25" in html
        assert f"{100 * change.get('greedy_match', 1.0):.1f} %" in html
        assert "Who?" in html


def test_what_was_compared_beside_the_logits_is_told_each(tmp_path: Path) -> None:
    checks = {"template": True, "special": True, "end": False}
    html = shown(job(tmp_path / "out", done(tmp_path / "out", {**SAME, "checks": checks})))
    assert html.count('data-check="same"') == 2
    assert html.count('data-check="other"') == 1
    assert html.count('data-check="unsaid"') == 2


def test_one_that_was_not_compared_says_why(tmp_path: Path) -> None:
    assert "as you chose" in shown(job(tmp_path / "a", done(tmp_path / "a")))


def test_progress_is_in_bytes_and_its_end_is_from_the_rate(tmp_path: Path) -> None:
    stages = [
        Stage("fetch", "Downloading", 0, 100, "bytes", t=STARTED),
        Stage("write", "Merging", 1_000_000, 9_000_000, "bytes", t=STARTED + 10),
        Stage("write", "Merging", 5_000_000, 9_000_000, "bytes", t=STARTED + 12),
    ]
    found = live(job(tmp_path / "out", *stages))
    assert exportview.pace(found) == 2_000_000
    html = shown(found)
    for words in ("Merging", "5.0 MB / 9.0 MB", "2.0 MB/s", "2.0 s left", "width: 55.6%", "data-cancel"):
        assert words in html


def test_before_there_is_a_rate_no_time_is_guessed(tmp_path: Path) -> None:
    html = shown(live(job(tmp_path / "out", Stage("write", "Merging", 0, 9_000_000, "bytes", t=STARTED + 10))))
    assert "left" not in html
    assert "Comparing" in shown(
        live(job(tmp_path / "b", Stage("parity", "Comparing", t=STARTED + 10), job_id="20260102-1531-b"))
    )


def test_what_failed_says_why_and_what_is_gone_offers_nothing(tmp_path: Path) -> None:
    failed = job(tmp_path / "a", Ended("failed", "The disk filled up.", "Free some.", t=STARTED + 1))
    assert "The disk filled up. Free some." in shown(failed)
    gone = job(tmp_path / "b", done(tmp_path / "b", SAME), job_id="20260102-1531-b")
    for path in (tmp_path / "b").iterdir():
        path.unlink()
    (tmp_path / "b").rmdir()
    html = shown(gone)
    assert "Gone" in html
    assert "/zip" not in html


def test_F54_words_of_others_are_text(tmp_path: Path) -> None:
    parity = {
        **SAME,
        "same": False,
        "problems": [HOSTILE],
        "replies": [{"prompt": HOSTILE, "before": HOSTILE, "after": f"{HOSTILE}\u202e"}],
    }
    out = tmp_path / HOSTILE.replace("/", "")
    html = shown(job(out, done(out, parity), label=HOSTILE), Push(HOSTILE, True, "failed", error=HOSTILE))
    assert "<img" not in html
    assert 'onerror="' not in html
    assert "\u202e" not in html


@pytest.mark.parametrize(
    ("push", "words"),
    [
        (Push("me/it", True, "running"), ["Asking the hub", "data-push-stop"]),
        (
            Push("me/it", True, "running", 50, 200, "a.gguf", 25.0),
            ["Sending a.gguf", "50 bytes / 200 bytes", "6.0 s left"],
        ),
        (Push("me/it", True, "finished", url="https://hub/me/it"), ['href="https://hub/me/it"', 'data-again="yes"']),
        (Push("me/it", False, "stopped"), ["goes on where it was", 'data-private="no"', 'data-repo="me/it"']),
        (Push("me/it", True, "failed", error="No.", hint="Yes."), ["No. Yes.", "data-push-form"]),
    ],
)
def test_a_push_is_told(tmp_path: Path, push: Push, words: list[str]) -> None:
    html = shown(job(tmp_path / "out", done(tmp_path / "out", SAME)), push)
    for one in words:
        assert one in html
    assert ("data-push-form" in html) is (push.state != "running")


def test_what_the_worker_noted_is_told_once(tmp_path: Path) -> None:
    parity = {**SAME, "same": False, "problems": ["It differs."]}
    notes = [Note("warning", "PEFT merges the whole model."), Note("warning", "It differs.")]
    html = shown(job(tmp_path / "out", *notes, done(tmp_path / "out", parity)))
    assert html.count("PEFT merges the whole model.") == 1
    assert html.count("It differs.") == 1


def test_durations_are_said_as_people_say_them() -> None:
    told = [exportview.duration(seconds) for seconds in (0.24, 12.4, 89.4, 600, 3 * 3600 + 300)]
    assert told == ["0.2 s", "12 s", "89 s", "10 min", "3 h 05 min"]


def test_the_number_format_that_was_chosen_stands_in_the_title(tmp_path: Path) -> None:
    found = job(tmp_path / "out", done(tmp_path / "out", SAME), format="gguf")
    chosen = replace(found, config=found.config.model_copy(update={"quantization": "q4_k_m"}))
    assert exportview.label(found) == "A run, GGUF"
    assert exportview.label(chosen) == "A run, GGUF (q4_k_m)"


def test_what_llama_cpp_made_is_told_with_what_it_was_given(tmp_path: Path) -> None:
    made = {**SAME, "greedy_match": 0.84, "proven": "bf16", "proven_diff": 0.2}
    html = shown(job(tmp_path / "out", done(tmp_path / "out", made), format="gguf"))
    assert "Before llama.cpp&#x27;s quantizer, in bf16, they differ by 0.2 at most; the format explains 0.26" in html
