"""The table of problems: complete, in plain words, and the only place where a kind is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studio.core.example import RowProblem
from studio.core.problems import PROBLEMS

CORE = Path(__file__).parents[2] / "studio" / "core"
TOLD = re.compile(r"RowProblem\(\s*\"(\w+)\"")


@pytest.mark.parametrize("kind", PROBLEMS)
def test_a_problem_is_told_in_one_sentence(kind: str) -> None:
    problem = PROBLEMS[kind]
    assert problem.kind == kind
    assert re.fullmatch(r"[A-Z].{3,60}[^.]", problem.title)
    assert re.fullmatch(r"[A-Z][^.]+(\.\w[^.]*)*\.", problem.help), "one sentence; a dot within a name is none"


def test_no_two_problems_have_the_same_title() -> None:
    assert len({problem.title for problem in PROBLEMS.values()}) == len(PROBLEMS)


def test_a_row_problem_has_its_kind_and_says_why() -> None:
    problem = RowProblem("null", "text is null")
    assert (problem.kind, str(problem)) == ("null", "text is null")


def test_a_kind_that_is_not_in_the_table_is_a_fault_of_ours() -> None:
    with pytest.raises(AssertionError):
        RowProblem("odd", "it is odd")


def test_what_the_layouts_tell_are_errors() -> None:
    told = {kind for path in CORE.glob("*.py") for kind in TOLD.findall(path.read_text(encoding="utf-8"))}
    assert len(told) > 10
    assert {kind for kind in told if kind not in PROBLEMS or PROBLEMS[kind].severity != "error"} == set()
