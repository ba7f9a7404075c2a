"""Packed files: as streams, unpacked once, damaged, and hostile."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import zstandard

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.worker.data import unpack
from studio.worker.data.source import Cancelled, Source, open_source

ROWS = [{"text": f"row {number} {number * 7919 % 10007}"} for number in range(5000)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def pack(path: Path, text: bytes = TEXT) -> Path:
    packed = gzip.compress(text) if path.suffix == ".gz" else zstandard.ZstdCompressor().compress(text)
    path.write_bytes(packed)
    return path


def of(path: Path) -> Source:
    return open_source(DatasetInput(path.name, str(path)))


@pytest.mark.parametrize("end", ["gz", "zst"])
def test_rows_are_streamed_and_reached_once_unpacked(tmp_path: Path, end: str) -> None:
    path = pack(tmp_path / f"a.jsonl.{end}")
    source = of(path)
    assert [line.row for line in source.page(0, 5)] == ROWS[:5]
    assert not unpack.unpacked_copy(path).exists()
    assert [line.row for line in source.iterate()] == ROWS
    assert [line.row for line in source.rows([4321, 17])] == [ROWS[4321], ROWS[17]]
    copy = unpack.unpacked_copy(path)
    assert copy.read_bytes() == TEXT
    assert [line.row for line in of(path).iterate(4990)] == ROWS[4990:]
    shutil.rmtree(copy.parent)  # losing the cache loses nothing
    assert [line.row for line in of(path).rows([4321])] == [ROWS[4321]]


def test_several_frames_are_one_file(tmp_path: Path) -> None:
    half = TEXT.index(b"\n", len(TEXT) // 2) + 1
    for end, pack_one in (("gz", gzip.compress), ("zst", zstandard.ZstdCompressor().compress)):
        path = tmp_path / f"a.jsonl.{end}"
        path.write_bytes(pack_one(TEXT[:half]) + pack_one(TEXT[half:]))
        assert [line.row for line in of(path).iterate()] == ROWS


@pytest.mark.parametrize("end", ["gz", "zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_cut_file_gives_its_good_rows_and_one_problem(tmp_path: Path, name: str, end: str) -> None:
    texts = {
        "a.jsonl": TEXT,
        "a.json": json.dumps(ROWS, indent=1).encode(),
        "a.csv": b"text\n" + b"".join(f"{row['text']}\n".encode() for row in ROWS),
        "a.txt": b"\n".join(f"{row['text']}\n".encode() for row in ROWS),
    }
    path = pack(tmp_path / f"{name}.{end}", texts[name])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    source = of(path)
    lines = list(source.iterate())
    assert [line.row for line in lines[:-1]] == ROWS[: len(lines) - 1]
    assert "breaks off" in lines[-1].problem and lines[-1].kind == "unreadable"
    if end == "gz":
        assert len(lines) > 100
    source.build_index()
    assert source.total == len(lines)
    assert list(source.iterate()) == lines
    assert list(source.rows([len(lines) - 1, 0])) == [lines[-1], lines[0]]


def test_what_is_no_packed_file_is_told(tmp_path: Path) -> None:
    for end in ("gz", "zst"):
        path = tmp_path / f"a.jsonl.{end}"
        path.write_bytes(b"this was never packed" * 9)
        assert [line.kind for line in of(path).iterate()] == ["unreadable"]


def test_S17_a_bomb_is_refused_by_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "_BOMB_SIZE", 2**20)
    for end in ("gz", "zst"):
        path = pack(tmp_path / f"a.jsonl.{end}", b" " * 2**24)
        with pytest.raises(DataError, match="200 times its size"):
            list(of(path).iterate())
        with pytest.raises(DataError, match="200 times its size"):
            of(path).build_index()
        assert list(unpack.unpacked_copy(path).parent.glob("unpacked*")) == []


def test_a_full_disk_is_refused_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 99, 1))
    path = pack(tmp_path / "a.jsonl.gz")
    with pytest.raises(DataError, match="no room to unpack"):
        of(path).build_index()
    assert list(unpack.unpacked_copy(path).parent.glob("unpacked*")) == []
    assert len(list(of(path).iterate())) == len(ROWS)


def test_stopping_leaves_no_half_copy(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.jsonl.gz")
    with pytest.raises(Cancelled):
        of(path).build_index(stopped=lambda: True)
    assert list(unpack.unpacked_copy(path).parent.glob("unpacked*")) == []
