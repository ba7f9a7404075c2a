"""Datasets in the list and in the head: what is known is said, and names are only text."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio.core.config import MixPart
from studio.core.formats import FORMATS
from studio.ui import datasetview
from tests.ui.fake_desk import entry


def test_the_list_names_each_once_and_says_whose_it_is(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "a"}\n\n{"text": "b"}\n', encoding="utf-8")
    listed = datasetview.dataset_list(
        [
            _at(file),
            entry("shipped", bundled=True),
            entry("far", kind="hub", split="train"),
            entry("both", kind="mix", parts=(MixPart(path="gone"),)),
        ]
    )
    assert [f'data-pick="{name}"' in listed for name in ("mine", "shipped", "far", "both")] == [True] * 4
    assert "2 rows" in listed
    assert "Its file is gone." in listed  # of the shipped one, whose path is nowhere
    for pill in ("yours", "hub", "mix"):
        assert f">{pill}</span>" in listed


def _at(file: Path) -> datasetview.DatasetEntry:
    return datasetview.DatasetEntry("mine", "Mine", file)


@pytest.mark.parametrize("hostile", ['"><img src=x onerror=alert(1)>', "\u202egnp.exe", "<script>x</script>"])
def test_names_and_descriptions_are_only_text(hostile: str) -> None:
    one = entry("some", title=hostile, description=hostile, licence=hostile, manner=hostile, source=hostile, kind="hub")
    for html in (datasetview.dataset_list([one]), datasetview.head(one, 3)):
        for part in ("<img", "<script>", "\u202e"):
            assert part not in html


def test_the_head_says_what_is_known_and_what_is_not_yet() -> None:
    assert "downloaded" in datasetview.head(entry(kind="hub"), None)
    assert "being counted" not in datasetview.head(entry(), None), "its file is nowhere"
    head = datasetview.head(entry(format="alpaca"), 12_345)
    assert "12,345" in head
    assert FORMATS["alpaca"].title in head
    assert "no licence given" in head


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "hub", "source": "owner/name", "config": "en", "split": "train"}, "owner/name · en · train"),
        ({"kind": "mix", "parts": (MixPart(path="a", weight=2), MixPart(path="b", weight=0.5))}, "a × 2 + b × 0.5"),
        ({}, "/nowhere/mine.jsonl"),
    ],
)
def test_where_it_comes_from_is_said(fields: dict[str, object], words: str) -> None:
    assert words in datasetview.head(entry(**fields), 1)


def test_two_of_one_title_are_told_apart() -> None:
    listed = datasetview.dataset_list([entry("chats", title="Chats"), entry("chats-2", title="Chats"), entry("other")])
    assert '<span class="under">chats, ' in listed
    assert '<span class="under">chats-2, ' in listed
    assert '<span class="under">other, ' not in listed


def test_where_a_copy_once_lay_is_not_said(tmp_path: Path) -> None:
    copy = datasetview.DatasetEntry("mine", "Mine", tmp_path / "rows.jsonl", source="/tmp/uploads/x", folder=tmp_path)
    assert "uploads" not in datasetview.head(copy, 1)


def test_what_the_page_keeps_is_what_a_change_is_made_of() -> None:
    known = datasetview.known(entry(exclude=("duplicate",), exclude_rows=(3,), columns={"text": "body"}, format="text"))
    assert (known["exclude"], known["exclude_rows"], known["columns"]) == (["duplicate"], [3], {"text": "body"})
    assert known["there"] is False
