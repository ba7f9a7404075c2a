"""Choices that can't work together are refused at the knob to change; those beside them go through."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.configfile import parse_config
from studio.core.errors import ConfigError
from studio.core.knobs import knobs
from studio.core.sections.together import SCHEDULES, refusals

NO_ROWS = {"validation_split": 0.0}
NF4 = {"quantization": "nf4"}

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("model.quantization", {"model": NF4, "adapter": None}),
    ("model.quantization", {"model": NF4, "adapter": {"type": "freeze"}}),
    ("adapter.init_lora_weights", {"adapter": {"init_lora_weights": "loftq"}}),
    ("adapter.init_lora_weights", {"adapter": {"init_lora_weights": "loftq"}, "model": {"quantization": "int8"}}),
    ("adapter.init_lora_weights", {"adapter": {"init_lora_weights": "pissa"}, "model": NF4}),
    ("adapter.init_lora_weights", {"adapter": {"init_lora_weights": "olora"}, "model": {"quantization": "int8"}}),
    ("adapter.init_lora_weights", {"adapter": {"init_lora_weights": "orthogonal"}, "model": NF4}),
    ("adapter.type", {"adapter": {"type": "loha"}, "model": NF4}),
    ("adapter.type", {"adapter": {"type": "lokr"}, "model": {"quantization": "fp4"}}),
    ("training.packing", {"adapter": {"type": "prompt_tuning"}, "training": {"packing": True}}),
    ("training.packing", {"adapter": {"type": "prefix_tuning"}, "training": {"packing": True}}),
    (
        "training.padding_free",
        {
            "adapter": {"type": "p_tuning"},
            "training": {"padding_free": True},
            "model": {"attn_implementation": "flash_attention_2"},
        },
    ),
    (
        "training.gradient_checkpointing",
        {"adapter": {"type": "prefix_tuning"}, "training": {"gradient_checkpointing": True}},
    ),
    ("training.load_best_model_at_end", {"dataset": NO_ROWS, "training": {"load_best_model_at_end": True}}),
    ("training.early_stopping_patience", {"dataset": NO_ROWS, "training": {"early_stopping_patience": 2}}),
    ("training.lr_scheduler_type", {"dataset": NO_ROWS, "training": {"lr_scheduler_type": "reduce_lr_on_plateau"}}),
    ("training.lr_scheduler_kwargs", {"training": {"lr_scheduler_kwargs": {"min_lr": 1}}}),
    ("training.lr_scheduler_kwargs", {"training": {"lr_scheduler_type": "cosine_with_min_lr"}}),
    ("training.padding_free", {"training": {"padding_free": True}}),
    ("training.optim", {"training": {"optim": "galore_adamw"}}),
    ("training.optim_target_modules", {"training": {"optim_target_modules": ["q_proj"]}}),
    ("adapter.target_r", {"adapter": {"type": "adalora", "init_r": 4, "target_r": 8}}),
    ("adapter.r", {"adapter": {"init_lora_weights": "orthogonal", "r": 3}}),
    ("adapter.continue_from", {"adapter": {"init_lora_weights": "eva", "continue_from": "run:x"}}),
    ("adapter.rank_pattern", {"adapter": {"init_lora_weights": "eva", "rank_pattern": {"q_proj": 2}}}),
    ("adapter.layers_to_transform", {"adapter": {"layers_to_transform": [0], "target_modules": ".*q_proj"}}),
    (
        "adapter.trainable_token_indices",
        {"adapter": {"trainable_token_indices": [1], "modules_to_save": ["embed_tokens"]}},
    ),
    ("adapter.loraplus_lr_ratio", {"adapter": {"loraplus_lr_ratio": 16}, "training": {"optim": "muon"}}),
]
FINE: list[dict[str, Any]] = [
    {"adapter": {"init_lora_weights": "loftq"}, "model": NF4},
    {"adapter": {"init_lora_weights": "eva"}, "model": NF4},
    {"adapter": {"type": "loha"}, "model": {"quantization": "int8"}},
    {"adapter": {"type": "prefix_tuning"}},
    {"training": {"load_best_model_at_end": True}},
    {"training": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}},
    {"training": {"padding_free": True}, "model": {"attn_implementation": "flash_attention_2"}},
    {"training": {"optim": "galore_adamw"}, "adapter": None},
    {"adapter": {"layers_to_transform": [0], "target_modules": "attention"}},
]


@pytest.mark.parametrize(("field", "sections"), REFUSED)
def test_what_cant_work_is_refused_at_the_knob_to_change(field: str, sections: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_config(sections)
    assert refused.value.field == field
    assert refused.value.message[len(field) :].count(". ") <= 1


@pytest.mark.parametrize("sections", FINE)
def test_what_can_work_goes_through(sections: dict[str, Any]) -> None:
    assert not list(refusals(parse_config(sections)))


def test_every_schedule_takes_what_its_function_takes() -> None:
    """The names are read from the functions themselves."""
    from torch.optim.lr_scheduler import ReduceLROnPlateau
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, SchedulerType

    kinds = next(knob for knob in knobs() if knob.path == "training.lr_scheduler_type").choices
    assert set(kinds) == set(SCHEDULES)
    given = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch"}
    for kind, names in SCHEDULES.items():
        made = ReduceLROnPlateau if "plateau" in kind else TYPE_TO_SCHEDULER_FUNCTION[SchedulerType(kind)]
        assert set(names) == set(inspect.signature(made).parameters) - given, kind


def test_the_usual_run_has_nothing_against_it() -> None:
    assert not list(refusals(RunConfig()))
