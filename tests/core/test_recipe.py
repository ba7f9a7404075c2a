"""A recipe says what it means, or says which field of which step doesn't."""

from __future__ import annotations

import json
from typing import Any

import pytest

from studio.core.configfile import parse_yaml, to_yaml
from studio.core.errors import ConfigError
from studio.core.recipe import STEPS, Recipe, parse_recipe

ONE_OF_EACH: list[dict[str, Any]] = [
    {"do": "edit", "rows": {"3": {"text": "better"}}},
    {"do": "rows", "positions": [7, 0]},
    {"do": "problems", "kinds": ["duplicate", "pii_email"]},
    {"do": "length", "unit": "tokens", "part": "answer", "most": 900},
    {"do": "language", "keep": ["en", "unknown"]},
    {"do": "script", "keep": ["Latin"]},
    {"do": "pattern", "pattern": r"\bcolou?r\b", "keep": "others", "part": "prompt", "ignore_case": True},
    {"do": "score", "column": "quality", "least": 0.5},
    {"do": "sample", "rows": 100},
    {"do": "system", "text": "Be brief."},
    {"do": "convert", "format": "messages"},
]


def test_a_recipe_with_every_step_comes_back_from_yaml_and_json_as_it_was() -> None:
    assert [step["do"] for step in ONE_OF_EACH] == list(STEPS), "a step is missing here"
    recipe = parse_recipe({"steps": ONE_OF_EACH})
    plain = recipe.model_dump(mode="json")
    assert parse_recipe(parse_yaml(to_yaml(plain), "recipe.yaml")) == recipe
    assert parse_recipe(json.loads(json.dumps(plain))) == recipe
    assert recipe.steps[0].model_dump()["rows"] == {3: {"text": "better"}}, "positions are numbers"


def test_a_recipe_without_steps_is_a_copy() -> None:
    assert parse_recipe({}) == Recipe()


@pytest.mark.parametrize(
    ("steps", "field", "told"),
    [
        ("filter", "steps", "list"),
        (["filter"], "steps.0", "do: length"),
        ([{"most": 4}], "steps.0.do", "no step"),
        ([{"do": "lenght", "most": 4}], "steps.0.do", "nearest is length"),
        ([{"do": "length"}], "steps.0.least", "the least, the most, or both"),
        ([{"do": "length", "least": 9, "most": 8}], "steps.0.most", "below the least"),
        ([{"do": "length", "most": -1}], "steps.0.most", "greater"),
        ([{"do": "length", "most": "long"}], "steps.0.most", "whole number"),
        ([{"do": "length", "most": 3, "units": "tokens"}], "steps.0.units", "unit"),
        ([{"do": "length", "most": 3, "unit": "words"}], "steps.0.unit", "characters"),
        ([{"do": "score", "column": "q", "least": 2, "most": 1}], "steps.0.most", "below the least"),
        ([{"do": "score", "column": "q", "least": float("nan")}], "steps.0.least", "finite"),
        ([{"do": "problems", "kinds": ["dublicate"]}], "steps.0.kinds", "nearest is duplicate"),
        ([{"do": "problems", "kinds": []}], "steps.0.kinds", "at least 1"),
        ([{"do": "rows", "positions": [0, -1]}], "steps.0.positions.1", "greater"),
        ([{"do": "edit", "rows": {"first": {}}}], "steps.0.rows.first", "whole number"),
        ([{"do": "pattern", "pattern": ""}], "steps.0.pattern", "at least 1"),
        ([{"do": "sample", "rows": 0}], "steps.0.rows", "greater"),
        ([{"do": "system", "text": ""}], "steps.0.text", "at least 1"),
        ([{"do": "convert", "format": "mesages"}], "steps.0.format", "nearest is messages"),
        ([{"do": "sample", "rows": 5}, {"do": "length", "least": "a"}], "steps.1.least", "whole number"),
        ([{"do": "sample", "rows": 5}, {"do": "edit", "rows": {"0": {}}}], "steps.1", "first step"),
    ],
)
def test_the_step_and_the_field_at_fault_are_named(steps: Any, field: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe({"steps": steps})
    assert caught.value.field == field
    assert told in str(caught.value)
    assert caught.value.hint, "no next step"


def test_what_a_recipe_has_no_place_for_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe({"step": []})
    assert caught.value.field == "step"
    assert "steps" in caught.value.hint
