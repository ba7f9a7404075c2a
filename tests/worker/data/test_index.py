"""The index and the fast ways through a file: held against reading the file from its start."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core import rows
from studio.core.textfile import TextFile, open_text
from studio.worker.data import arraycut, index
from studio.worker.data.arraycut import fast_records
from studio.worker.data.index import build_index, lines_at, load_index, records_from, save_index

PIECES = {
    ".jsonl": ['{"a": 1}', '{"b": "x y"}', "", " ", "\r", "bad", "\x0b", '{"c": [1, 2]}', "é", '"'],
    ".csv": ["a,b", "1,2", '"x', 'y",3', "", "5", '"""",1', " ", "é,\x00"],
    ".txt": ["one", "two words", "", " ", "\r", "\t", "é"],
    ".json": [
        '{"a": 1},',
        '{"b": "}],{"},',
        "[",
        '{"c": {"d": [1,',
        "2]}},",
        "3,",
        '"s",',
        "]",
        "}",
        '"',
        ",",
        "{}",
        "",
        " ",
    ],
}


def nothing(_: int) -> None:
    """Hears of progress."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Strides and blocks so small that short files have several."""
    monkeypatch.setattr(index, "_EVERY_ROWS", 3)
    monkeypatch.setattr(index, "_EVERY_BYTES", 40)
    monkeypatch.setattr(index, "_BLOCK", 16)
    monkeypatch.setattr(arraycut, "_SMALLEST", 16)
    monkeypatch.setattr(arraycut, "_LARGEST", 64)
    yield


def content(suffix: str) -> st.SearchStrategy[bytes]:
    lines = st.lists(st.sampled_from(PIECES[suffix]), max_size=30).map("\n".join)
    ends = st.sampled_from(["", "\n", "\r\n", "\n\n"])
    whole = st.tuples(lines, ends).map("".join)
    if suffix == ".json":
        array = st.lists(st.sampled_from([*PIECES[suffix][:2], " ", ""]), max_size=30).map("\n".join)
        good = array.map(lambda text: "[" + text.rstrip("\n ,") + "]")
        return (whole.map(lambda text: "[" + text) | good).map(str.encode)
    return st.tuples(st.sampled_from(["", "\ufeff"]), whole).map("".join).map(str.encode)


def opened(path: Path, suffix: str, text: bytes) -> TextFile:
    path = path / f"rows{suffix}"
    path.write_bytes((b"a,b\n" if suffix == ".csv" else b"") + text)
    return open_text(path)


@pytest.mark.parametrize("suffix", sorted(PIECES))
@given(data=st.data())
def test_any_row_is_found_by_the_index(
    suffix: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = opened(tmp_path_factory.getbasetemp(), suffix, data.draw(content(suffix)))
    lines = list(text.lines())
    entries = build_index(text, nothing)
    kept = save_index(tmp_path_factory.getbasetemp() / "index.npy", entries)
    assert kept.total == len(lines)
    positions = data.draw(st.permutations(range(len(lines))))
    assert list(lines_at(text, kept, iter(positions))) == [lines[position] for position in positions]
    for start in range(len(lines)):
        found = [text.line(record, start + place) for place, record in enumerate(records_from(text, kept, start))]
        assert found == lines[start:]


@given(content(".json"))
def test_the_fast_way_through_an_array_is_the_careful_one(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    file = opened(tmp_path_factory.getbasetemp(), ".json", text)
    assert list(fast_records(file)) == list(file.records())


@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9) | st.lists(st.none(), max_size=3)), max_size=40)
)
def test_good_arrays_are_cut_the_fast_way_to_their_last_row(
    tmp_path_factory: pytest.TempPathFactory, values: list[object]
) -> None:
    for indent in (None, 1):
        text = json.dumps(values, indent=indent).encode()
        file = opened(tmp_path_factory.getbasetemp(), ".json", text)
        found = list(fast_records(file))
        assert [json.loads(record.raw) for record in found] == values  # type: ignore[arg-type]
        assert found == list(file.records())
        fast = list(arraycut.blocks(io.BytesIO(text[1:]), 1, 1))
        assert sum(len(block.starts) for block in fast) == max(len(values) - 1, 0)


def test_the_arrays_and_the_walk_make_the_same_index(tmp_path: Path) -> None:
    text = opened(tmp_path, ".jsonl", b'\xef\xbb\xbf{"a": 1}\n\n \t\r\n{"b": 2}\r\n\x0c\nbad\n' * 9 + b'{"c": 3}')
    for kind in ("lines", "paragraphs"):
        text = TextFile(text.name, text.open, kind, text.offset)
        fast, slow = index._scan_lines(text, nothing), index._walk(text, nothing, text.offset, text.number)
        assert fast[-1, 0] == slow[-1, 0] == len(list(text.records()))
        starts = {(r.offset, r.number) for r in text.records()}
        assert len(fast) > 5
        for position, offset, number in fast[:-1].tolist()[1:]:
            assert (offset, number) in starts
            assert list(text.records())[position][:2] == (offset, number)


def test_an_entry_stands_at_every_stretch_of_bytes_too(tmp_path: Path) -> None:
    text = opened(tmp_path, ".jsonl", b"".join(b'{"text": "%s"}\n' % (b"x" * 100) for _ in range(9)))
    assert len(build_index(text, nothing)) == 1 + 9 + 1


def test_a_line_beyond_every_buffer_is_walked_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 100)
    text = opened(tmp_path, ".jsonl", b'{"a": 1}\n' + b"x" * 5000 + b'\n{"a": 2}\n')
    kept = save_index(tmp_path / "index.npy", build_index(text, nothing))
    assert kept.total == 3
    lines = list(lines_at(text, kept, iter([2, 1, 0])))
    assert [(line.number, line.row, line.kind) for line in lines] == [
        (3, {"a": 2}, ""),
        (2, None, "too_big"),
        (1, {"a": 1}, ""),
    ]


def test_stopping_is_heard_while_the_index_is_made(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: int) -> None:
        raise Stop

    for suffix, text in ((".jsonl", b'{"a": 1}\n' * 99), (".json", b"[" + b'{"a": 1},\n' * 99 + b"{}]")):
        with pytest.raises(Stop):
            build_index(opened(tmp_path, suffix, text), stop)


def test_a_damaged_index_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "index.npy"
    assert load_index(path) is None
    for damage in (b"", b"\x93NUMPY", b"rubbish" * 9):
        path.write_bytes(damage)
        assert load_index(path) is None
    np.save(path, np.zeros(3))
    assert load_index(path) is None
