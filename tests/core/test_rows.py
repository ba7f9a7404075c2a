"""Rows of files: each with its line, every bad one told, nothing raised but a DataError."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from studio.core import rows
from studio.core.errors import DataError
from studio.core.rows import Line, read_rows

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes bytes (or text) to a file of a given name."""

    def made(name: str, content: bytes | str) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return made


def read(path: Path) -> list[Line]:
    return list(read_rows(path))


def found(path: Path) -> list[tuple[int, object]]:
    """(line, row) of every good row; no bad one may be among them."""
    lines = read(path)
    assert [line.problem for line in lines if line.problem] == []
    return [(line.number, line.row) for line in lines]


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8], ids=["plain", "BOM"])
def test_F31_rows_are_the_same_with_a_mark_and_any_line_ends(make: Make, end: str, mark: bytes) -> None:
    rows = [{"text": "ä"}, {"text": "b c"}]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    assert found(make("a.jsonl", mark + (end.join(lines) + end).encode())) == [(1, rows[0]), (2, rows[1])]
    assert found(make("b.json", mark + f"[{end}{lines[0]},{end}{lines[1]}]".encode())) == [(2, rows[0]), (3, rows[1])]
    assert found(make("e.txt", mark + f"ä{end}{end}b c{end}".encode())) == [(1, rows[0]), (3, rows[1])]
    assert found(make("c.csv", mark + end.join(["text", "ä", "b c"]).encode())) == [(2, rows[0]), (3, rows[1])]
    assert found(make("d.tsv", mark + end.join(["text\tn", "ä\t1"]).encode())) == [(2, {"text": "ä", "n": "1"})]


def test_a_last_line_needs_no_end(make: Make) -> None:
    assert found(make("a.jsonl", '{"a": 1}\n{"a": 2}')) == [(1, {"a": 1}), (2, {"a": 2})]


def test_a_json_file_of_lines_is_read_as_lines(make: Make) -> None:
    assert found(make("a.json", '{"a": 1}\n{"a": 2}\n')) == [(1, {"a": 1}), (2, {"a": 2})]


def test_a_suffix_in_capitals_is_the_same(make: Make) -> None:
    assert found(make("A.JSONL", '{"a": 1}\n')) == [(1, {"a": 1})]
    assert found(make("A.CSV", "a\n1\n")) == [(2, {"a": "1"})]


def test_a_table_keeps_line_breaks_and_quotes_inside_its_fields(make: Make) -> None:
    path = make("a.csv", 'prompt,completion\n"two\nlines","say ""hi"", please"\nnext,row\n')
    assert found(path) == [
        (2, {"prompt": "two\nlines", "completion": 'say "hi", please'}),
        (4, {"prompt": "next", "completion": "row"}),
    ]


def test_blank_lines_before_a_tables_header_are_passed_over(make: Make) -> None:
    assert found(make("a.csv", "\n\r\ntext\n\na\n")) == [(5, {"text": "a"})]


def test_a_file_of_another_kind_is_refused(make: Make) -> None:
    for name in ("a.py", "a.zip", "a", ".jsonl", "a.parquet"):
        with pytest.raises(DataError, match="kind of file"):
            read_rows(make(name, '{"a": 1}\n'))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("nowhere.jsonl", "folder.jsonl"):
        with pytest.raises(DataError, match="can't be read"):
            read_rows(tmp_path / name)


# -- bad lines --------------------------------------------------------------------------------------------------------


def test_F30_bad_json_is_told_at_its_absolute_line(make: Make) -> None:
    content = b'{"text": "a"}\n' * 70_000 + b'{"text": "b"\n' + b'{"text": "c"}\n' * 3
    lines = read(make("a.jsonl", content))
    assert [(line.number, line.problem) for line in lines if line.problem] == [
        (70_001, "no valid JSON at column 13: Expecting ',' delimiter")
    ]
    assert len(lines) == 70_004


def test_F30_blank_lines_count_as_lines(make: Make) -> None:
    lines = read(make("a.jsonl", '\n\n{"a": 1}\n   \n{bad\n'))
    assert [(line.number, bool(line.problem)) for line in lines] == [(3, False), (5, True)]


def test_F30_a_bad_row_of_an_array_is_told_at_its_line_and_the_others_are_read(make: Make) -> None:
    lines = read(make("a.json", '[\n{"a": 1},\n{"a" 2},\n{"a":\n 3,\n"b"},\n{"a": 4}\n]'))
    assert [(line.number, line.row, line.problem) for line in lines] == [
        (2, {"a": 1}, ""),
        (3, None, "no valid JSON at column 6: Expecting ':' delimiter"),
        (4, None, "no valid JSON at line 6, column 4: Expecting ':' delimiter"),
        (7, {"a": 4}, ""),
    ]
    assert {line.kind for line in lines if line.problem} == {"unreadable"}


def test_F30_every_bad_row_has_a_kind_and_a_position(make: Make) -> None:
    lines = read(make("a.jsonl", b'\n{"a": 1}\n\n{bad\n{"a": "\xff"}\n{"a": "\\ud83d"}\n'))
    assert [(line.position, line.number, line.kind) for line in lines] == [
        (0, 2, ""), (1, 4, "unreadable"), (2, 5, "encoding"), (3, 6, "encoding"),
    ]  # fmt: skip


def test_half_of_a_character_is_a_problem_and_a_whole_one_is_none(make: Make) -> None:
    assert found(make("a.jsonl", r'{"a": "\ud83d\ude00"}')) == [(1, {"a": "\U0001f600"})]
    line = read(make("b.jsonl", r'{"a": "\ud83d"}'))[0]
    assert "half of a character" in line.problem


def test_F33_a_table_row_of_another_width_is_told_at_its_line(make: Make) -> None:
    lines = read(make("a.csv", 'a,b\n1,2\n\n"x\ny",2\n1,2,3\n1\n5,6\n'))
    assert [(line.number, line.row or line.problem) for line in lines] == [
        (2, {"a": "1", "b": "2"}),
        (4, {"a": "x\ny", "b": "2"}),
        (6, "3 columns where the header names 2"),
        (7, "1 columns where the header names 2"),
        (8, {"a": "5", "b": "6"}),
    ]


# -- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_F31_utf16_is_named(make: Make, encoding: str, name: str) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    with pytest.raises(DataError, match="written in UTF-16") as raised:
        read_rows(make(name, mark + '{"text": "a"}\n'.encode(encoding)))
    assert "UTF-8" in raised.value.hint


def test_F31_a_line_that_is_no_utf8_is_told_with_its_byte(make: Make) -> None:
    lines = read(make("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n{"text": "c"}\n'))
    assert [(line.number, line.problem) for line in lines] == [
        (1, ""),
        (2, "byte 14 of the line (byte 28 of the file) is not UTF-8; perhaps it is Windows-1252 (Latin-1)"),
        (3, ""),
    ]


def test_F31_a_table_row_that_is_no_utf8_is_told_and_the_others_are_kept(make: Make) -> None:
    lines = read(make("a.csv", b"text,n\n" + b"good,1\n" * 3000 + b"caf\xe9,2\n" + b"after,3\n"))
    assert [line.number for line in lines if line.problem] == [3002]
    assert "UTF-8" in lines[3000].problem
    assert len(lines) == 3002 and lines[-1].row == {"text": "after", "n": "3"}


def test_F31_a_table_whose_header_is_no_utf8_is_refused(make: Make) -> None:
    with pytest.raises(DataError, match=r"header.*UTF-8") as raised:
        read(make("a.csv", b"caf\xe9,n\n1,2\n"))
    assert raised.value.line == 1


def test_F31_a_row_of_an_array_that_is_no_utf8_is_told(make: Make) -> None:
    lines = read(make("a.json", b'[{"text": "caf\xe9"},\n{"text": "b"}]'))
    assert [(line.number, line.kind, line.row) for line in lines] == [(1, "encoding", None), (2, "", {"text": "b"})]
    assert "byte 14 of the line (byte 15 of the file)" in lines[0].problem


def test_F31_nul_bytes_are_a_problem_of_their_line(make: Make) -> None:
    lines = read(make("a.jsonl", b'{"a": 1}\n\x00\x00\x00\n{"a": 2}\n'))
    assert [(line.number, line.kind) for line in lines] == [(1, ""), (2, "encoding"), (3, "")]
    assert lines[1].problem == "byte 1 of the line (byte 10 of the file) is NUL"
    for name, content in (("b.csv", b"a,b\n1,x\0y\n3,4\n"), ("b.txt", b"a\0b\n\nc\n")):
        assert [line.kind for line in read(make(name, content))] == ["encoding", ""]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-32"])
def test_F31_utf16_and_utf32_are_named_without_a_mark_too(make: Make, encoding: str) -> None:
    with pytest.raises(DataError, match=f"written in UTF-{encoding[4:6]}"):
        read(make("b.jsonl", '{"a": 1}\n'.encode(encoding)))


# -- nothing in it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ""),
        ("a.jsonl", "\n\n  \n\t\n"),
        ("a.jsonl", "\ufeff"),
        ("a.jsonl", "\ufeff\r\n"),
        ("a.json", ""),
        ("a.json", "[]"),
        ("a.json", "[ \n ]\n"),
        ("a.txt", ""),
        ("a.md", "\n \n\t\n"),
        ("a.csv", ""),
        ("a.csv", "text,n\n"),
        ("a.csv", "text,n"),
        ("a.csv", "\n\n\n"),
        ("a.tsv", "text\tn\n\n"),
    ],
)
def test_F32_a_file_with_nothing_in_it_has_no_row(make: Make, name: str, content: str) -> None:
    assert read(make(name, content)) == []


# -- bombs ------------------------------------------------------------------------------------------------------------


def test_F36_a_row_of_50_MB_is_named_and_not_kept(make: Make) -> None:
    huge = b'{"text": "' + b"x" * (50 * 2**20) + b'"}'
    lines = read(make("a.jsonl", b'{"a": 1}\n' + huge + b"\n" + b'{"a": 2}\n' + huge))
    assert [(line.number, line.row) for line in lines] == [(1, {"a": 1}), (2, None), (3, {"a": 2}), (4, None)]
    for line in (lines[1], lines[3]):
        assert line.problem == "the line has 50 MB; 20 MB is the most a row may have"


@pytest.mark.parametrize("size", [63, 64, 65, 66, 127, 128, 129, 130, 200])
def test_F36_a_row_may_be_as_long_as_the_limit(make: Make, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 128)
    text = json.dumps({"text": "x" * (size - 12)})
    assert len(text) == size
    for end in ("\n", "\r\n", ""):
        line, *more = read(make("a.jsonl", text + end + ('{"a": 1}' if end else "")))
        assert bool(line.problem) == (size + len(end) > 128)
        assert [(other.number, other.row) for other in more] == ([(2, {"a": 1})] if end else [])


def test_F36_a_field_of_a_table_is_bounded_too(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 1000)
    lines = read(make("a.csv", "text\ngood\n" + "x" * 5000 + "\nnext\n"))
    assert [(line.number, line.row, line.kind) for line in lines] == [
        (2, {"text": "good"}, ""), (3, None, "too_big"), (4, {"text": "next"}, ""),
    ]  # fmt: skip


def test_a_quote_that_is_never_closed_costs_its_line_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = read(make("a.csv", 'a,b\n1,2\n3,"4\n5,6\n7,8\n'))
    assert [(line.number, line.row or line.kind) for line in lines] == [
        (2, {"a": "1", "b": "2"}), (3, "unreadable"), (4, {"a": "5", "b": "6"}), (5, {"a": "7", "b": "8"}),
    ]  # fmt: skip
    monkeypatch.setattr(rows, "LONGEST_LINE", 100)  # nor does one that is closed too far away
    lines = read(make("b.csv", 'a,b\n1,"2\n' + "3,4\n" * 60 + '5,"6"\n'))
    assert [line.kind for line in lines] == ["too_big"] + [""] * 61
    assert lines[-1].number == 63


def test_a_tables_header_is_read_as_it_is_meant_or_refused(make: Make) -> None:
    assert found(make("a.csv", "a;b\n1,5;2\n")) == [(2, {"a": "1,5", "b": "2"})]
    assert found(make("b.csv", "a,,\n1,2,3\n")) == [(2, {"a": "1", "column 2": "2", "column 3": "3"})]
    with pytest.raises(DataError, match="two columns named 'a'"):
        read(make("c.csv", "a,b,a\n1,2,3\n"))


def test_S17_json_nested_a_hundred_thousand_deep_is_refused(make: Make) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    lines = read(make("a.jsonl", f'{{"a": 1}}\n{deep}\n{{"a": {deep}}}\n{{"a": 2}}\n'))
    assert [(line.number, bool(line.problem)) for line in lines] == [(1, False), (2, True), (3, True), (4, False)]
    lines = read(make("b.json", f'[{deep},\n{{"a": 2}}]'))
    assert [(line.number, line.row) for line in lines] == [(1, None), (2, {"a": 2})]
    assert "128 levels" in lines[0].problem


def test_as_many_levels_as_are_allowed_are_read(make: Make) -> None:
    for levels, good in ((rows.DEEPEST, True), (rows.DEEPEST + 1, False)):
        text = "[" * levels + '"]]{{[[\\"[["' + "]" * levels
        assert bool(read(make("a.jsonl", text + "\n" + text))[0].problem) != good


def test_S17_a_number_too_long_to_be_one_is_refused(make: Make) -> None:
    digits = "9" * 5000
    lines = read(make("a.jsonl", f'{{"a": {digits}}}\n{{"a": 2}}\n'))
    assert [(line.number, bool(line.problem)) for line in lines] == [(1, True), (2, False)]
    assert [bool(line.problem) for line in read(make("b.json", f'[{{"a": {digits}}}, {{"a": 2}}]'))] == [True, False]


# -- which kind of json -----------------------------------------------------------------------------------------------


def test_one_object_with_one_list_of_rows_is_that_list(make: Make) -> None:
    rows_of = '[{"a": 1},\n {"a": 2}]'
    for text in (
        f'{{"data": {rows_of}}}',
        f'{{"version": "1",\n"tags": ["x"], "rows": {rows_of}, "n": {{"x": [{{}}]}}}}\n',
    ):
        first = 1 + text[: text.index('{"a"')].count("\n")
        assert found(make("a.json", text)) == [(first, {"a": 1}), (first + 1, {"a": 2})]


def test_one_object_with_two_lists_of_rows_is_asked_about(make: Make) -> None:
    with pytest.raises(DataError, match="several lists of rows: train, test"):
        read(make("a.json", '{"train": [{"a": 1}], "test": [{"a": 2}]}'))


def test_one_object_whose_list_is_a_conversation_is_a_row(make: Make) -> None:
    for key, name in (("messages", "role"), ("conversations", "from")):
        row = {key: [{name: "user"}, {name: "assistant"}]}
        for indent in (None, 1):
            assert found(make("a.json", json.dumps(row, indent=indent))) == [(1, row)]


def test_objects_on_several_lines_each_are_rows(make: Make) -> None:
    text = json.dumps({"a": [1, 2]}, indent=2)
    assert found(make("a.json", f"{text}\n{text}\n")) == [(1, {"a": [1, 2]}), (7, {"a": [1, 2]})]


def test_an_array_named_jsonl_is_an_array_and_lines_of_lists_are_lines(make: Make) -> None:
    assert found(make("a.jsonl", '[\n{"a": 1},\n{"a": 2}]')) == [(2, {"a": 1}), (3, {"a": 2})]
    assert found(make("b.json", '[{"a": 1}]\n[{"a": 2}]\n')) == [(1, [{"a": 1}]), (2, [{"a": 2}])]


def test_a_broken_first_line_costs_that_line_only(make: Make) -> None:
    for name in ("a.jsonl", "a.json"):
        lines = read(make(name, '{"a: 1}\n{"a": 2}\n{"a": 3}\n'))
        assert [(line.number, line.row) for line in lines] == [(1, None), (2, {"a": 2}), (3, {"a": 3})]


def test_paragraphs_are_rows(make: Make) -> None:
    path = make("a.md", "\n# One\ntwo\n\n \t\n  three\r\n\r\n\nfour")
    assert found(path) == [(2, {"text": "# One\ntwo"}), (6, {"text": "three"}), (9, {"text": "four"})]


# -- anything at all --------------------------------------------------------------------------------------------------

PIECES = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b"\xfe", codecs.BOM_UTF8, b"a", b":"]
    ),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(st.sampled_from(sorted(rows.TEXT_SUFFIXES)), st.binary(max_size=60) | PIECES)
@example(".json", b"[\xff]")
@example(".csv", b'a\n"b')
@example(".csv", b"a\r\x00\xff")
def test_no_bytes_make_reading_raise_anything_but_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(content)
    try:
        lines = read(path)
    except DataError as error:
        assert error.message
        return
    numbers = [line.number for line in lines]
    assert numbers == sorted(numbers) and all(number >= 1 for number in numbers)
    assert [line.position for line in lines] == list(range(len(lines)))
    assert all(bool(line.problem) == bool(line.kind) for line in lines)
    # A lone \r ends a line of a table, and nowhere else.
    assert all(number <= content.count(b"\n") + content.count(b"\r") + content.count(b",") + 1 for number in numbers)
