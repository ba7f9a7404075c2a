"""What a form is told of the knobs: all of them, each with its words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from studio.core.config import RunConfig
from studio.core.knobs import Knob, knobs

KNOBS = knobs()
TAGS = {"method.name", "adapter.type"}  # they choose a section, and are no knobs


def leaves(section: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of everything in a config."""
    found: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {f"{prefix}{name}": value}
    return found


def test_every_leaf_of_a_config_is_one_knob_with_its_default() -> None:
    assert {knob.path: knob.default for knob in KNOBS} == {
        path: value for path, value in leaves(RunConfig()).items() if path not in TAGS
    }
    assert len(KNOBS) == len({knob.path for knob in KNOBS})


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.path)
def test_a_knob_has_a_name_a_sentence_of_help_and_a_place(knob: Knob) -> None:
    assert knob.title and knob.title[0].isupper() and knob.title != knob.name
    assert knob.help.endswith(".") and len(knob.help.split()) >= 4
    assert knob.basic or knob.group, "it would stand nowhere"
    assert knob.name == knob.path.split(".")[-1]


def test_titles_tell_the_knobs_apart() -> None:
    titles = [knob.title for knob in KNOBS]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("path", "kind", "choices", "optional"),
    [
        ("training.learning_rate", "float", (), False),
        ("training.max_steps", "int", (), True),
        ("training.packing", "bool", (), False),
        ("training.gradient_checkpointing", "choice", ("auto", "true", "false"), False),
        ("training.report_to", "list", ("tensorboard", "trackio", "wandb", "mlflow"), False),
        ("model.quantization", "choice", ("none", "nf4", "fp4", "int8"), False),
        ("model.revision", "text", (), True),
        ("adapter.target_modules", "text", (), False),
        ("dataset.columns", "map", (), False),
        ("hardware.device", "text", (), False),
    ],
)
def test_a_knob_tells_what_it_takes(path: str, kind: str, choices: tuple[str, ...], optional: bool) -> None:
    knob = next(knob for knob in KNOBS if knob.path == path)
    assert (knob.kind, knob.choices, knob.optional) == (kind, choices, optional)
