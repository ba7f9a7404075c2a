"""How many rows are learnt from and how many steps that takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.configfile import parse_config
from studio.core.schedule import optimizer_steps, split_sizes

SHARES = st.floats(0, 0.9).filter(lambda share: share == 0 or share > 1e-6)


@given(st.integers(0, 10_000), SHARES, SHARES)
def test_every_row_is_in_one_part_and_some_are_learnt_from(rows: int, validation: float, test: float) -> None:
    if validation + test >= 1:
        validation, test = validation / 2, test / 2
    section = parse_config({"dataset": {"validation_split": validation, "test_split": test}}).dataset
    split = split_sizes(section, rows)
    assert sum(split) == rows
    assert min(split) >= 0
    assert split.train >= 1 or rows == 0
    assert (split.test > 0) == (test > 0 and rows > 1)
    assert (split.validation > 0) == (validation > 0 and rows - split.test > 1)
    assert split.test <= max(1, test * rows + 0.5)
    assert split.validation <= max(1, validation * rows + 0.5)


@pytest.mark.parametrize(
    ("rows", "validation", "test", "expected"),
    [
        (320, 0.05, 0.0, (304, 16, 0)),
        (100, 0.1, 0.1, (81, 9, 10)),
        (1, 0.5, 0.4, (1, 0, 0)),
        (2, 0.5, 0.4, (1, 0, 1)),
        (3, 0.01, 0.01, (1, 1, 1)),
        (5, 0.0, 0.0, (5, 0, 0)),
    ],
)
def test_rows_are_shared_out(rows: int, validation: float, test: float, expected: tuple[int, ...]) -> None:
    section = parse_config({"dataset": {"validation_split": validation, "test_split": test}}).dataset
    assert split_sizes(section, rows) == expected


@pytest.mark.parametrize(
    ("rows", "validation", "test", "expected"),
    [
        (100, 20, 0.0, (80, 20, 0)),
        (100, 20, 10, (70, 20, 10)),
        (100, 0.5, 10, (45, 45, 10)),
        (100, 1, 1, (98, 1, 1)),
        (10, 500, 0.0, (1, 9, 0)),
        (10, 500, 500, (1, 0, 9)),
    ],
)
def test_from_one_on_it_is_a_number_of_rows(
    rows: int, validation: float, test: float, expected: tuple[int, ...]
) -> None:
    section = parse_config({"dataset": {"validation_split": validation, "test_split": test}}).dataset
    assert split_sizes(section, rows) == expected


def test_with_validation_rows_of_their_own_none_are_held_out() -> None:
    knobs = {"validation_split": 0.5, "test_split": 0.1, "validation_path": "held.jsonl"}
    assert split_sizes(parse_config({"dataset": knobs}).dataset, 100) == (90, 0, 10)


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))
def test_steps_are_those_that_a_trainer_would_take(rows: int, batch: int, gathered: int, epochs: int) -> None:
    knobs = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": gathered, "num_train_epochs": epochs}
    steps = 0
    for _ in range(epochs):  # batch after batch; an epoch's last gathering may be short of batches
        held = 0
        for first in range(0, rows, batch):
            held += 1
            if held == gathered or first + batch >= rows:
                steps, held = steps + 1, 0
    assert optimizer_steps(parse_config({"training": knobs}), rows) == steps


@pytest.mark.parametrize(("epochs", "most", "expected"), [(0.5, None, 5), (0.01, None, 1), (2.5, None, 25), (3, 7, 7)])
def test_parts_of_epochs_and_a_limit_count(epochs: float, most: int | None, expected: int) -> None:
    knobs = {"num_train_epochs": epochs, "max_steps": most, "per_device_train_batch_size": 2}
    config = parse_config({"training": {**knobs, "gradient_accumulation_steps": 1}})
    assert optimizer_steps(config, 20) == expected
