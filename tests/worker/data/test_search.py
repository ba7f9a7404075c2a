"""Searching: what is found by bytes and parsing together is what reading every row finds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.inputs import DatasetInput
from studio.worker.data.search import Wanted, roles_of, search_op, text_of

CHAT = [
    {"messages": [{"role": "user", "content": "Wie geht's?"}, {"role": "assistant", "content": "Gut, danke."}]},
    {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": 'STRASSE "A/b" größer'}]},
    {"conversations": [{"from": "human", "value": "user"}], "note": None, "n": 3},
    "bad",
    {"text": "a long text " * 50},
]


def dataset(folder: Path, escaped: bool = True) -> dict[str, Any]:
    path = folder / "a.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=escaped) for row in CHAT]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return asdict(DatasetInput("a", str(path)))


def search(dataset: dict[str, Any], **wanted: Any) -> list[int]:
    answer = search_op({"dataset": dataset, "section": {}, **wanted}, lambda part: None)
    found = np.load(answer["positions"]).tolist()
    assert answer["count"] == len(found) and answer["complete"]
    return [int(position) for position in found]


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"text": "danke"}, [0]),
        ({"text": "GRÖSSER"}, []),
        ({"text": "GRÖßER"}, [1]),
        ({"text": '"a/B"'}, [1]),
        ({"text": "user"}, [2]),  # names of roles are no text
        ({"role": "user"}, [0, 1]),
        ({"role": "System"}, [1]),
        ({"role": "human"}, [2]),
        ({"longer": 100}, [4]),
        ({"shorter": 4}, [2]),
        ({"longer": 5, "shorter": 60, "role": "user", "text": "e"}, [0, 1]),
        ({}, [0, 1, 2, 3, 4]),
        ({"text": "nowhere"}, []),
    ],
)
def test_rows_that_fit_are_found(tmp_path: Path, escaped: bool, wanted: dict[str, Any], found: list[int]) -> None:
    assert search(dataset(tmp_path, escaped), **wanted) == found


def test_rows_of_a_kind_of_problem_are_found_among_the_findings(tmp_path: Path) -> None:
    np.save(tmp_path / "duplicate.npy", np.array([1, 4], np.uint64))
    given = {"findings": str(tmp_path), "kind": "duplicate"}
    assert search(dataset(tmp_path), **given) == [1, 4]
    assert search(dataset(tmp_path), **given, text="kind") == [1]
    assert search(dataset(tmp_path), **{**given, "kind": "leak"}) == []
    assert search(dataset(tmp_path), **{**given, "kind": "../duplicate"}) == [1, 4]


def test_a_language_or_a_script_is_found(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    rows = [
        "The weather is lovely today and we should go for a walk.",
        "Сегодня прекрасная погода, пойдём гулять в парк.",
    ]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    given = asdict(DatasetInput("b", str(path)))
    assert search(given, language="Cyrillic") == [1]
    assert search(given, language="en") == [0]


def test_what_was_found_is_kept_and_progress_is_told(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    request = {"dataset": dataset(tmp_path), "section": {}, "text": "danke"}
    first = search_op(request, told.append)
    assert told[0]["text"] == "Searching"
    told.clear()
    assert search_op(request, told.append) == first and not told


def test_stopping_is_heard_and_nothing_half_is_kept(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: dict[str, Any]) -> None:
        raise Stop

    request = {"dataset": dataset(tmp_path), "section": {}, "text": "danke"}
    with pytest.raises(Stop):
        search_op(request, stop)
    assert search(request["dataset"], text="danke") == [0]


LETTERS = st.text(st.sampled_from('abKkİiSsß\u212a "\\/\n\té'), max_size=6)


@given(
    LETTERS,
    st.recursive(LETTERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner)),
    st.booleans(),
)
def test_no_row_that_fits_is_passed_over_by_its_bytes(needle: str, row: Any, escaped: bool) -> None:
    wanted = Wanted(text=needle.strip())
    passing = wanted.passing()
    raw = json.dumps({"text": row}, ensure_ascii=escaped).encode()
    if wanted.text.lower() in text_of({"text": row}).lower() and passing is not None:
        assert passing(raw)


def test_texts_and_roles_of_any_row() -> None:
    assert text_of({"a": ["x", {"role": "user", "b": "y"}, 3, None], "c": "z"}) == "x\ny\nz"
    assert text_of("plain") == "plain" and text_of(7) == ""
    assert roles_of({"m": [{"role": "User"}, {"from": "gpt", "x": [{"role": 3}]}]}) == {"user", "gpt"}
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert text_of(deep) == "x" and roles_of(deep) == set()
