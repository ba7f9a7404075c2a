"""How numbers are held in memory, where a run asks for something else than the libraries do by themselves.

In: a config, a model. Out: the model, its parameters in the wished formats; the allocator told before it begins. Knows
no training.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from studio.core.config import RunConfig
from studio.worker.device import Setup

_ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"
_GROWING = "expandable_segments:True"


def settle_allocator(config: RunConfig) -> None:
    """Take back the studio's wish for growing segments where the run has another; a person's own words stand.

    Torch reads the variable when a card is first used, which is after this.
    """
    if not config.hardware.expandable_segments and os.environ.get(_ALLOCATOR) == _GROWING:
        del os.environ[_ALLOCATOR]


def prepare(model: Any, config: RunConfig) -> Any:
    """With `prepare_for_kbit`, what isn't quantized in float32, as PEFT does it."""
    if config.model.quantization == "none" or config.model.prepare_for_kbit is not True:
        return model
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def hold_adapter(model: Any, config: RunConfig, setup: Setup) -> None:
    """The adapter's numbers in float32, or in the model's own format, where the run says which."""
    wish = getattr(config.adapter, "autocast_adapter_dtype", "auto")
    if wish == "auto" or not hasattr(model, "peft_config"):
        return
    dtype = torch.float32 if wish else setup.weights
    for name, parameter in model.named_parameters():
        # DoRA's lengths change by less than 16 bits resolve
        if parameter.requires_grad and "lora_magnitude_vector" not in name:
            parameter.data = parameter.data.to(dtype)
