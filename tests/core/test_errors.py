"""Errors a user meets: one root, one sentence and a next step, an exit code."""

from __future__ import annotations

import inspect

import pytest

from studio.core import errors

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_has_one_root_and_an_exit_code_of_its_own(kind: type[errors.StudioError]) -> None:
    assert issubclass(kind, errors.StudioError)
    assert kind.exit_code in (1, 2)
    assert kind.__doc__
    assert kind.__name__ in (errors.__doc__ or ""), "it is missing from the tree"


def test_an_error_reads_as_its_sentence_and_the_next_step() -> None:
    assert str(errors.RunError("It runs.", "Stop it first.")) == "It runs. Stop it first."
    assert str(errors.RunError("It runs.")) == "It runs."
    assert str(errors.ConfigError("training.seed", "should be a number.")) == "training.seed: should be a number."
    assert str(errors.ConfigError("", "There is no file.")) == "There is no file."


def test_the_inputs_fault_is_told_from_the_doings() -> None:
    assert errors.ConfigError("", "a").exit_code == 2
    assert errors.DataError("a", line=7).exit_code == 2
    assert errors.DataError("a", line=7).line == 7
    assert errors.RunError("a").exit_code == 1
    assert errors.WorkerError("a").exit_code == 1
