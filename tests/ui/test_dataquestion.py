"""Questions to the desk: what was begun is found again by the same fields, whatever is left out meanwhile."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from studio.core.config import DatasetSection
from studio.core.configfile import parse_as
from studio.core.errors import ConfigError
from studio.ui.dataquestion import QUESTIONS, Reading, Search, Shaping, search_question, shape_question

PLAIN = Reading.model_validate({})


@pytest.mark.parametrize("op", QUESTIONS)
def test_a_report_stays_good_when_rows_are_left_out_or_split_otherwise(op: str) -> None:
    """The desk lays a question's section over what is kept of the dataset."""
    kept = {"exclude": ["duplicate"], "exclude_rows": [3], "validation_split": 0.3, "stratify_by": "label"}
    asked = QUESTIONS[op](PLAIN)["section"]
    laid = parse_as(DatasetSection, {"path": "x", **kept, **asked})
    assert laid == parse_as(DatasetSection, {"path": "x", **asked})
    assert laid.exclude == []
    assert laid.exclude_rows == []


def test_a_check_sees_the_rows_that_are_validated_on_and_a_count_does_not() -> None:
    laid = {
        op: parse_as(DatasetSection, {"path": "x", "validation_path": "held", **QUESTIONS[op](PLAIN)["section"]})
        for op in QUESTIONS
    }
    assert {op: section.validation_path for op, section in laid.items()} == {
        "check": "held",
        "stats": None,
        "map": None,
    }


def test_the_knobs_of_an_epoch_are_no_part_of_a_count() -> None:
    other = Reading.model_validate({"batch": 64, "accumulation": 2, "epochs": 9})
    assert QUESTIONS["stats"](other) == QUESTIONS["stats"](PLAIN)
    assert QUESTIONS["check"](Reading.model_validate({"max_length": 64})) != QUESTIONS["check"](PLAIN)


@pytest.mark.parametrize("fields", [{"max_length": 7}, {"max_length": "long"}, {"batch": 0}, {"epochs": 0}])
def test_what_cannot_be_read_with_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Reading.model_validate(fields)


def test_findings_are_asked_for_where_a_known_kind_of_problem_is() -> None:
    assert search_question(Search(text="a", kind="duplicate"), "/f")["findings"] == "/f"
    assert search_question(Search(text="a", kind="../x"), "/f")["findings"] is None
    assert search_question(Search(text="a"), "/f")["kind"] is None


def test_changed_rows_stand_first_and_keep_their_digits() -> None:
    shaping = Shaping(steps=[{"do": "sample", "rows": 5}], edits={3: '{"id": 12345678901234567890123}'}, title="T")
    told = shape_question(shaping, PLAIN)
    assert [step["do"] for step in told["recipe"]["steps"]] == ["edit", "sample"]
    assert told["recipe"]["steps"][0]["rows"] == {"3": {"id": 12345678901234567890123}}
    assert (told["title"], told["format"]) == ("T", "jsonl")
    assert "title" not in shape_question(Shaping(preview=True), PLAIN)


@pytest.mark.parametrize(
    ("shaping", "field"),
    [
        (Shaping(edits={1: "{torn"}), "steps.0.rows"),
        (Shaping(edits={1: "[1]"}), "steps.0.rows"),
        (Shaping(steps=[{"do": "length"}]), "steps.0.least"),
        (Shaping(steps=[{"do": "sample", "rows": 2}, {"do": "nothing"}]), "steps.1.do"),
    ],
)
def test_a_recipe_that_won_t_do_names_its_step(shaping: Shaping, field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        shape_question(shaping, PLAIN)
    assert refused.value.field.startswith(field)
