"""A check's report as HTML: every kind is counted and shown, and says whether and how its rows are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.core.problems import PROBLEMS
from studio.ui import checkview
from tests.ui.fake_desk import entry

QUESTION = {"model": "tiny", "max_length": 256}
TOKENS = {
    "counted": True, "total": 1000, "loss": 250, "longest": 90, "max_length": 256, "rows_cut": 3, "tokens_lost": 12,
    "rows_without_loss": 1,
}  # fmt: skip


def problem(kind: str, count: int = 1, example: Any = "an example", lines: Any = (7,)) -> dict[str, Any]:
    return {
        "kind": kind,
        "title": kind,
        "severity": PROBLEMS[kind].severity,
        "count": count,
        "lines": list(lines),
        "example": example,
    }


def report(folder: Path, *problems: dict[str, Any], rows: int = 100) -> dict[str, Any]:
    for place, one in enumerate(problems):
        np.save(folder / f"{one['kind']}.npy", np.arange(place * 10, place * 10 + one["count"]).astype("<u8"))
    return {"rows": rows, "usable": rows, "problems": list(problems), "tokens": TOKENS, "findings": str(folder)}


def test_every_kind_of_problem_says_how_it_is_left_out(tmp_path: Path) -> None:
    told = report(tmp_path, *[problem(kind) for kind in PROBLEMS], rows=1000)
    html = checkview.full(told, entry(exclude=("duplicate",)))
    for kind, about in PROBLEMS.items():
        assert f'data-show="{kind}"' in html
        assert (f'data-leave="{kind}"' in html) == (about.severity == "warning")
    assert html.count("always left out") == sum(about.severity == "error" for about in PROBLEMS.values())
    assert html.count(" checked") == 1
    assert 'data-leave="duplicate" checked' in html


def test_what_remains_follows_what_is_left_out(tmp_path: Path) -> None:
    told = report(tmp_path, problem("unreadable", 3), problem("duplicate", 4))
    for exclude, rows, left in (((), (), "97"), (("duplicate",), (), "93"), (("duplicate",), (10, 50), "92")):
        shown = checkview.strip(told, entry(exclude=exclude, exclude_rows=rows), QUESTION)
        assert f"{left} of 100 rows are learned from." in shown


@pytest.mark.parametrize(
    ("problems", "words"),
    [((), "All 100 rows are learned from. Nothing is wrong"), ((problem("null", 100),), "No row can be learned from.")],
)
def test_all_and_nothing_are_said_plainly(tmp_path: Path, problems: Any, words: str) -> None:
    assert words in checkview.strip(report(tmp_path, *problems), entry(), QUESTION)


def test_the_strip_shows_errors_and_warnings_and_leads_to_the_rest(tmp_path: Path) -> None:
    kinds = ["unreadable", "encoding", "null", "duplicate", "leak", "too_long"]
    counts = {"unreadable": 1, "encoding": 9, "null": 5, "duplicate": 2, "leak": 3, "too_long": 4}
    told = report(tmp_path, *[problem(kind, counts[kind]) for kind in kinds])
    html = checkview.strip(told, entry(), QUESTION)
    assert [kind for kind in kinds if f'data-show="{kind}"' in html] == ["encoding", "null", "leak", "too_long"]
    assert f"2 more: {PROBLEMS['unreadable'].title}, {PROBLEMS['duplicate'].title}<".replace("'", "&#x27;") in html
    few = report(tmp_path, problem("unreadable"), problem("duplicate"))
    assert 'data-section="check"' not in checkview.strip(few, entry(), QUESTION)
    only = report(tmp_path, *[problem(kind) for kind in ("duplicate", "leak", "too_long", "pii_email", "pii_phone")])
    assert checkview.strip(only, entry(), QUESTION).count("data-show") == checkview.IN_STRIP


@pytest.mark.parametrize("kind", PROBLEMS)
def test_what_to_do_is_said_without_the_names_of_settings(tmp_path: Path, kind: str) -> None:
    html = checkview.full(report(tmp_path, problem(kind)), entry())
    assert "dataset." not in html
    assert ('data-act="layout"' in html) == (kind in {"missing_column", "unknown_role"})


@pytest.mark.parametrize(
    ("lines", "count", "words"), [((7,), 1, "line 7<"), ((7, 9), 2, "lines 7, 9<"), (range(1, 11), 50, "10, …<")]
)
def test_the_first_lines_are_named(tmp_path: Path, lines: Any, count: int, words: str) -> None:
    html = checkview.strip(report(tmp_path, problem("duplicate", count, lines=lines)), entry(), QUESTION)
    assert words in html.replace('<bdi class="foreign">', "").replace("</bdi>", "")


@pytest.mark.parametrize("hostile", ["<img src=x onerror=alert(1)>", "\u202egnp", {"<b>": "</script>"}])
def test_examples_and_names_of_files_are_only_text(tmp_path: Path, hostile: Any) -> None:
    told = report(tmp_path, problem("duplicate", example=hostile, lines=[str(hostile)]))
    for html in (
        checkview.full(told, entry()),
        checkview.strip(told, entry(), {"model": str(hostile), "max_length": 8}),
    ):
        for tag in ("<img", "<script", "<b>", "\u202e"):
            assert tag not in html.replace("<b>Example</b>", "")


def test_by_whom_and_when_it_was_checked_is_said(tmp_path: Path) -> None:
    told = report(tmp_path)
    assert "checked for" in checkview.strip(told, entry(), QUESTION)
    assert "256 tokens on " in checkview.strip(told, entry(), QUESTION)
    assert "without a model" in checkview.strip(told, entry(), {"model": None, "max_length": 256})
    gone = checkview.strip({**told, "findings": str(tmp_path / "gone")}, entry(), QUESTION)
    assert "256 tokens on " not in gone


def test_tokens_are_told_where_they_were_counted(tmp_path: Path) -> None:
    html = checkview.full(report(tmp_path), entry())
    for words in ("1,000", "250 (25 %)", "rows cut at 256"):
        assert words in html
    assert "Choose a model" in checkview.full({**report(tmp_path), "tokens": {"counted": False}}, entry())


def test_rows_left_out_by_hand_can_be_taken_back(tmp_path: Path) -> None:
    assert "rows-back" not in checkview.full(report(tmp_path), entry())
    assert "2 single rows" in checkview.full(report(tmp_path), entry(exclude_rows=(1, 5)))
