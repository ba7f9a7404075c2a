"""Anything at all, given to every reader: a counted answer or a DataError, never a traceback, never a hang.

Each row of what was good and is still whole is found again; every non-blank line of jsonl is a row or a problem.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.core.rows import BLANK
from studio.worker.data import pages
from studio.worker.data.pages import columns_op, index_op, page_op
from studio.worker.data.search import search_op
from studio.worker.data.source import open_source

ROWS = [{"text": f"größe {number}\n", "n": number, "x": {"y": [None, "\\", '"']}} for number in range(40)]
SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".txt", ".md", ".jsonl.gz", ".json.gz", ".jsonl.zst", ".csv.zst"]
SUFFIXES += [".parquet", ".arrow"]
pytestmark = pytest.mark.timeout(240)


@cache
def good(suffix: str) -> bytes:
    """A good file of the kind."""
    kind, table = "." + suffix.split(".")[1], pa.Table.from_pylist(ROWS)
    sink = io.BytesIO()
    if kind == ".parquet":
        pq.write_table(table, sink, row_group_size=15)
    elif kind == ".arrow":
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=15)
    elif kind == ".json":
        sink.write(json.dumps(ROWS, indent=1).encode())
    elif kind == ".jsonl":
        sink.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode())
    else:
        mark = "\t" if kind == ".tsv" else ","
        sink.write(f"text{mark}n\n".encode() + "".join(f'"größe\n{at}"{mark}{at}\n\n' for at in range(40)).encode())
    data = sink.getvalue()
    if suffix.endswith(".gz"):
        return gzip.compress(data, mtime=0)
    return zstandard.ZstdCompressor().compress(data) if suffix.endswith(".zst") else data


@st.composite
def mutated(draw: st.DrawFn, suffix: str) -> bytes:
    """A good file with some bytes changed, cut out, doubled or put in."""
    data = bytearray(good(suffix))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.sampled_from([0, 1, 1, 2, 7, 60, 5000]))
        put = draw(
            st.sampled_from([b"", b"\x00", b"\xff", b'"', b"\n", b"\r", b"[", b"}", b",", b"\\"])
            | st.binary(max_size=9)
        )
        data[at : at + size] = data[at : at + size] * 2 if draw(st.booleans()) and size else put
    return bytes(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def anything(suffix: str) -> st.SearchStrategy[bytes]:
    pieces = st.lists(
        st.sampled_from([b"{", b"}", b"[", b"]", b'"', b",", b"\n", b"\r", b"\\", b"\xff", b"\x00", b":a"])
    )
    random = st.binary(max_size=200) | pieces.map(b"".join)
    values = st.lists(JSON, max_size=5).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
    whole = st.one_of(JSON.map(lambda row: json.dumps(row, indent=1).encode()), values, random)
    if suffix.endswith(".gz"):
        whole = whole | whole.map(lambda data: gzip.compress(data, mtime=0))
    if suffix.endswith(".zst"):
        whole = whole | whole.map(zstandard.ZstdCompressor().compress)
    return mutated(suffix) | whole


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_file_breaks_the_readers(suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = data.draw(anything(suffix))
    path = tmp_path_factory.mktemp("any") / f"rows{suffix}"
    path.write_bytes(content)
    dataset = DatasetInput("rows", str(path))
    try:
        lines = list(open_source(dataset).iterate())
    except DataError as error:
        assert error.message and error.hint
        return
    assert [line.position for line in lines] == list(range(len(lines)))
    assert all(bool(line.problem) == bool(line.kind) and line.number >= 1 for line in lines)
    asked: dict[str, Any] = {"dataset": asdict(dataset), "section": {}}
    pages._opened.clear()
    assert index_op(asked, lambda part: None) == {"total": len(lines)}
    page = page_op({**asked, "start": 1, "size": 50}, lambda part: None)
    json.dumps(page, allow_nan=False, ensure_ascii=False).encode()
    expected = [(line.position, line.number, line.problem) for line in lines[1:51]]
    assert [(line["position"], line["number"], line["problem"]) for line in page["lines"]] == expected
    columns_op(asked, lambda part: None)
    found = search_op({**asked, "text": "größe"}, lambda part: None)["count"]
    assert found <= sum(not line.problem for line in lines)
    singles = list(open_source(dataset).rows(range(len(lines) - 1, -1, -1)))
    assert [(line.position, line.number, line.problem) for line in singles] == [
        (line.position, line.number, line.problem) for line in reversed(lines)
    ]


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=mutated(".jsonl") | st.binary(max_size=99))
def test_each_line_of_jsonl_is_a_row_or_a_problem(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    path.write_bytes(b'{"first": 1}\n' + data)
    lines = list(open_source(DatasetInput("rows", str(path))).iterate())
    filled = [at for at, raw in enumerate(path.read_bytes().split(b"\n"), start=1) if raw.strip(BLANK)]
    assert [line.number for line in lines] == filled
    for line in lines:
        if line.problem:
            with pytest.raises(Exception):  # noqa: B017 - whatever json makes of such bytes
                text = path.read_bytes().split(b"\n")[line.number - 1].decode()
                json.dumps(json.loads(text), ensure_ascii=False).encode()


MEMORY = """
import json, resource, sys
from studio.core.inputs import DatasetInput
from studio.worker.data.source import open_source
source = open_source(DatasetInput("big", sys.argv[1]))
source.page(0, 10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(not line.problem for line in source.iterate())
source.build_index()
page = [line.row["id"] for line in source.page(max(source.total - 5, 0), 10)]
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([rows, source.total, page, grown / 1024]))
"""


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "csv", "parquet"])
def test_F35_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    size = 200 if kind in ("jsonl", "json") else 60
    path, count = tmp_path / f"big.{kind}", size * 2**20 // 2100
    text = "the quick brown fox, it said, jumps " * 56
    if kind == "parquet":
        with pq.ParquetWriter(path, pa.schema({"id": pa.int64(), "text": pa.string()})) as writer:
            table = pa.table({"id": list(range(count)), "text": [f"{at} {text}" for at in range(count)]})
            writer.write_table(table, row_group_size=count)
    else:
        with gzip.open(path, "wt", compresslevel=1) if kind.endswith("gz") else path.open("w") as file:
            file.write({"json": "[\n", "csv": "id,text\n"}.get(kind, ""))
            for at in range(count):
                row = json.dumps({"id": at, "text": f"{at} {text}"})
                end = "]" if at == count - 1 else ","
                file.write({"json": f"{row}{end}\n", "csv": f'{at},"{text}"\n'}.get(kind, f"{row}\n"))
    done = subprocess.run([sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True)
    rows, total, page, grown = json.loads(done.stdout)
    assert rows == total == count and [int(at) for at in page] == list(range(count - 5, count))
    assert grown < 100


def test_S17_F36_bombs_are_named_in_bounded_memory(tmp_path: Path) -> None:
    deep, huge = "[" * 100_000, "x" * (100 * 2**20)
    cases = {
        "a.jsonl": (f'{{"id": 1}}\n{{"id": "{huge}"}}\n{deep}\n{{"id": 2}}\n', ["", "too_big", "unreadable", ""]),
        "a.json": (f'[{{"id": 1}},{{"id": "{huge}"}},{{"id": 2}}]', ["", "too_big", ""]),
        "a.csv": (f"id\n1\n{huge}\n2\n", ["", "too_big", ""]),
        "a.txt": (f"1\n\n{huge}\n\n2\n", ["", "too_big", ""]),
        "b.json": (f'[{{"id": 1}},{deep}{"]" * 100_000},{{"id": 2}}]', ["", "unreadable", ""]),
    }
    code = MEMORY.replace("sum(not line.problem for line in source.iterate())", "[l.kind for l in source.iterate()]")
    code = code.replace('line.row["id"] for line', "line.kind for line")
    for name, (text, kinds) in cases.items():
        (tmp_path / name).write_text(text)
        command = [sys.executable, "-c", code, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        rows, total, _, grown = json.loads(done.stdout)
        assert rows == kinds and total == len(kinds)
        assert grown < 150
        (tmp_path / name).unlink()
