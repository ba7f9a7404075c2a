"""Pages as the window gets them: cut to size, by positions, with the layout or the question about it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.core.rows import Line
from studio.worker.data import pages
from studio.worker.data.pages import as_dict, columns_op, index_op, page_op, row_op


def hear(_: dict[str, Any]) -> None:
    """Progress that nobody looks at."""


def dataset(path: Path, **fields: Any) -> dict[str, Any]:
    return asdict(DatasetInput(path.name, str(path), **fields))


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"prompt": "p{at}", "completion": "c"}}\n' for at in range(500)) + "bad\n")
    return dataset(path)


def test_L05_any_page_before_and_after_the_index(rows: dict[str, Any]) -> None:
    first = page_op({"dataset": rows, "start": 0, "size": 1000}, hear)
    assert len(first["lines"]) == 100 and first["total"] is None and not first["indexed"]
    told: list[dict[str, Any]] = []
    assert index_op({"dataset": rows}, told.append) == {"total": 501}
    assert told and set(told[0]) == {"text", "done", "total"}
    late = page_op({"dataset": rows, "start": 499, "size": 10}, hear)
    assert late["total"] == 501 and late["indexed"]
    assert late["lines"][0] == {
        "position": 499, "number": 500, "where": 500, "file": "", "part": 0,
        "row": {"prompt": "p499", "completion": "c"}, "cut": False, "problem": "", "kind": "",
    }  # fmt: skip
    assert late["lines"][1]["kind"] == "unreadable" and late["lines"][1]["row"] is None


def test_a_page_of_positions(rows: dict[str, Any], tmp_path: Path) -> None:
    np.save(tmp_path / "found.npy", np.array([3, 1, 400, 77], np.uint64))
    request = {"dataset": rows, "positions": str(tmp_path / "found.npy"), "start": 1, "size": 2}
    page = page_op(request, hear)
    assert [line["position"] for line in page["lines"]] == [1, 400] and page["total"] == 4
    assert page_op({**request, "start": 9}, hear)["lines"] == []
    with pytest.raises(DataError, match="no longer in the cache"):
        page_op({**request, "positions": str(tmp_path / "gone.npy")}, hear)


@pytest.mark.parametrize("indexed", [False, True])
def test_one_row_is_nearly_whole(tmp_path: Path, indexed: bool) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": str(at) * 30_000}) + "\n" for at in range(3)))
    if indexed:
        index_op({"dataset": dataset(path)}, hear)
    line = row_op({"dataset": dataset(path), "position": 2}, hear)
    assert line["row"] == {"text": "2" * 30_000} and not line["cut"] and line["number"] == 3
    assert page_op({"dataset": dataset(path), "start": 2, "size": 1}, hear)["lines"][0]["cut"]
    for position in (3, -1):
        with pytest.raises(DataError, match="no row"):
            row_op({"dataset": dataset(path), "position": position}, hear)


def test_a_file_that_changes_is_read_anew(rows: dict[str, Any]) -> None:
    assert index_op({"dataset": rows}, hear)["total"] == 501
    with Path(rows["path"]).open("a") as file:
        file.write('{"prompt": "new", "completion": "c"}\n')
    assert not page_op({"dataset": rows, "start": 0, "size": 1}, hear)["indexed"]
    assert index_op({"dataset": rows}, hear)["total"] == 502


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.text("é\ud800\n", max_size=5000),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(st.text(max_size=300), inner, max_size=30),
    max_leaves=60,
)


@given(JSON, st.sampled_from([(20, 100), (2000, 20_000)]))
def test_L05_no_row_is_larger_than_its_bound_and_each_can_be_sent(row: Any, bounds: tuple[int, int]) -> None:
    cell, whole = bounds
    line = as_dict(Line(1, row), cell, whole)
    sent = json.dumps(line["row"], ensure_ascii=False, allow_nan=False).encode()
    assert len(sent) <= 2 * whole + 1000
    if not line["cut"] and isinstance(row, str):
        assert line["row"] == row.encode("utf-8", "replace").decode()


def test_a_long_text_is_cut_and_said_to_be() -> None:
    line = as_dict(Line(1, {"a": "x" * 5000, "b": "short"}), 2000, 20_000)
    assert line["row"] == {"a": "x" * 2000 + "…", "b": "short"} and line["cut"]
    many = as_dict(Line(1, {"a": ["y" * 1000] * 100}), 2000, 20_000)
    assert many["cut"] and 15 <= len(many["row"]["a"]) <= 40


def test_columns_name_the_layout_or_ask(rows: dict[str, Any], tmp_path: Path) -> None:
    answer = columns_op({"dataset": rows}, hear)
    assert answer["columns"] == ["prompt", "completion"] and answer["format"] == "prompt_completion"
    assert answer["question"] is None and "prompt_completion" in answer["fitting"] and len(answer["sample"]) == 3
    (tmp_path / "b.jsonl").write_text('{"foo": 1}\n')
    (tmp_path / "c.jsonl").write_text("[1]\n")
    (tmp_path / "d.jsonl").write_text("")
    for name in ("b", "c", "d"):
        answer = columns_op({"dataset": dataset(tmp_path / f"{name}.jsonl")}, hear)
        assert answer["format"] is None and answer["question"]


def test_the_process_that_turns_pages_starts_light() -> None:
    heavy = ["torch", "transformers", "datasets", "pandas", "gradio", "sklearn"]
    code = "import sys, studio.worker.data.pages, studio.worker.data.search, studio.worker.data.hub;"
    code += f"print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_few_sources_are_kept_open(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.jsonl").write_text('{"a": 1}\n')
        page_op({"dataset": dataset(tmp_path / f"{number}.jsonl")}, hear)
    assert len(pages._opened) <= 8
