"""Advice is given where it is due, and what it changes mends what it names."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.configfile import parse_config
from studio.ui import advice, form
from studio.ui.plan import Facts
from studio.workspace.presets import list_presets, load_preset

BIG = Facts(parameters=8e9)
LORA = {"type": "lora", "r": 16, "lora_alpha": 16}
GRPO = {"name": "grpo", "temperature": 0.2}


@pytest.mark.parametrize(
    ("data", "facts", "keys"),
    [
        ({}, Facts(), []),
        ({"training": {"learning_rate": 2e-3}}, Facts(), []),
        ({"adapter": None, "training": {"learning_rate": 2e-3}}, Facts(), ["full_rate"]),
        ({"adapter": {"type": "freeze"}, "training": {"learning_rate": 2e-3}}, Facts(), ["full_rate"]),
        ({"adapter": None, "training": {"learning_rate": 1e-3}}, Facts(), []),
        ({"dataset": {"validation_split": 0}}, Facts(), ["no_validation"]),
        ({"training": {"max_length": 4096}}, Facts(longest=2048), ["too_long"]),
        ({"training": {"max_length": 2048}}, Facts(longest=2048), []),
        ({"method": {"name": "dpo"}, "training": {"learning_rate": 2e-4}}, BIG, ["preference_rate"]),
        ({"method": {"name": "dpo"}, "training": {"learning_rate": 2e-5}}, BIG, []),
        ({"method": {"name": "kto"}, "adapter": None, "training": {"learning_rate": 1e-5}}, BIG, ["preference_rate"]),
        ({"method": {"name": "orpo"}, "training": {"learning_rate": 5e-4}}, Facts(parameters=135e6), []),
        ({"method": {"name": "dpo", "beta": 0.01}, "training": {"learning_rate": 1e-5}}, BIG, ["beta_low"]),
        ({"method": {"name": "dpo", "beta": 2}, "training": {"learning_rate": 1e-5}}, BIG, ["beta_high"]),
        ({"method": {"name": "dpo", "beta": 2, "loss_type": ["ipo"]}, "training": {"learning_rate": 1e-5}}, BIG, []),
        ({"method": {"name": "cpo", "loss_type": "simpo"}, "training": {"learning_rate": 1e-5}}, BIG, ["simpo_beta"]),
        ({"method": GRPO}, Facts(), ["cold"]),
        ({"adapter": {**LORA, "r": 512, "lora_alpha": 512}}, Facts(), ["rank"]),
        ({"adapter": {**LORA, "lora_alpha": 64}}, Facts(), ["alpha"]),
        ({"adapter": {**LORA, "lora_alpha": 4}}, Facts(), ["alpha"]),
        ({"adapter": {**LORA, "lora_alpha": 64, "use_rslora": True}}, Facts(), []),
        ({"model": {"quantization": "fp4"}}, Facts(), ["fp4"]),
        ({"training": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}}, Facts(), ["batch"]),
        ({"training": {"packing": True}}, Facts(), ["packing_off"]),
        ({"training": {"packing": True}}, Facts(flash=True), ["packing"]),
        ({"training": {"num_train_epochs": 1}}, Facts(rows=50), ["few_rows"]),
        ({"training": {"num_train_epochs": 1}}, Facts(rows=500), []),
        ({"training": {"early_stopping_patience": 2}}, Facts(), ["early"]),
        ({"method": {"name": "dpo"}, "training": {"learning_rate": 1e-5}}, Facts(type="prompt_completion"), ["misfit"]),
        ({}, Facts(type="unpaired_preference"), ["misfit"]),
    ],
)
def test_advice_is_given_where_it_is_due_and_mends_what_it_names(
    data: dict[str, Any], facts: Facts, keys: list[str]
) -> None:
    config = parse_config(data)
    found = advice.advice(config, facts)
    assert [one.key for one in found] == keys
    mended = form.to_values(config)
    for one in found:
        assert set(one.changes) <= set(form.NAMES)
        mended |= one.changes
    left = {one.key for one in advice.advice(form.to_config(mended), facts)}
    assert not left & set(keys)


def test_no_preset_of_ours_hurts() -> None:
    for entry in list_presets():
        config = parse_config(load_preset(entry.name))
        size = 135e6 if config.model.name_or_path == "starter" else 8e9
        found = {one.key for one in advice.advice(config, Facts(parameters=size, flash=True))}
        assert found <= {"no_validation", "packing"}, entry.name


def test_a_method_misfits_where_core_says_so() -> None:
    assert advice.misfits("") == {}
    assert "sft" not in advice.misfits("language_modeling")
    assert set(advice.misfits("preference")) == {"sft", "pretrain", "distill", "grpo", "rloo", "online_dpo", "ppo"}


def test_what_advice_quotes_is_no_markup() -> None:
    one = advice.Advice("key", "<b>", "<i>", {})
    assert "<b>" not in advice.advice_html([one])
    assert "<i>" not in advice.advice_html([one])
