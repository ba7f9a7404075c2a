"""A skeleton fits a text exactly, or not at all."""

from __future__ import annotations

from studio.worker.marks import Mark
from studio.worker.skeleton import Skeleton

MARKS = [Mark(3, 0, True), Mark(4, 0, False), Mark(8, 1, True), Mark(9, 1, False)]


def test_answers_stand_where_they_stood_around_other_words() -> None:
    skeleton = Skeleton.made("[U]a[A] b[E]", MARKS, 2, {1: (7, 12)})
    assert skeleton is not None
    text = "[U]hello[A] the answer[E]"
    found = skeleton.spans(text, ["hello", "the answer"], [1])
    assert found is not None
    assert [text[start:end] for start, end in found] == [" the answer[E]"]
    assert skeleton.spans("[U]hello[A] the answer[E]", [" hello\n", "the answer "], [1]) == found  # stripped


def test_any_other_text_is_none() -> None:
    skeleton = Skeleton.made("[U]a[A] b[E]", MARKS, 2, {1: (7, 12)})
    assert skeleton is not None
    for text in ("", "[U]hello[A] other[E]", "[U]hello[A] the answer[E].", "x[U]hello[A] the answer[E]"):
        assert skeleton.spans(text, ["hello", "the answer"], [1]) is None


def test_there_is_none_where_words_are_missing_doubled_or_moved() -> None:
    turns = {1: (7, 12)}
    assert Skeleton.made("[U]a[A] b[E]", MARKS[:2], 2, turns) is None
    assert Skeleton.made("[U]a[A] b[E]", [*MARKS, *MARKS], 2, turns) is None
    assert Skeleton.made("[U]a[A] b[E]", [*MARKS[2:], *MARKS[:2]], 2, turns) is None
