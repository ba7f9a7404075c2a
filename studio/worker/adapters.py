"""The adapter a run trains, as PEFT builds it.

In: the config's adapter section. Out: a peft config. Knows no trainer.
"""

from __future__ import annotations

from typing import Any

from studio.core.config import LoraAdapter


def peft_config(adapter: LoraAdapter) -> Any:
    """PEFT's LoraConfig for a causal language model."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=adapter.target_modules,
    )
