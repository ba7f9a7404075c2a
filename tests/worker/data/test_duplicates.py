"""Rows that are the same or nearly: all of them are found, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.errors import DataError
from studio.core.example import Example
from studio.worker.data import duplicates, wording
from studio.worker.data.duplicates import THRESHOLD, NearDuplicates, first_of_equals
from studio.worker.data.source import Cancelled

WORDS = [f"word{number}" for number in range(5000)]


def grouped(folder: Path, examples: list[Example]) -> list[int]:
    with NearDuplicates(folder) as near:
        for example in examples:
            near.add(wording.shingles(example))
        found = near.groups(first_of_equals(np.array([wording.digest(example) for example in examples], np.uint64)))
    assert list(folder.iterdir()) == []
    return [int(leader) for leader in found]


def texts(*values: str) -> list[Example]:
    return [Example(text=value) for value in values]


def jaccard(one: str, other: str) -> float:
    """By sets of three words, written anew."""

    def threes(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    first, second = threes(one), threes(other)
    return len(first & second) / len(first | second)


@given(st.lists(st.integers(0, 9), max_size=40))
def test_the_first_of_equals(values: list[int]) -> None:
    assert first_of_equals(np.array(values, np.uint64)).tolist() == [values.index(value) for value in values]


def test_rows_are_grouped_exactly_by_their_real_similarity(tmp_path: Path) -> None:
    """Pairs from 0.5 to 1: no pair below the threshold is ever joined; of those above hardly one is missed."""
    chance = random.Random(3)
    rows: list[str] = []
    for number in range(600):
        words = chance.sample(WORDS, 100)
        changed = list(words)
        for place in chance.sample(range(100), number % 10):
            changed[place] = "another"
        rows += [" ".join(words), " ".join(changed)]
    found = grouped(tmp_path, texts(*rows))
    alike = missed = 0
    for row in range(0, len(rows), 2):
        assert found[row] == row
        is_alike = jaccard(rows[row], rows[row + 1]) >= THRESHOLD
        alike += is_alike
        missed += is_alike and found[row + 1] != row
        if not is_alike:
            assert found[row + 1] == row + 1
    assert 100 < alike < 500
    assert missed <= alike // 100


def test_groups_are_led_by_their_first_row_and_may_be_chains(tmp_path: Path) -> None:
    chance = random.Random(1)
    alone, other = (" ".join(chance.sample(WORDS, 100)) for _ in range(2))
    words = chance.sample(WORDS, 100)
    chain = []
    for changed in (0, 5, 10):
        chain.append(" ".join([*(f"new{n}" for n in range(changed)), *words[changed:]]))
    assert jaccard(chain[0], chain[2]) < 0.9
    assert grouped(tmp_path, texts(alone, chain[1], chain[0], other, chain[2], alone)) == [0, 1, 1, 3, 1, 0]


def test_rows_without_words_are_like_no_other(tmp_path: Path) -> None:
    assert grouped(tmp_path, texts("?", "!", "...", "one", "one!")) == [0, 1, 2, 3, 3]
    assert grouped(tmp_path, texts("?", "!")) == [0, 1]
    assert grouped(tmp_path, []) == []


def test_many_like_rows_make_one_group_without_comparing_all_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0
    real = duplicates._Merger._alike

    def counted(self: Any, one: int, other: int) -> bool:
        nonlocal compared
        compared += 1
        return real(self, one, other)

    monkeypatch.setattr(duplicates._Merger, "_alike", counted)
    words = random.Random(2).sample(WORDS, 150)
    rows = [" ".join([*words[:60], f"number{n}", *words[60:]]) for n in range(400)]
    assert grouped(tmp_path, texts(*rows)) == [0] * 400
    assert compared < 2 * 400


@pytest.mark.parametrize("after", [0, 3])
def test_the_search_can_be_stopped(tmp_path: Path, after: int) -> None:
    words: list[str] = []
    with NearDuplicates(tmp_path) as near:
        for number in range(40):
            near.add(wording.shingles(Example(text=f"row {number} of forty")))
        with pytest.raises(Cancelled):
            near.groups(np.arange(40), lambda text, *_: words.append(text), lambda: len(words) > after)
    assert len(words) == after + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["shingles", "bands"])
def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with NearDuplicates(tmp_path) as near:
        near.add(wording.shingles(Example(text="one two three four")))
        monkeypatch.setattr(duplicates, "_reserve", full)
        if when == "shingles":
            near._file.close()
            near._file = SimpleNamespace(write=full, flush=full, close=full)
        with pytest.raises(DataError, match="no room on the disk"):
            near.add(wording.shingles(Example(text="five six seven eight")))
            near.groups(np.arange(2))
    assert list(tmp_path.iterdir()) == []


# -- what rows are compared by ----------------------------------------------------------------------------------------


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_a_conversation_is_the_same_whole_or_in_parts() -> None:
    whole = Example(messages=(user("one"), assistant("two")))
    parts = Example(prompt=(user("one"),), completion=(assistant("two"),))
    assert wording.digest(whole) == wording.digest(parts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Example(prompt="a", completion="b"), Example(prompt="b", completion="a")),
        (Example(prompt="a", completion="b"), Example(prompt="a", completion="b", label=True)),
        (Example(prompt="a", completion="b", label=False), Example(prompt="a", completion="b", label=True)),
        (Example(prompt="a", chosen="b", rejected="c"), Example(prompt="a", chosen="c", rejected="b")),
        (Example(text="a b"), Example(text="a  b")),
        (Example(text="a"), Example(text="A")),
        (Example(messages=(user("a"), assistant("b"))), Example(messages=(assistant("a"), user("b")))),
        (Example(messages=(user("ab"),)), Example(messages=(user("a"), user("b")))),
        (
            Example(messages=(user("a"), assistant("b")), tools=({"type": "function"},)),
            Example(messages=(user("a"), assistant("b"))),
        ),
        (
            Example(messages=(user("a"), {**assistant(""), "tool_calls": [{"function": {"name": "f"}}]})),
            Example(messages=(user("a"), {**assistant(""), "tool_calls": [{"function": {"name": "g"}}]})),
        ),
    ],
)
def test_rows_that_the_model_sees_differently_are_not_the_same(one: Example, other: Example) -> None:
    assert wording.digest(one) != wording.digest(other)


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (Example(text="One, two; THREE four"), Example(text="one two three\nfour!"), True),
        (Example(text="one two three four"), Example(text="four three two one"), False),
        (Example(text="你好世界今天"), Example(text="你好世界今天"), True),
        (
            Example(prompt="pick one now", chosen="the first of these", rejected="the second of those"),
            Example(prompt="pick one now", chosen="the second of those", rejected="the first of these"),
            False,
        ),
        (
            Example(prompt="pick one now", completion="the first", label=True),
            Example(prompt="pick one now", completion="the first", label=False),
            False,
        ),
    ],
)
def test_what_rows_are_compared_by(one: Example, other: Example, alike: bool) -> None:
    assert (wording.shingles(one).tolist() == wording.shingles(other).tolist()) == alike


def test_scripts_without_spaces_have_words_too(tmp_path: Path) -> None:
    chance = random.Random(4)
    letters = [chr(code) for code in range(0x4E00, 0x5E00)]
    row = chance.sample(letters, 120)
    near = [*row[:50], chance.choice(letters), *row[51:]]
    far = chance.sample(letters, 120)
    assert grouped(tmp_path, texts(*("".join(each) for each in (row, far, near)))) == [0, 1, 0]


@pytest.mark.parametrize(
    ("example", "echoes"),
    [
        (Example(prompt="Say this", completion=" Say  this\n"), True),
        (Example(prompt="Say this", completion="That"), False),
        (Example(messages=(user("a"), assistant("b"), user("c"), assistant("c"))), True),
        (Example(messages=(user("a"), assistant("b"), user("b"), assistant("a"))), False),
        (Example(prompt=(user("a"),), completion=(assistant("a"),)), True),
        (Example(text="a"), False),
    ],
)
def test_an_answer_that_repeats_its_prompt(example: Example, echoes: bool) -> None:
    assert (wording.echo(example) is not None) == echoes
