"""An adapter's folder: its config as PEFT reads it, and what of it can become part of a model's weights.

In: a folder. Out: a peft config, or a refusal in plain words; how its training started; how many tokens it knows. Does
no arithmetic.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftConfig

from studio.core.errors import ModelError
from studio.worker.export.shards import TensorFiles

# Kinds of adapters whose layers merge one by one, each held against PEFT's whole merge by a test.
STREAMED = {
    "LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "VERA", "HRA", "LN_TUNING", "TRAINABLE_TOKENS",
    "FOURIERFT", "RANDLORA", "C3A", "MISS", "WAVEFT", "DELORA", "GRALORA", "SHIRA", "VBLORA", "ROAD",
}  # fmt: skip
# Initialisations that took their start out of the base: what was trained belongs onto the rest of it.
_RESIDUAL = ("pissa", "olora")
# The same, but by random numbers or by data that no adapter carries: the rest of the base can't be found again.
_LOST = ("pissa_niter", "corda", "lora_ga", "loftq")


def read_config(folder: Path) -> Any:
    """An adapter's config. Raises ModelError for kinds that are no change of weights."""
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no adapter that PEFT reads ({error}).", "Give an adapter's folder.") from None
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(
            f"Adapters of kind {kind_of(config)} put learnt tokens before the text; they can't become weights.",
            "Export the adapter alone, and load it with PEFT beside its base.",
        )
    return config


def kind_of(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def take_out_start(config: Any) -> str:
    """The initialisation whose start was taken out of the base, "" for others; it isn't run while laying over."""
    start = getattr(config, "init_lora_weights", None)
    if not isinstance(start, str):
        return ""
    if start.startswith(_LOST):
        raise ModelError(
            f"This adapter's start ({start}) was taken out of the base in a way that can't be repeated.",
            "Merge it in the program that trained it."
            if start == "loftq"  # which PEFT doesn't convert
            else "Save it converted to plain LoRA (PEFT's path_initial_model_for_weight_conversion).",
        )
    if start.startswith(_RESIDUAL):
        config.init_lora_weights = False
        return start
    return ""


def wider_vocabulary(model: Any, adapters: list[Path]) -> int | None:
    """How many tokens the adapters' own embeddings have, where that isn't what the model has."""
    layers = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    paths = [path for path, module in model.named_modules() if id(module) in layers]
    rows = model.get_input_embeddings().weight.shape[0]
    for folder in adapters:
        for key, place in TensorFiles([folder / "adapter_model.safetensors"]).places.items():
            for path in paths:
                rest = key.removeprefix("base_model.model.").removeprefix(f"{path}.")
                own = rest == "weight" or rest.endswith("base_layer.weight")
                if own and path in key and place.shape[0] != rows:
                    return place.shape[0]
    return None
