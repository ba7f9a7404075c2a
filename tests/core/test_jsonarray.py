"""Values cut out of a stream of JSON: held against Python's own json, however the stream is cut into blocks."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.core import jsonarray, rows
from studio.core.jsonarray import cut_values, lists_within, mask
from studio.core.rows import Record

TEXTS = st.text(st.sampled_from('ab "\\\n\t{}[],:é\U0001f600\x00'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
FORMS = st.sampled_from([{}, {"indent": 1}, {"separators": (",", ":")}, {"ensure_ascii": False}, {"indent": "\t"}])


@pytest.fixture(params=[1, 3, 16, 2**18])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonarray, "_BLOCK", request.param)


def cut(text: bytes, array: bool = True) -> list[Record]:
    """Records of an array's bytes, whose first is the opening bracket; offsets count from there."""
    begin = int(array)
    return list(cut_values(io.BytesIO(text[begin:]), begin, 1, array=array))


def good(records: list[Record]) -> list[object]:
    return [json.loads(record.raw) for record in records if not record.problem]  # type: ignore[arg-type]


@pytest.mark.usefixtures("block")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(VALUES, max_size=6), FORMS)
def test_an_array_is_cut_into_its_elements(values: list[object], form: dict[str, object]) -> None:
    text = json.dumps(values, **form).encode()  # type: ignore[arg-type]
    records = cut(text)
    assert good(records) == values and len(records) == len(values)
    for record in records:
        assert text[record.offset : record.offset + len(record.raw)] == record.raw
        assert record.number == 1 + text[: record.offset].count(b"\n")


@pytest.mark.usefixtures("block")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), max_size=4), FORMS)
def test_objects_one_after_the_other_are_cut(values: list[object], form: dict[str, object]) -> None:
    text = "\n".join(json.dumps(value, **form) for value in values).encode()  # type: ignore[arg-type]
    records = cut(text, array=False)
    assert good(records) == values and len(records) == len(values)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(TEXTS, VALUES, max_size=3), min_size=1, max_size=4), FORMS, st.data())
def test_F30_a_torn_array_gives_its_good_elements_and_one_problem(
    values: list[object], form: dict[str, object], data: st.DataObject
) -> None:
    text = json.dumps(values, **form).encode()  # type: ignore[arg-type]
    torn = text[: data.draw(st.integers(1, len(text) - 1))]
    records = cut(torn)
    whole = [record for record in cut(text) if record.offset + len(record.raw) <= len(torn)]
    assert records[:-1] == whole
    assert records[-1].problem and records[-1].kind == "unreadable"
    assert records[-1].number <= 1 + torn.count(b"\n")


@given(st.binary(max_size=80) | st.text(st.sampled_from('{}[]",:\\ \n1a'), max_size=40).map(str.encode))
def test_any_bytes_end_in_records(text: bytes) -> None:
    for array in (True, False):
        records = list(cut_values(io.BytesIO(text), 0, 1, array=array))
        offsets = [record.offset for record in records]
        assert offsets == sorted(offsets) and all(offset <= len(text) for offset in offsets)
        assert all(not record.problem for record in records[:-1])


def test_a_quote_that_was_forgotten_is_told_at_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'[\n{"a": "x"},\n{"a": "y},\n{"a": "z"},\n{"a": "w"}\n]'
    records = cut(text)
    assert [(record.number, bool(record.problem)) for record in records] == [(2, False), (3, True)]
    assert "seen in line 4" in records[1].problem


def test_brackets_that_do_not_fit_and_missing_commas_are_told() -> None:
    records = cut(b'[{"a": 1},\n{"a": [2}},\n{"a": 3}]')
    assert [(record.number, bool(record.problem)) for record in records] == [(1, False), (2, True)]
    records = cut(b'[{"a": 1}\n{"a": 2}]')
    assert [(record.number, "comma is missing" in record.problem) for record in records] == [(1, False), (2, True)]
    records = cut(b"[1] 2")
    assert [record.problem for record in records] == ["", "something stands behind the array's end"]


@pytest.mark.usefixtures("block")
def test_F36_a_value_beyond_the_limit_is_passed_over_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 100)
    for big in (["x" * 500], {"a": ['\\"y'] * 90}, "z" * 200, [[["w" * 20]] * 9]):
        text = json.dumps([{"a": 1}, big, {"b": 2}]).encode()
        records = cut(text)
        assert [record.kind for record in records] == ["", "too_big", ""]
        assert good(records) == [{"a": 1}, {"b": 2}]


def test_F36_memory_holds_no_more_than_a_value_and_a_block() -> None:
    class Endless(io.RawIOBase):
        """An array whose first element is a text of 300 MB."""

        def __init__(self) -> None:
            self.left = 300
            self.asked = 0

        def read(self, size: int = -1) -> bytes:
            self.asked = max(self.asked, size)
            self.left -= 1
            return (
                b'{"a": "' if self.left == 299 else b"x" * 2**20 if self.left > 0 else b'"}]' if not self.left else b""
            )

    stream = Endless()
    records = list(cut_values(stream, 1, 1, array=True))  # type: ignore[arg-type]
    assert [record.kind for record in records] == ["too_big"]
    assert stream.asked <= 2 * rows.LONGEST_LINE


@given(st.text(st.sampled_from('a"\\'), max_size=12))
def test_masked_text_keeps_its_length_and_hides_escaped_quotes(text: str) -> None:
    whole = json.dumps([text])
    masked = mask(whole.encode())
    assert len(masked) == len(whole.encode()) and masked.count(b'"') == 2


def test_lists_of_objects_within_an_object_are_found() -> None:
    text = b'{"n": 1, "a": ["x"],\n"b": [{"c": [{}]}, {}], "d": [], "e": [ {}], "f": {"g": [{}]}}'
    found = lists_within(io.BytesIO(text), 0, 1)
    assert [(key, number) for key, _, number in found] == [("b", 2), ("e", 2)]
    assert [text[offset : offset + 1] for _, offset, _ in found] == [b"{", b"{"]
    assert lists_within(io.BytesIO(b'{"a": [{}]} {"a": [{}]}'), 0, 1) == []
    assert [key for key, _, _ in lists_within(io.BytesIO(b'{"a": [{}, {"b": '), 0, 1)] == ["a"]
