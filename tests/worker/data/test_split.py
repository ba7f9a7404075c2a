"""Rows shared out: disjoint, of the sizes asked for, groups kept together, values held evenly, the same each time."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.config import DatasetSection
from studio.core.errors import ConfigError, DataError, TargetError
from studio.core.inputs import DatasetInput
from studio.core.schedule import Split
from studio.worker.data.partition import NAMES, TEST, TRAIN, VALIDATION, share_out
from studio.worker.data.source import Cancelled, open_source
from studio.worker.data.split import split_files, split_op
from tests.tiny import sentence, tiny_rows, write_rows

MakeDataset = Callable[..., DatasetInput]


def parts(sizes: tuple[int, int, int], groups: list[int], strata: list[int] | None = None, seed: int = 1) -> np.ndarray:
    return share_out(Split(*sizes), np.array(groups), np.array(strata or [0] * len(groups)), seed)


def counts(part: np.ndarray) -> tuple[int, ...]:
    return tuple(int(np.count_nonzero(part == name)) for name in (TRAIN, VALIDATION, TEST))


@st.composite
def wishes(draw: st.DrawFn) -> tuple[tuple[int, int, int], list[int], list[int], int]:
    rows = draw(st.integers(1, 60))
    test = draw(st.integers(0, rows - 1))
    validation = draw(st.integers(0, rows - 1 - test))
    groups = draw(st.lists(st.integers(0, rows), min_size=rows, max_size=rows))
    strata = draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    return (rows - test - validation, validation, test), groups, strata, draw(st.integers(0, 2**32 - 1))


@given(wishes())
def test_whatever_is_asked_for(asked: tuple[tuple[int, int, int], list[int], list[int], int]) -> None:
    sizes, groups, strata, seed = asked
    part = parts(sizes, groups, strata, seed)
    train, validation, test = counts(part)
    assert train + validation + test == len(groups)
    assert validation <= sizes[1] and test <= sizes[2]
    for group in set(groups):
        assert len({part[row] for row, of in enumerate(groups) if of == group}) == 1
    firsts = [row for row, group in enumerate(groups) if group not in groups[:row]]
    for value in set(strata):
        within = [row for row in firsts if strata[row] == value]
        assert not within or any(part[row] == TRAIN for row in within)  # each value is learnt from
    assert (parts(sizes, groups, strata, seed) == part).all()


@given(st.integers(1, 60), st.data(), st.integers(0, 99))
def test_without_groups_and_values_the_sizes_are_exact(rows: int, data: st.DataObject, seed: int) -> None:
    test = data.draw(st.integers(0, rows - 1))
    validation = data.draw(st.integers(0, rows - 1 - test))
    sizes = (rows - test - validation, validation, test)
    assert counts(parts(sizes, list(range(rows)), seed=seed)) == sizes


def test_another_seed_holds_out_others() -> None:
    assert len({parts((30, 5, 5), list(range(40)), seed=seed).tobytes() for seed in range(5)}) == 5


@pytest.mark.parametrize(
    ("sizes", "values", "expected"),
    [
        # A tenth of 60, 30 and 10 rows.
        ((90, 10, 0), {"a": 60, "b": 30, "c": 10}, {"a": 6, "b": 3, "c": 1}),
        # 5 of 12 : 8 : 5 are 2.4, 1.6 and 1: the largest remainder gets the row that is left.
        ((20, 5, 0), {"a": 12, "b": 8, "c": 5}, {"a": 2, "b": 2, "c": 1}),
        # A value with a single row stays in train.
        ((6, 5, 0), {"a": 10, "b": 1}, {"a": 5}),
        ((1, 2, 0), {"a": 1, "b": 1, "c": 1}, {}),
    ],
)
def test_values_are_equally_frequent(sizes: Any, values: dict[str, int], expected: dict[str, int]) -> None:
    names = [name for name, count in values.items() for _ in range(count)]
    random.Random(0).shuffle(names)
    part = parts(sizes, list(range(len(names))), [ord(name) for name in names])
    assert Counter(name for name, where in zip(names, part, strict=True) if where == VALIDATION) == expected


def test_a_group_larger_than_a_part_is_learnt_from() -> None:
    groups = [0] * 50 + list(range(1, 51))
    for seed in range(10):
        part = parts((80, 10, 10), groups, seed=seed)
        assert set(part[:50].tolist()) == {TRAIN}
        assert counts(part) == (80, 10, 10)


# -- files ------------------------------------------------------------------------------------------------------------


def split(source: DatasetInput, out: Path, seed: int = 3, format: str = "jsonl", **knobs: Any) -> dict[str, Any]:
    section = DatasetSection(path="rows", **{"validation_split": 0.0, **knobs})
    return split_files(open_source(source), section, seed=seed, out=out, format=format)


def written(told: dict[str, Any]) -> dict[str, list[Any]]:
    found = {}
    for name in NAMES:
        path = told[name]["path"]
        if path is None:
            found[name] = []
        elif path.endswith(".parquet"):
            found[name] = pyarrow.parquet.read_table(path).to_pylist()
        else:
            found[name] = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        assert len(found[name]) == told[name]["rows"]
    return found


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_rows_go_to_files_as_they_are(tmp_path: Path, dataset: MakeDataset, format: str) -> None:
    rows = [{**row, "id": number, "note": "ü"} for number, row in enumerate(tiny_rows(40))]
    source = dataset(rows)
    before = Path(source.path).read_bytes()
    told = split(source, tmp_path / "out", validation_split=0.1, test_split=10, format=format)
    found = written(told)
    assert {name: len(part) for name, part in found.items()} == {"train": 27, "validation": 3, "test": 10}
    for part in found.values():
        assert [row["id"] for row in part] == sorted(row["id"] for row in part)  # in the order they had
    assert sorted((row for part in found.values() for row in part), key=lambda row: row["id"]) == rows
    assert Path(source.path).read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(f"{name}.{format}" for name in NAMES)
    again = written(split(source, tmp_path / "again", validation_split=0.1, test_split=10, format=format))
    assert again == found


def test_the_test_rows_of_a_split_are_those_of_a_run(tmp_path: Path, dataset: MakeDataset) -> None:
    from studio.worker.data.prepare import prepare
    from studio.worker.encode import Encoder
    from tests.tiny import tiny_tokenizer

    rows = [{**row, "id": number} for number, row in enumerate(tiny_rows(30))]
    source = dataset(rows)
    section = DatasetSection(path=source.path, validation_split=0.1, test_split=0.2)
    run = prepare(section, source, Encoder(tiny_tokenizer()), max_length=512, seed=3)
    told = split(source, tmp_path / "out", seed=3, validation_split=0.1, test_split=0.2)
    for part, name in enumerate(NAMES):
        assert [row["id"] for row in written(told)[name]] == run.membership.of(part).tolist()


def test_what_cant_be_used_or_is_excluded_is_in_no_part_and_counted(tmp_path: Path, dataset: MakeDataset) -> None:
    rows: list[Any] = [{**row, "id": number} for number, row in enumerate(tiny_rows(20))]
    rows[4] = {"messages": [], "id": 4}
    rows[9] = {**rows[2], "id": 9}
    told = split(dataset(rows), tmp_path / "out", exclude=["duplicate"], exclude_rows=[0, 1], test_split=5)
    ids = sorted(row["id"] for part in written(told).values() for row in part)
    assert ids == [n for n in range(20) if n not in (0, 1, 4, 9)]
    assert (told["unusable"], told["excluded"]) == (1, {"duplicate": 1, "exclude_rows": 2})


def alike(count: int) -> list[dict[str, Any]]:
    """Texts of which always four follow each other that differ in a word, and one of them stands there twice."""
    chance = random.Random(6)
    rows = []
    for number in range(0, count, 5):
        text = f"{sentence(chance, 40, 50)} {number}"
        rows += [{"text": f"{text} {word}", "group": number} for word in ("one", "two", "three", "four", "four")]
    return rows


@pytest.mark.parametrize(("kept", "straddles"), [("off", True), ("exact", True), ("near", False)])
def test_rows_that_are_alike_never_straddle(tmp_path: Path, dataset: MakeDataset, kept: Any, straddles: bool) -> None:
    knobs = {"validation_split": 0.2, "test_split": 0.2, "group_duplicates": kept}
    found = written(split(dataset(alike(200)), tmp_path / "out", **knobs))
    by_group = [{row["group"] for row in found[name]} for name in NAMES]
    by_text = [{row["text"] for row in found[name]} for name in NAMES]
    assert all(by_group)

    def shared(sets: list[set[Any]]) -> int:
        return sum(map(len, sets)) - len(set().union(*sets))

    assert (shared(by_group) > 0) == straddles
    assert (shared(by_text) > 0) == (kept == "off")


def test_a_column_is_held_evenly(tmp_path: Path, dataset: MakeDataset) -> None:
    languages = ["en"] * 60 + ["de"] * 30 + ["fr"] * 9 + [None]
    rows = [{**row, "language": language} for row, language in zip(tiny_rows(100), languages, strict=True)]
    knobs = {"validation_split": 20, "test_split": 10, "stratify_by": "language"}
    found = written(split(dataset(rows), tmp_path / "out", **knobs))
    frequency = {name: Counter(row["language"] for row in found[name]) for name in NAMES}
    assert frequency["test"] == {"en": 6, "de": 3, "fr": 1}
    assert frequency["validation"] == {"en": 12, "de": 6, "fr": 2}
    assert frequency["train"][None] == 1


def test_a_column_that_isnt_there_is_told(tmp_path: Path, dataset: MakeDataset) -> None:
    with pytest.raises(DataError, match="No row has the column colour"):
        split(dataset(tiny_rows(9)), tmp_path / "out", validation_split=0.2, stratify_by="colour")


def test_a_column_of_ten_thousand_values_is_no_category(tmp_path: Path, dataset: MakeDataset) -> None:
    rows = [{"text": f"row {number}", "id": number} for number in range(10_001)]
    with pytest.raises(DataError, match="10,000 different values"):
        split(dataset(rows), tmp_path / "out", validation_split=0.2, stratify_by="id")


@pytest.mark.parametrize("knob", ["validation_split", "test_split"])
def test_more_rows_than_there_are_cant_be_held_out(tmp_path: Path, dataset: MakeDataset, knob: str) -> None:
    with pytest.raises(DataError, match=rf"dataset\.{knob} asks for 9 rows, but only 9"):
        split(dataset(tiny_rows(9)), tmp_path / "out", **{knob: 9})


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, dataset: MakeDataset) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "train.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(TargetError, match="there already"):
        split(dataset(tiny_rows(9)), tmp_path / "out")
    assert (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8") == "mine"


def test_a_split_that_is_stopped_leaves_nothing(tmp_path: Path, dataset: MakeDataset) -> None:
    seen: list[str] = []
    with pytest.raises(Cancelled):
        split_files(
            open_source(dataset(tiny_rows(50))),
            DatasetSection(path="rows"),
            seed=1,
            out=tmp_path / "made" / "out",
            progress=lambda text, *_: seen.append(text),
            stopped=lambda: "Writing the rows" in seen or "Checking the rows" in seen,
        )
    assert list((tmp_path / "made").iterdir()) == []


def test_what_only_a_model_tells_cant_be_left_out_without_one(tmp_path: Path, dataset: MakeDataset) -> None:
    with pytest.raises(ConfigError, match="too_long is told only under a model"):
        split(dataset(tiny_rows(9)), tmp_path / "out", exclude=["too_long"])


def test_as_an_op(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", tiny_rows(20))
    words: list[dict[str, Any]] = []
    told = split_op(
        {
            "dataset": {"name": "rows", "path": str(path)},
            "section": {"path": "rows", "validation_split": 0.25, "test_split": 0.0},
            "seed": 7,
            "out": str(tmp_path / "out"),
            "format": "jsonl",
        },
        words.append,
    )
    assert told["train"] == {"path": str(tmp_path / "out" / "train.jsonl"), "rows": 15}
    assert told["validation"] == {"path": str(tmp_path / "out" / "validation.jsonl"), "rows": 5}
    assert told["test"] == {"path": None, "rows": 0}
    assert {"text": "Checking the rows", "done": 20, "total": 20} in words
