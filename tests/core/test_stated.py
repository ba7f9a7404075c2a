"""Knobs that stand for what a run does with memory reach the estimate, each in the right direction."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.config import RunConfig
from studio.core.estimate import Device, Practice, Versions, estimate, prepared
from studio.core.memory.stated import stated
from studio.core.shapes import from_config
from tests.core.published import LLAMA_8B

LLAMA = from_config(LLAMA_8B)


def config_of(**sections: Any) -> RunConfig:
    return RunConfig.model_validate({"hardware": {}, "dataset": {"path": None}, **sections})


def allocated(versions: Versions | None = None, **sections: Any) -> int:
    return estimate(config_of(**sections), LLAMA, versions=versions, device=Device()).allocated


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"training": {"loss_implementation": "full"}}),
        ({"adapter": {"type": "lora", "autocast_adapter_dtype": False}},
         {"adapter": {"type": "lora", "autocast_adapter_dtype": True}}),
        ({"model": {"quantization": "nf4"}}, {"model": {"quantization": "nf4", "prepare_for_kbit": True}}),
        ({"training": {"loss_implementation": "full", "gradient_checkpointing": False}},
         {"training": {"loss_implementation": "full", "gradient_checkpointing": False, "keep_logits": True}}),
    ],
)  # fmt: skip
def test_each_knob_moves_the_estimate(less: dict[str, Any], more: dict[str, Any]) -> None:
    assert allocated(**less) < allocated(**more)


def test_an_adapter_in_float32_is_twice_one_in_16_bits() -> None:
    made = [estimate(config_of(adapter={"type": "lora", "autocast_adapter_dtype": wish}), LLAMA, device=Device())
            for wish in (True, False)]  # fmt: skip
    wide, narrow = (one.moments["loaded"].parts["adapter"] for one in made)
    assert wide == 2 * narrow


def test_old_libraries_own_habits_are_taken_back_by_a_knob() -> None:
    day = Versions(transformers="4.45.2", trl="0.11.0")
    quantized = {"quantization": "nf4", "dtype": "float16"}
    assert allocated(day, model={**quantized, "prepare_for_kbit": False}) < allocated(day, model=quantized)
    assert stated(config_of(training={"use_reentrant": False}), None, day).reentrant is False
    assert stated(config_of(), None, day).reentrant is None


def test_what_the_caller_knows_stands() -> None:
    told = Practice(loss="liger", adapter_item=2, reentrant=True, upcast="norms", autocast=True)
    config = config_of(
        training={"loss_implementation": "full", "use_reentrant": False, "autocast": False},
        adapter={"type": "lora", "autocast_adapter_dtype": True},
        model={"prepare_for_kbit": False},
        hardware={"expandable_segments": False},
    )
    found = stated(config, told, None)
    assert (found.loss, found.adapter_item, found.reentrant, found.upcast, found.autocast) == (
        "liger", 2, True, "norms", True,
    )  # fmt: skip
    assert not found.expandable


def test_how_segments_grow_is_the_runs_own_word() -> None:
    grown, fixed = (
        prepared(config_of(hardware={"expandable_segments": wish}), LLAMA, None, None, None, Device())[2]
        for wish in (True, False)
    )
    assert grown and not fixed
