"""Parquet and arrow: rows by batches, values that JSON can say, damage told by its rows."""

from __future__ import annotations

import datetime
import decimal
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studio.core.errors import DataError
from studio.worker.data.columnar import Columnar, plain

COUNT = 2000


def table() -> pa.Table:
    return pa.table({"text": [f"row {at} " + "x" * (at % 50) for at in range(COUNT)], "n": list(range(COUNT))})


def parquet(path: Path, size: int = 700) -> Path:
    pq.write_table(table(), path, row_group_size=size)
    return path


def arrow(path: Path, stream: bool) -> Path:
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as sink, make(sink, table().schema) as writer:
        writer.write_table(table(), max_chunksize=300)
    return path


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_rows_in_order_and_singly(tmp_path: Path, kind: str) -> None:
    path = parquet(tmp_path / "a.parquet") if kind == "parquet" else arrow(tmp_path / "a.arrow", kind == "stream")
    file = Columnar(path)
    assert file.total == COUNT
    expected = table().to_pylist()
    lines = list(file.iterate())
    assert [line.row for line in lines] == expected
    assert [line.number for line in lines] == list(range(1, COUNT + 1))
    assert [line.position for line in lines] == list(range(COUNT))
    for start in (1, 255, 256, 299, 300, 700, 1999):
        assert next(file.iterate(start)) == lines[start]
    wanted = [1999, 0, 1, 700, 699, 255, 256, 256]
    assert list(file.at(wanted)) == [lines[at] for at in wanted]
    assert list(file.iterate(COUNT)) == []


def test_a_batch_is_all_that_is_read_of_a_row_group(tmp_path: Path) -> None:
    file = Columnar(parquet(tmp_path / "a.parquet", COUNT))
    batches = list(file._file.batches(0, 1000))
    assert max(batch.num_rows for batch in batches) <= 256
    assert sum(batch.num_rows for batch in batches) == COUNT - 1000


def test_what_json_cannot_say_is_put_into_words(tmp_path: Path) -> None:
    row = {
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
        "day": datetime.date(2026, 1, 2),
        "price": decimal.Decimal("1.50"),
        "raw": b"\xff\x00",
        "image": {"bytes": b"x" * 100},
        "many": [{"when": datetime.date(2026, 1, 2)}],
    }
    for name in ("a.parquet", "a.arrow"):
        path = tmp_path / name
        if name == "a.parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            with pa.OSFile(str(path), "wb") as sink:
                found = pa.Table.from_pylist([row])
                with pa.ipc.new_stream(sink, found.schema) as writer:
                    writer.write_table(found)
        line = next(Columnar(path).iterate())
        assert line.row == {
            "when": "2026-01-02T03:04:05",
            "day": "2026-01-02",
            "price": "1.50",
            "raw": "/wA=",
            "image": {"bytes": "(100 bytes)"},
            "many": [{"when": "2026-01-02"}],
        }
        assert json.loads(json.dumps(line.row)) == line.row
    assert plain({1: (2, datetime.timedelta(seconds=3))}) == {"1": [2, 3.0]}


def test_F31_a_text_that_is_no_utf8_costs_its_row_only(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"caf\xe9", b"also good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    lines = list(Columnar(tmp_path / "a.parquet").iterate())
    assert [(line.number, line.row, line.kind) for line in lines] == [
        (1, {"text": "good"}, ""), (2, None, "encoding"), (3, {"text": "also good"}, ""),
    ]  # fmt: skip
    assert [line.position for line in lines] == [0, 1, 2]


def test_damage_inside_a_parquet_file_is_told_and_other_row_groups_are_read(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet")
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
    data = bytearray(path.read_bytes())
    data[place : place + 60] = b"\xff" * 60
    path.write_bytes(data)
    lines = list(Columnar(path).iterate())
    assert [line.position for line in lines] == list(range(COUNT))
    bad = [line for line in lines if line.problem]
    assert {line.kind for line in bad} == {"unreadable"}
    assert [line.number for line in bad] == list(range(701, 1401))
    assert [line.row for line in lines[1400:]] == table().to_pylist()[1400:]


def test_a_cut_file_is_refused_with_its_kind(tmp_path: Path) -> None:
    for path, kind in ((parquet(tmp_path / "a.parquet"), "parquet"), (arrow(tmp_path / "b.arrow", True), "arrow")):
        path.write_bytes(path.read_bytes()[:-3000])
        with pytest.raises(DataError, match=f"can't be read as {kind}"):
            Columnar(path)
