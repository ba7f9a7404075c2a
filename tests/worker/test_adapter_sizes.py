"""Trained parameters as the estimate counts them, against PEFT's own count on the real classes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from studio.core.config import RunConfig
from studio.core.estimate import Device, estimate
from studio.core.memory import state
from studio.core.shapes import from_config
from tests.core.published import tiny

LINEAR_ONLY = ("loha", "lokr", "oft", "boft")  # PEFT lays these over nn.Linear and not over GPT-2's layers
ADAPTERS: list[dict[str, Any]] = [
    {"type": "lora"},
    {"type": "lora", "r": 5, "target_modules": "attention"},
    {"type": "lora", "use_dora": True},
    {"type": "lora", "layers_to_transform": [0]},
    {"type": "lora", "rank_pattern": {"q_proj": 4, "c_attn": 2}},
    {"type": "lora", "trainable_token_indices": [1, 2]},
    {"type": "lora", "modules_to_save": ["lm_head"]},
    {"type": "adalora"},
    {"type": "ia3"},
    {"type": "vera"},
    {"type": "loha"},
    {"type": "lokr"},
    {"type": "lokr", "decompose_both": True, "r": 2},
    {"type": "oft", "oft_block_size": 8},
    {"type": "boft"},
    {"type": "prefix_tuning"},
    {"type": "prefix_tuning", "prefix_projection": True},
    {"type": "prompt_tuning"},
    {"type": "p_tuning"},
    {"type": "ln_tuning"},
    {"type": "freeze", "trained_layers": 1},
    {"type": "freeze", "trained_layers": 1, "train_head": False},
]


def _counted(kind: str, config: RunConfig) -> tuple[int, int]:
    """Trained parameters, and numbers in buffers that the adapter brought."""
    import peft
    from transformers import AutoConfig, AutoModelForCausalLM

    from studio.worker.adapters import peft_config
    from studio.worker.adapters.freeze import freeze

    plain = {key: value for key, value in tiny(kind).items() if key != "model_type"}
    section: Any = config.adapter
    with warnings.catch_warnings(), torch.device("cpu" if section.type == "boft" else "meta"):
        warnings.simplefilter("ignore")  # what PEFT says about a layout that it puts right by itself
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **plain))
        model.tie_weights()
        before = sum(buffer.numel() for buffer in model.buffers())
        if section.type == "freeze":
            freeze(model, section)
        else:
            model = peft.get_peft_model(model, peft_config(section, model))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return trained, sum(buffer.numel() for buffer in model.buffers()) - before


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: "-".join(str(v) for v in adapter.values()))
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2_moe", "qwen3"])
def test_an_adapter_trains_as_many_numbers_as_peft_says(kind: str, adapter: dict[str, Any]) -> None:
    if kind == "gpt2" and adapter["type"] in LINEAR_ONLY:
        pytest.skip("PEFT lays it over nn.Linear alone")
    config = RunConfig.model_validate({"adapter": adapter})
    step = estimate(config, from_config(tiny(kind)), device=Device()).step
    ours = state.trained_sizes(step.run)
    trained, buffers = _counted(kind, config)
    assert sum(numel * times for numel, _, times in ours) == trained
    if adapter["type"] == "boft":
        assert step.constant["adapter"] - state.total(ours) == 4 * buffers
