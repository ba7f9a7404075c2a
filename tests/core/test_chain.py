"""Runs that build on each other: names put in, and orders that can't be."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.chain import check_chain, with_runs
from studio.core.errors import ConfigError

FIRST: dict[str, Any] = {"model": {"name_or_path": "starter"}}
SECOND: dict[str, Any] = {"model": {"name_or_path": "run:@1"}, "training": {"seed": 7}}
THIRD: dict[str, Any] = {"model": {"name_or_path": "run:@1"}, "method": {"rewards": ["json", "model:run:@2"]}}


def test_each_run_gets_the_ids_of_those_before_it() -> None:
    check_chain([FIRST, SECOND, THIRD])
    assert with_runs(SECOND, ["a"]) == {"model": {"name_or_path": "run:a"}, "training": {"seed": 7}}
    assert with_runs(THIRD, ["a", "b"])["method"] == {"rewards": ["json", "model:run:b"]}
    assert THIRD["method"]["rewards"][1] == "model:run:@2"


@pytest.mark.parametrize(
    ("files", "path", "words"),
    [
        ([SECOND], "model.name_or_path", "there is no file before it"),
        ([FIRST, THIRD], "method.rewards", "there are 1 files before it"),
        ([FIRST, {"model": {"name_or_path": "run:@0"}}], "model.name_or_path", "of file 0"),
    ],
)
def test_a_file_that_isnt_there_yet_is_told(files: list[dict[str, Any]], path: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        check_chain(files)
    assert told.value.field == path


def test_other_names_are_left_alone() -> None:
    data = {"dataset": {"path": "my run:@1 notes"}, "model": {"name_or_path": "run:20261122-1412-a"}}
    check_chain([data])
    assert with_runs(data, []) == data
