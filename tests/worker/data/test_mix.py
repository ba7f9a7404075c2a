"""Mixes: held against what datasets makes of the same rows and weights."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from studio.core.errors import DataError
from studio.core.inputs import DatasetInput
from studio.worker.data.mix import _Order, draw_parts
from studio.worker.data.source import Source, open_source

SIZES = {"a": 40, "b": 7, "c": 90}


def parts(folder: Path, weights: list[float | None], sizes: dict[str, int] = SIZES) -> tuple[DatasetInput, ...]:
    found = []
    for (name, size), weight in zip(sizes.items(), weights, strict=True):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": f"{name}{at}"}) + "\n" for at in range(size)))
        found.append(DatasetInput(name, str(path), weight=weight))
    return tuple(found)


def mixed(folder: Path, weights: list[float | None], stopping: Any, **fields: Any) -> Source:
    return open_source(DatasetInput("m", kind="mix", parts=parts(folder, weights), stopping=stopping, **fields))


def texts(lines: Any) -> list[str]:
    return [line.row["text"] for line in lines]


WEIGHTS: list[list[float | None]] = [[0.7, 0.2, 0.1], [5, 1, 1], [1, 1, 1], [None, None, None]]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("stopping", ["first_exhausted", "all_exhausted"])
def test_a_weighted_mix_is_that_of_datasets(tmp_path: Path, weights: list[float | None], stopping: Any) -> None:
    import datasets

    given = [weight for weight in weights if weight is not None]
    expected = datasets.interleave_datasets(
        [datasets.Dataset.from_dict({"text": [f"{name}{at}" for at in range(size)]}) for name, size in SIZES.items()],
        probabilities=[weight / sum(given) for weight in given] if given else None,
        seed=42,
        stopping_strategy=stopping,
    )["text"][:]
    source = mixed(tmp_path, weights, stopping)
    streamed = list(source.iterate())
    assert texts(streamed) == expected
    source.build_index()
    assert source.total == len(expected)
    assert [line.position for line in streamed] == list(range(len(expected)))
    assert list(source.rows(range(len(expected)))) == streamed
    assert list(source.rows([5, 1, 9, 1])) == [streamed[at] for at in (5, 1, 9, 1)]
    assert list(source.iterate(20)) == streamed[20:]
    assert source.page(3, 4) == streamed[3:7]
    for line in streamed[:30]:
        name = list(SIZES)[line.part]
        assert line.row["text"].startswith(name) and line.where == f"{name}:{line.number}"


def test_a_mix_without_weights_is_one_after_the_other(tmp_path: Path) -> None:
    source = mixed(tmp_path, [None, None, None], "concatenate")
    expected = [f"{name}{at}" for name, size in SIZES.items() for at in range(size)]
    assert texts(source.iterate()) == expected
    source.build_index()
    assert source.total == len(expected)
    assert texts(source.rows([0, 39, 40, 46, 47, 136])) == [expected[at] for at in (0, 39, 40, 46, 47, 136)]
    assert texts(source.iterate(45)) == expected[45:]


def test_the_first_rows_need_no_index(tmp_path: Path) -> None:
    source = mixed(tmp_path, [0.5, 0.3, 0.2], "first_exhausted")
    assert len(source.page(0, 5)) == 5
    assert not source.indexed and source.total is None


def test_limits_of_parts_and_of_the_mix_hold(tmp_path: Path) -> None:
    from dataclasses import replace

    one, two, _ = parts(tmp_path, [None, None, None])
    both = DatasetInput("m", kind="mix", parts=(replace(one, limit=2), two), limit=5)
    source = open_source(both)
    expected = ["a0", "a1", "b0", "b1", "b2"]
    assert texts(source.iterate()) == expected
    source.build_index()
    assert source.total == 5 and texts(source.rows([4, 1])) == ["b2", "a1"]


def test_F32_an_empty_part_of_a_weighted_mix_is_refused_by_name(tmp_path: Path) -> None:
    found = parts(tmp_path, [0.5, 0.5], {"a": 3, "nothing": 0})
    source = open_source(DatasetInput("m", kind="mix", parts=found, stopping="first_exhausted"))
    with pytest.raises(DataError, match="nothing has 0 rows"):
        list(islice(source.iterate(), 3))
    with pytest.raises(DataError, match="nothing has 0 rows"):
        list(source.rows([0]))


def test_other_weights_have_another_fingerprint(tmp_path: Path) -> None:
    keys = {mixed(tmp_path, weights, stopping).fingerprint() for weights in WEIGHTS[:3] for stopping in
            ("concatenate", "first_exhausted", "all_exhausted")}  # fmt: skip
    assert len(keys) == 9


def test_a_weight_next_to_nothing_is_refused_and_not_drawn_for_ever() -> None:
    inputs = [DatasetInput("a"), DatasetInput("b")]
    with pytest.raises(DataError, match="billion"):
        draw_parts([1000, 1000], [1 - 1e-9, 1e-9], "all_exhausted", inputs)


def test_places_are_those_of_the_drawn_order() -> None:
    drawn = draw_parts([5000, 9000], [0.4, 0.6], "all_exhausted", [DatasetInput("a"), DatasetInput("b")])
    order = _Order(drawn, 2)
    seen = [0, 0]
    for position, part in enumerate(drawn.tolist()):
        if position % 37 == 0 or position in (4095, 4096, 4097):
            assert order.place(position) == (part, seen[part])
        seen[part] += 1
