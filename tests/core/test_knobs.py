"""What a form is told of the knobs: all of them, each with its words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from studio.core.config import TAGS, RunConfig
from studio.core.configfile import parse_config
from studio.core.knobs import Knob, knobs, sections_of, tag_of

KNOBS = knobs()
METHODS, ADAPTERS = (
    [tag_of(one) for one in sections_of(RunConfig.model_fields[section])] for section in ("method", "adapter")
)
# They choose a section, and are no knobs; nor are numbers that a method fixes.
NO_KNOBS = {f"{section}.{tag}" for section, tag, _ in TAGS}


def leaves(section: BaseModel, prefix: str = "") -> dict[str, Any]:
    """Dotted path -> value of everything in a config."""
    found: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {f"{prefix}{name}": value}
    return found


@pytest.mark.parametrize(
    ("method", "adapter"), [*((method, "lora") for method in METHODS), *(("sft", adapter) for adapter in ADAPTERS)]
)
def test_every_leaf_of_a_config_is_one_knob_with_its_default(method: str, adapter: str) -> None:
    config = parse_config({"method": {"name": method}, "adapter": {"type": adapter}})
    known = [knob for knob in KNOBS if knob.of in ("", method, adapter)]
    fixed = {"method.num_generations"} if method in ("online_dpo", "distill") else set()
    assert {knob.path: knob.default for knob in known} == {
        path: value for path, value in leaves(config).items() if path not in NO_KNOBS | fixed
    }
    assert len(known) == len({knob.path for knob in known})


def test_no_two_knobs_have_one_key() -> None:
    assert len(KNOBS) == len({knob.key for knob in KNOBS})
    assert {knob.path for knob in KNOBS if not knob.of} <= leaves(RunConfig()).keys()


@pytest.mark.parametrize("knob", KNOBS, ids=lambda knob: knob.key)
def test_a_knob_has_a_name_a_sentence_of_help_and_a_place(knob: Knob) -> None:
    assert knob.title and knob.title[0].isupper() and knob.title != knob.name
    assert knob.help.endswith(".") and len(knob.help.split()) >= 4
    assert knob.basic or knob.group, "it would stand nowhere"
    assert knob.name == knob.path.split(".")[-1]


def test_titles_tell_the_knobs_apart_that_stand_in_a_form_together() -> None:
    for method in METHODS:
        for adapter in ADAPTERS:
            titles = [knob.title for knob in KNOBS if knob.of in ("", method, adapter)]
            assert len(set(titles)) == len(titles), (method, adapter)


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


@pytest.mark.parametrize(
    ("key", "kind", "item", "min_length"),
    [
        ("method.dpo.loss_type", "list", "text", 1),
        ("method.dpo.loss_weights", "texts", "float", 0),
        ("method.grpo.rewards", "texts", "text", 1),
        ("dataset.exclude_rows", "texts", "int", 0),
        ("adapter.lora.rank_pattern", "map", "int", 0),
        ("adapter.lora.alpha_pattern", "map", "float", 0),
        ("dataset.columns", "map", "text", 0),
        ("training.lr_scheduler_kwargs", "map", "text", 0),
    ],
)
def test_a_knob_of_several_tells_what_stands_in_it(key: str, kind: str, item: str, min_length: int) -> None:
    knob = next(knob for knob in KNOBS if knob.key == key)
    assert (knob.kind, knob.item, knob.min_length) == (kind, item, min_length)


def test_every_method_and_adapter_has_its_own_knobs_and_no_others() -> None:
    keys = {knob.key for knob in KNOBS}
    assert {"method.dpo.beta", "method.kto.beta", "method.sft.loss_type", "adapter.lora.r", "adapter.vera.r"} <= keys
    assert not {"method.sft.beta", "method.pretrain.loss_type", "adapter.ia3.r"} & keys
