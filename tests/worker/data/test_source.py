"""Rows of a dataset, whatever it is made of: in order, by page, single ones, with their files and lines."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.worker.data import source as source_module
from studio.worker.data.source import Cancelled, FilesSource, Source, layouts, open_source

ROWS = [{"text": f"row {number}", "more": 'ü, "quoted"\nline'} for number in range(300)]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    """The rows in a file of the kind its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffixes[0]
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)
        return path
    if kind == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=64)
        return path
    if kind == ".json":
        text = json.dumps(rows, indent=1)
    elif kind == ".jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        mark = "\t" if kind == ".tsv" else ","
        quoted = [[f'"{value}"'.replace('"', '""')[1:-1] for value in row.values()] for row in rows]
        lines = [mark.join(rows[0])] + [mark.join(values) for values in quoted]
        text = "\n".join(lines) + "\n"
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = zstandard.ZstdCompressor().compress(data)
    path.write_bytes(data)
    return path


def of(path: Path, **fields: object) -> Source:
    return open_source(DatasetInput(path.name, str(path), **fields))  # type: ignore[arg-type]


def good(source: Source) -> list[object]:
    lines = list(source.iterate())
    assert [line.problem for line in lines if line.problem] == []
    assert [line.position for line in lines] == list(range(len(lines)))
    return [line.row for line in lines]


KINDS = ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv", "a.parquet", "a.arrow"]
PACKED = ["a.jsonl.gz", "a.jsonl.zst", "a.json.gz", "a.csv.zst"]


@pytest.mark.parametrize("name", KINDS + PACKED)
def test_every_kind_gives_its_rows_in_order_by_page_and_singly(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name.replace(".ndjson", ".jsonl"), ROWS)
    if name == "a.ndjson":
        path = path.rename(tmp_path / name)
    source = of(path)
    assert source.page(0, 7) == list(islice(source.iterate(), 7))
    assert good(source) == ROWS
    heard: list[int | None] = []
    source.build_index(lambda text, done, total: heard.append(done))
    assert source.indexed and source.total == 300
    assert heard[-1] == source.bytes
    every = list(source.iterate())
    for start in (0, 1, 63, 64, 65, 250, 299):
        assert source.page(start, 50) == every[start : start + 50]
    assert source.page(300, 10) == []
    wanted = [299, 0, 5, 6, 7, 64, 63, 150, 150]
    assert list(source.rows(wanted)) == [every[position] for position in wanted]
    again = of(path)
    assert again.indexed and again.total == 300 and again.page(200, 1) == every[200:201]


@pytest.mark.parametrize("position", [-1, 300, 10**9])
def test_rows_that_there_are_not(tmp_path: Path, position: int) -> None:
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(IndexError):
            list(of(write(tmp_path / name, ROWS)).rows([position]))


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    source = of(write(tmp_path / "a.jsonl", ROWS), limit=10)
    assert good(source) == ROWS[:10]
    source.build_index()
    assert source.total == 10 and len(source.page(8, 5)) == 2
    with pytest.raises(IndexError):
        list(source.rows([10]))
    assert of(tmp_path / "a.jsonl", limit=11).fingerprint() != source.fingerprint()


def test_a_folder_is_all_its_files_sorted_with_each_rows_file(tmp_path: Path) -> None:
    write(tmp_path / "d" / "b.jsonl", ROWS[:3])
    write(tmp_path / "d" / "a.csv", ROWS[3:5])
    write(tmp_path / "d" / "in" / "b.jsonl", ROWS[5:6])
    for ignored in (".hidden.jsonl", "dataset_info.json", "README.md", "evil.py", "x.png", ".git/a.jsonl"):
        (tmp_path / "d" / ignored).parent.mkdir(exist_ok=True)
        (tmp_path / "d" / ignored).write_text('{"text": "never"}\n')
    source = of(tmp_path / "d")
    assert good(source) == [*ROWS[3:5], *ROWS[:3], *ROWS[5:6]]
    assert [line.where for line in source.iterate()] == [
        "d/a.csv:2", "d/a.csv:4", "d/b.jsonl:1", "d/b.jsonl:2", "d/b.jsonl:3", "in/b.jsonl:1",
    ]  # fmt: skip
    every = list(source.iterate())
    assert list(source.rows([5, 0, 3, 2])) == [every[at] for at in (5, 0, 3, 2)]
    assert source.page(1, 3) == every[1:4]
    assert list(source.iterate(4)) == every[4:]


def test_S18_code_beside_data_is_never_imported(tmp_path: Path) -> None:
    write(tmp_path / "d" / "a.jsonl", ROWS[:1])
    for name in ("evil.py", "d.py", "__init__.py", "conftest.py"):
        (tmp_path / "d" / name).write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()")
    assert good(of(tmp_path / "d")) == ROWS[:1]
    assert not (tmp_path / "canary").exists()
    assert not any(str(tmp_path) in str(getattr(module, "__file__", "")) for module in list(sys.modules.values()))


def test_a_folder_of_splits_is_asked_about(tmp_path: Path) -> None:
    for name in ("train-0.jsonl", "train-1.jsonl", "test.jsonl"):
        write(tmp_path / "d" / name, ROWS[:2])
    with pytest.raises(DataError, match="several splits: test, train"):
        of(tmp_path / "d")
    assert len(good(of(tmp_path / "d", split="train"))) == 4
    assert len(good(of(tmp_path / "d", split="test"))) == 2
    with pytest.raises(DataError):
        of(tmp_path / "d", split="validation")


@pytest.mark.parametrize("shards", [1, 3])
def test_folders_that_datasets_has_saved_are_read(tmp_path: Path, shards: int) -> None:
    import datasets

    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(str(tmp_path / "one"), num_shards=shards)
    assert good(of(tmp_path / "one")) == ROWS
    parts = datasets.DatasetDict({"train": whole.select(range(9)), "test": whole.select(range(9, 12))})
    parts.save_to_disk(str(tmp_path / "dict"))
    with pytest.raises(DataError, match="several splits: train, test"):
        of(tmp_path / "dict")
    assert good(of(tmp_path / "dict", split="test")) == ROWS[9:12]
    datasets.DatasetDict({"only": whole}).save_to_disk(str(tmp_path / "single"))
    assert good(of(tmp_path / "single")) == ROWS


def test_what_is_no_dataset_is_refused_with_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.exe").write_bytes(b"MZ")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1 and no more")
    for name in ("empty", "a.exe", "nowhere.jsonl", "bad.parquet", "bad.arrow"):
        with pytest.raises(DataError) as raised:
            of(tmp_path / name)
        assert raised.value.message and raised.value.hint


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet", "a.arrow", "a.jsonl.gz"])
def test_F32_nothing_in_it_is_0_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    empty = pa.table({"text": pa.array([], pa.string())})
    if name == "a.parquet":
        pq.write_table(empty, path)
    elif name == "a.arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, empty.schema):
            pass
    else:
        path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"text\n" if name == "a.csv" else b"")
    source = of(path)
    assert list(source.iterate()) == [] and source.page(0, 10) == []
    source.build_index()
    assert source.total == 0 and source.page(0, 10) == [] and list(source.rows([])) == []


def test_F37_another_content_has_another_fingerprint_and_hash(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS[:5])
    source = of(path)
    source.build_index()
    before, hashed = source.fingerprint(), source.sha256()
    assert of(path).fingerprint() == before and of(path).sha256() == hashed
    stat = path.stat()
    path.write_text(path.read_text().replace("row 1", "row 2"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert of(path).fingerprint() != before and of(path).sha256() != hashed
    assert not of(path).indexed


def test_a_stopped_index_is_cancelled_and_kept_nowhere(tmp_path: Path) -> None:
    source = of(write(tmp_path / "a.jsonl", ROWS))
    with pytest.raises(Cancelled):
        source.build_index(stopped=lambda: True)
    assert not of(tmp_path / "a.jsonl").indexed


def test_a_page_out_of_reach_without_an_index_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_AT_HAND", 0)
    source = of(write(tmp_path / "a.jsonl", ROWS))
    assert source.page(250, 10) == []
    assert source.total is None
    source.build_index()
    assert len(source.page(250, 10)) == 10


def test_scanning_tells_rows_passed_over_by_their_bytes(tmp_path: Path) -> None:
    source = of(write(tmp_path / "a.jsonl", ROWS))
    found = list(source.scan(0, lambda raw: b"row 7" in raw))
    assert len(found) == 300
    assert [line.row for line in found if line is not None] == [row for row in ROWS if row["text"].startswith("row 7")]


def test_F33_a_layout_for_each_part(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", [{"text": "x"}])
    two = tmp_path / "b.jsonl"
    two.write_text('{bad\n{"prompt": "p", "completion": "c"}\n')
    parts = (DatasetInput("a", str(one)), DatasetInput("b", str(two)))
    chosen = layouts(DatasetSection(), open_source(DatasetInput("m", kind="mix", parts=parts)))
    assert [layout.format.name for layout in chosen] == ["text", "prompt_completion"]
    assert len(layouts(DatasetSection(), open_source(parts[0]))) == 1


Make = Callable[[str], Path]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [write(tmp_path / name / "rows.jsonl", ROWS[:1]) for name in ("x", "y")]
    source = FilesSource(DatasetInput("two"), paths)
    assert [line.file for line in source.iterate()] == ["x/rows.jsonl", "y/rows.jsonl"]
    assert replace(next(source.iterate()), file="").where == 1
