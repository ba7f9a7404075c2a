"""A run as LLaMA-Factory's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.config import RunConfig
from studio.core.interchange.carried import (
    Carried,
    at,
    listed,
    spare,
    write_pairs,
)
from studio.core.interchange.llamafactory.names import (
    DEFAULTS,
    DPO_LOSSES,
    KTO,
    LORA,
    METHODS,
    NAME,
    PAIRS,
)


def write(config: RunConfig) -> Carried:
    """LLaMA-Factory's settings for a run."""
    data = config.model_dump(mode="json")
    carried = Carried({"stage": "sft", "do_train": True})
    name = config.method.name
    stages = {ours: theirs for theirs, ours in METHODS.items()} | {"orpo": "dpo", "cpo": "dpo"}
    if name not in stages:
        carried.leave("method.name", name, f"{NAME} has no method like {name}")
    carried.settings["stage"] = stages.get(name, "sft")
    carried.settings |= write_pairs(data, PAIRS)
    _write_method(carried, data)
    _write_model(carried, config)
    _write_adapter(carried, data)
    path = config.dataset.path
    carried.settings["dataset"] = path if isinstance(path, str) else ",".join(config.dataset.label.split(" + "))
    carried.settings |= {"all": {"train_on_prompt": True}, "last_assistant": {"mask_history": True}}.get(
        config.dataset.train_on, {}
    )
    if config.training.packing and config.training.packing_strategy != "wrapped":
        carried.settings["neat_packing"] = True
    carried.leave("dataset.path", path, f"{NAME} reads datasets by their entries in dataset_info.json; add one")
    carried.leave("model.name_or_path", config.model.name_or_path, f"{NAME} asks for a template by name; add template:")
    carried.settings = spare(carried.settings, DEFAULTS)
    return carried


def _write_method(carried: Carried, data: Mapping[str, Any]) -> None:
    name, method = at(data, "method.name"), data["method"]
    if name == "kto":
        carried.settings |= write_pairs(data, KTO)
    elif name in ("dpo", "orpo", "cpo"):
        carried.settings["pref_beta"] = method["beta"]
        carried.settings["pref_loss"] = _written_loss(carried, method)
    elif name == "ppo":
        models = [one.removeprefix("model:") for one in method["rewards"] if one.startswith("model:")]
        if models:
            carried.settings["reward_model"] = models[0]


def _written_loss(carried: Carried, method: Mapping[str, Any]) -> str:
    if method["name"] == "orpo":
        return "orpo"
    if method["name"] == "cpo":
        if method["loss_type"] != "simpo":
            carried.leave("method.loss_type", method["loss_type"], f"{NAME} has CPO only as simpo")
        carried.settings["simpo_gamma"] = method["simpo_gamma"]
        return "simpo"
    losses = method["loss_type"]
    weights = dict(zip(losses, method["loss_weights"] or [1.0] * len(losses), strict=True))
    for ours, key in (("sft", "pref_ftx"), ("bco_pair", "pref_bco_weight")):
        if len(losses) > 1 and ours in weights:
            carried.settings[key] = weights.pop(ours)
    main = [loss for loss in weights if loss in DPO_LOSSES]
    for other in set(weights) - set(main[:1]):
        carried.leave("method.loss_type", other, f"{NAME} has no such loss")
    return main[0] if main else "sigmoid"


def _write_model(carried: Carried, config: RunConfig) -> None:
    kind = config.model.quantization
    if kind == "int8":
        carried.settings["quantization_bit"] = 8
    elif kind != "none":
        carried.settings |= {"quantization_bit": 4, "quantization_type": kind}
        carried.settings["double_quantization"] = config.model.double_quant
    if config.training.autocast is False and config.model.dtype == "bfloat16":
        carried.settings["pure_bf16"] = True
    elif config.model.dtype != "float32":
        carried.settings["fp16" if config.model.dtype == "float16" else "bf16"] = True


def _write_adapter(carried: Carried, data: Mapping[str, Any]) -> None:
    kind = at(data, "adapter.type")
    targets = at(data, "adapter.target_modules")
    named = "all" if targets == "all-linear" else ",".join(listed(targets))
    if kind is None:
        carried.settings["finetuning_type"] = "full"
    elif kind == "freeze":
        carried.settings |= {"finetuning_type": "freeze", "freeze_trainable_layers": at(data, "adapter.trained_layers")}
    elif kind == "oft":
        carried.settings |= {"finetuning_type": "oft", "oft_target": named}
        carried.settings["oft_block_size"] = at(data, "adapter.oft_block_size")
    else:
        carried.settings |= {"finetuning_type": "lora", "lora_target": named, **write_pairs(data, LORA)}
        if kind != "lora":
            carried.leave("adapter.type", kind, f"{NAME} has no adapter like {kind}; LoRA is written")
    if extra := at(data, "adapter.modules_to_save"):
        carried.settings["additional_target"] = ",".join(extra)
