"""Rows come back from jsonl and parquet as they went in, or there is no file and a next step."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.errors import DataError
from studio.worker.data.rowfile import RowWriter, to_parquet
from studio.worker.data.source import Cancelled

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    with RowWriter(path) as file:
        for row in rows:
            file.write(row)
    assert file.count == len(rows)
    return path


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), max_size=5))
def test_any_json_comes_back_line_by_line(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    finite = json.loads(json.dumps(rows), parse_constant=lambda _: None)
    path = written(tmp_path_factory.mktemp("rows") / "rows.jsonl", rows)
    lines = path.read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == finite


def test_what_json_cannot_say_is_written_as_near_as_can_be(tmp_path: Path) -> None:
    row = {
        "day": datetime.date(2026, 11, 22),
        "took": datetime.timedelta(seconds=90),
        "price": decimal.Decimal("1.10"),
        "scores": [float("nan"), 0.5],
        "half": "\ud800",
    }
    path = written(tmp_path / "rows.jsonl", [row])
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "day": "2026-11-22", "took": 90.0, "price": "1.10", "scores": [None, 0.5], "half": "\ud800",
    }  # fmt: skip
    with pytest.raises(DataError, match="bytes"):
        written(path, [{"image": b"\x89PNG"}])


def test_nested_rows_with_fields_that_only_some_have_fit_into_parquet(tmp_path: Path) -> None:
    plain = {"messages": [{"role": "user", "content": "hi"}], "id": 1}
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "arguments": "{}"}], "nothing": None}
    other = {"messages": [call, {"role": "user", "content": "x", "extra": {}}], "score": 0.5, "id": 2.5}
    path = to_parquet(written(tmp_path / "rows.jsonl", [plain] * 1500 + [other]))
    assert path.name == "rows.parquet" and not (tmp_path / "rows.jsonl").exists()
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == 1501

    def without_null(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_null(inner) for name, inner in value.items() if inner is not None}
        return [without_null(inner) for inner in value] if isinstance(value, list) else value

    assert without_null(rows[0]) == plain
    bare_call = {name: value for name, value in call.items() if value is not None}
    bare = {"messages": [bare_call, {"role": "user", "content": "x"}], "score": 0.5, "id": 2.5}
    assert without_null(rows[-1]) == bare


@pytest.mark.parametrize(
    "rows",
    [
        [{"a": "text"}, {"a": 1}],
        [{"a": [1]}, {"a": 1}],
        [{"a": [{"b": {"c": 1}}]}, {"a": [{"b": "x"}]}],
        [{"a": 2**70}],
        [{"a": "text"}] * 1200 + [{"a": {"b": 1}}],
    ],
)
def test_types_that_contradict_each_other_are_told_with_the_way_out(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = written(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError) as caught:
        to_parquet(path)
    assert "jsonl" in caught.value.hint
    assert not (tmp_path / "rows.parquet").exists()


def test_making_parquet_stops_when_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", [{"a": 1}] * 10)
    with pytest.raises(Cancelled):
        to_parquet(path, stopped=lambda: True)
