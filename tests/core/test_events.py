"""Events as lines: what goes in comes out, what is damaged is passed over."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.events import CheckpointSaved, Ended, Event, Metrics, Note, Stage, from_line, to_json, to_line

TEXT = st.text(max_size=20)
COUNT = st.integers(0, 2**53)
TIME = st.floats(0, 1e12)
NUMBER = st.floats(allow_nan=True, allow_infinity=True)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TIME | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)
EVENTS = st.one_of(
    st.builds(Stage, TEXT, TEXT, st.none() | COUNT, st.none() | COUNT, TEXT, COUNT, COUNT, TIME),
    st.builds(Metrics, COUNT, COUNT, TIME, TIME, st.dictionaries(TEXT, NUMBER, max_size=4), TIME),
    st.builds(Note, st.sampled_from(["info", "warning"]), TEXT, TIME),
    st.builds(CheckpointSaved, COUNT, TEXT, TIME),
    st.builds(
        Ended, st.sampled_from(["finished", "stopped", "failed"]), TEXT, TEXT, st.dictionaries(TEXT, PLAIN), TIME
    ),
)


def same(one: Any, other: Any) -> bool:
    """Equal, where NaN equals NaN."""
    return repr(one) == repr(other)


@given(EVENTS)
def test_an_event_comes_back_from_its_line(event: Event) -> None:
    line = to_line(event)
    assert line.endswith("\n") and line.count("\n") == 1 and "\r" not in line
    back = from_line(line.encode())
    assert back == event or same(back, event)


@given(EVENTS)
def test_a_line_is_strict_json(event: Event) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    assert json.loads(to_line(event), parse_constant=refuse) == to_json(event)


@pytest.mark.parametrize(("number", "word"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")])
def test_numbers_that_are_none_are_written_as_words_and_read_as_numbers(number: float, word: str) -> None:
    line = to_line(Metrics(1, 2, 0.5, 1.0, {"loss": number}))
    assert f'"{word}"' in line
    back = from_line(line)
    assert isinstance(back, Metrics) and repr(back.values["loss"]) == repr(number)


def test_text_that_no_encoding_knows_does_not_keep_an_event_from_being_written() -> None:
    # A row may hold half of a surrogate pair, which JSON can spell; its text may come into a note.
    back = from_line(to_line(Note("warning", "the unknown role '\ud800'")).encode())
    assert isinstance(back, Note) and back.text.startswith("the unknown role")
    assert back.text.encode()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        '{"event": "metrics", "step":',
        "null",
        "7",
        '"text"',
        "[]",
        "{}",
        '{"event": 5}',
        '{"event": []}',
        '{"event": "dance", "step": 1}',
        '{"event": "metrics", "step": 1}',
        '{"event": "metrics", "step": "x", "max_steps": 2, "epoch": 0, "elapsed": 0, "values": {}}',
        '{"event": "metrics", "step": 1, "max_steps": 2, "epoch": 0, "elapsed": 0, "values": {"loss": "low"}}',
        '{"event": "metrics", "step": 1, "max_steps": 2, "epoch": 0, "elapsed": 0, "values": {"loss": [1]}}',
        '{"event": "metrics", "step": 1, "max_steps": 2, "epoch": 0, "elapsed": 0, "values": [1]}',
        '{"event": "stage", "name": "load", "text": null}',
        '{"event": "stage", "name": "load", "text": "Loading", "t": "noon"}',
        '{"event": "ended", "status": "exploded"}',
        '{"event": "checkpoint", "step": 1.5, "path": "x"}',
        "[" * 100_000,
        '{"event": "checkpoint", "path": "x", "step": ' + "9" * 5000 + "}",
        b"\x00\x00\x00",
        b'\xff\xfe{"event": "note"}',
        b'{"event": "note", "level": "info", "text": "\xe9"}',
    ],
    ids=lambda line: repr(line)[:60],
)
def test_F55_a_line_that_holds_no_event_is_none(line: str | bytes) -> None:
    assert from_line(line) is None


def test_what_a_newer_studio_adds_to_an_event_is_passed_over() -> None:
    back = from_line('{"event": "checkpoint", "step": 3, "path": "p", "t": 1.0, "colour": "red"}')
    assert back == CheckpointSaved(3, "p", 1.0)


KEYS = st.sampled_from(["event", "step", "values", "t"])
LINES = st.recursive(PLAIN, lambda x: st.dictionaries(KEYS, x | st.sampled_from(["stage", "metrics"]))).map(json.dumps)


@given(st.binary(max_size=100) | LINES.map(str.encode))
def test_F55_no_line_makes_reading_raise(line: bytes) -> None:
    event = from_line(line)
    assert event is None or to_line(event)
