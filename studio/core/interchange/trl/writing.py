"""A run as TRL's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.config import RunConfig
from studio.core.interchange.carried import (
    Carried,
    at,
    spare,
    write_pairs,
)
from studio.core.interchange.trl.names import (
    COMMANDS,
    DEFAULTS,
    LORA,
    NAME,
    PACKING,
    PAIRS,
)


def write(config: RunConfig) -> Carried:
    """The options of TRL's command for a run."""
    data = config.model_dump(mode="json")
    name = config.method.name
    carried = Carried(write_pairs(data, (*PAIRS, *PACKING) if name in ("sft", "pretrain") else PAIRS))
    if name == "pretrain":
        carried.settings["completion_only_loss"] = False
    elif name not in COMMANDS:
        carried.leave("method.name", name, f"{NAME}'s command line has no {name}")
    knobs = config.training
    carried.settings["learning_rate"] = knobs.learning_rate
    carried.settings["warmup_steps"] = knobs.warmup_ratio if knobs.warmup_steps is None else knobs.warmup_steps
    if name in COMMANDS:
        method = {key: value for key, value in data["method"].items() if key not in ("name", "rewards", "allow_code")}
        carried.settings |= {key: value for key, value in method.items() if value is not None and value != "auto"}
    if config.training.gradient_checkpointing != "auto":
        carried.settings["gradient_checkpointing"] = config.training.gradient_checkpointing
    for key in ("logging_steps", "eval_steps", "save_steps"):
        if at(data, f"training.{key}"):
            carried.settings[key] = at(data, f"training.{key}")
    if config.training.report_to:
        carried.settings["report_to"] = list(config.training.report_to)
    carried.settings["dataset_name"] = config.dataset.label.split(" + ")[0]
    if not isinstance(config.dataset.path, str):
        carried.leave("dataset.path", config.dataset.label, f"{NAME}'s command line takes a mixture as a file")
    if config.dataset.validation_split:
        carried.leave("dataset.validation_split", config.dataset.validation_split, f"{NAME} wants a split of its own")
    _write_adapter(carried, config, data)
    carried.settings = spare(carried.settings, DEFAULTS)
    return carried


def _write_adapter(carried: Carried, config: RunConfig, data: Mapping[str, Any]) -> None:
    kind = at(data, "adapter.type")
    if kind is None:
        return
    if kind != "lora":
        carried.leave("adapter.type", kind, f"{NAME}'s command line has no adapter like {kind}; LoRA is written")
    carried.settings |= {"use_peft": True, **write_pairs(data, LORA)}
    carried.settings["lora_target_modules"] = at(data, "adapter.target_modules")
    quantized = config.model.quantization
    if quantized == "int8":
        carried.settings["load_in_8bit"] = True
    elif quantized != "none":
        carried.settings |= {"load_in_4bit": True, "bnb_4bit_quant_type": quantized}
        carried.settings["use_bnb_nested_quant"] = config.model.double_quant
