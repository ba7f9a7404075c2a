"""A run as Axolotl's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.config import RunConfig
from studio.core.interchange.axolotl.names import (
    DEFAULTS,
    FORMATS,
    LORA,
    NAME,
    PAIRS,
    RL,
)
from studio.core.interchange.carried import (
    Carried,
    at,
    spare,
    write_pairs,
)


def write(config: RunConfig) -> Carried:
    """Axolotl's settings for a run."""
    data = config.model_dump(mode="json")
    carried = Carried(write_pairs(data, PAIRS))
    carried.settings.pop("revision_of_model", None)
    if config.model.revision:
        carried.leave("model.revision", config.model.revision, f"{NAME} takes it as revision_of_model")
    _write_method(carried, data)
    _write_adapter(carried, config, data)
    dtype, whole = config.model.dtype, config.training.autocast is False
    if dtype != "float32":
        carried.settings["fp16" if dtype == "float16" else "bf16"] = "full" if whole and dtype == "bfloat16" else "auto"
    attention = config.model.attn_implementation
    if attention != "auto":
        carried.settings["attn_implementation"] = attention
    if config.training.gradient_checkpointing == "auto":
        carried.settings["gradient_checkpointing"] = True
    else:
        carried.settings["gradient_checkpointing"] = config.training.gradient_checkpointing
    for name in ("eval_steps", "save_steps"):
        if at(data, f"training.{name}"):
            carried.settings[name] = at(data, f"training.{name}")
    _write_datasets(carried, config)
    carried.settings = spare(carried.settings, DEFAULTS)
    return carried


def _write_method(carried: Carried, data: Mapping[str, Any]) -> None:
    name, method = at(data, "method.name"), data["method"]
    if name in ("sft", "pretrain"):
        return
    if name == "reward":
        carried.settings["reward_model"] = True
        return
    theirs = {"dpo": "ipo" if method.get("loss_type") == ["ipo"] else "dpo", "kto": "kto", "orpo": "orpo"}.get(name)
    if name == "cpo" and method["loss_type"] == "simpo":
        theirs = "simpo"
    if theirs is None:
        carried.leave("method.name", name, f"{NAME} has no method like {name}, or asks more of it than run.yaml says")
        return
    carried.settings |= {"rl": theirs, **write_pairs(data, RL[name])}
    carried.settings.pop("dpo_beta", None)
    if name == "orpo":
        carried.settings.pop("rl_beta", None)


def _write_adapter(carried: Carried, config: RunConfig, data: Mapping[str, Any]) -> None:
    kind = at(data, "adapter.type")
    if kind is None:
        return
    if kind != "lora":
        carried.leave("adapter.type", kind, f"{NAME} has no adapter like {kind}; LoRA is written")
    quantized = config.model.quantization
    carried.settings["adapter"] = "qlora" if quantized in ("nf4", "fp4") else "lora"
    if quantized == "int8":
        carried.settings["load_in_8bit"] = True
    elif quantized != "none":
        carried.settings["load_in_4bit"] = True
    targets = at(data, "adapter.target_modules")
    if targets in (None, "all-linear"):
        carried.settings["lora_target_linear"] = True
    else:
        carried.settings["lora_target_modules"] = targets
    carried.settings |= write_pairs(data, LORA)


def _write_datasets(carried: Carried, config: RunConfig) -> None:
    path = config.dataset.path
    parts = [path] if isinstance(path, str) else path or []
    back = {ours: theirs for theirs, ours in reversed(list(FORMATS.items())) if ours != "auto"}
    kind = back.get(config.dataset.format, "chat_template")
    entries = []
    for part in parts:
        named = part if isinstance(part, str) else part.path
        if not isinstance(part, str) and part.weight is not None:
            carried.leave("dataset.path", part.weight, f"{NAME} joins datasets without weights")
        entries.append({"path": named, "type": kind})
    carried.settings["datasets"] = entries
    if config.dataset.train_on == "all":
        carried.settings["train_on_inputs"] = True
