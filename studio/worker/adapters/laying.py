"""Laying an adapter over a model before its trainer is built, where the trainer wouldn't do it right by itself.

In: a config, a loaded model, the run's rows and folders. Out: the model, with an adapter where its start comes from
weights, data or an earlier run; frozen parts; else as it was, with the config that a trainer lays over it. Knows no
loss.
"""

from __future__ import annotations

import contextlib
import json
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from studio.core.config import RunConfig
from studio.core.errors import ConfigError, StudioError
from studio.core.sections.adapter import RESIDUAL, Continued, FreezeAdapter, LoraAdapter
from studio.worker.adapters import starts
from studio.worker.adapters.configs import peft_config
from studio.worker.adapters.freeze import freeze


def lay_over(config: RunConfig, model: Any, *, rows: Any, base: Path | None, kept: Path) -> Any:
    """The model as its trainer should get it.

    `rows`: the encoded training rows (for EVA); `base`: the folder the model came from (for LoftQ and prompts);
    `kept`: the folder of the checkpoints, where a start is kept that a resumed run must begin with. Raises StudioError.
    """
    section = config.adapter
    if section is None:
        return model
    with refusing(config):
        if isinstance(section, FreezeAdapter):
            freeze(model, section)
            return model
        if isinstance(section, Continued) and section.continue_from:
            return go_on(config, model, Path(section.continue_from))
        if isinstance(section, LoraAdapter) and section.init_lora_weights in (*RESIDUAL, "eva", "loftq"):
            return _started(config, section, model, rows, base, kept)
        fresh_config(config, model, base)  # refuses what can't be
    return model


def fresh_config(config: RunConfig, model: Any, base: Path | None = None) -> Any:
    """What a trainer lays over the model by itself; None where there is nothing left to lay."""
    section = config.adapter
    if section is None or not section.is_peft or hasattr(model, "peft_config"):
        return None
    return peft_config(section, model, task=_task(config), tokenizer=str(base or model.config.name_or_path))


def _task(config: RunConfig) -> str:
    return "SEQ_CLS" if config.method.name == "reward" else "CAUSAL_LM"


def _started(config: RunConfig, section: LoraAdapter, model: Any, rows: Any, base: Path | None, kept: Path) -> Any:
    import peft

    start = section.init_lora_weights
    made = peft_config(section, model, task=_task(config))
    kept.mkdir(parents=True, exist_ok=True)
    shared = kept / "ranks.json"
    if start == "eva" and shared.is_file() and any(kept.glob("checkpoint-*")):
        # A checkpoint holds the values; the ranks must be those that it was saved with.
        found = json.loads(shared.read_text(encoding="utf-8"))
        made.rank_pattern, made.alpha_pattern = found["rank_pattern"], found["alpha_pattern"]
        made.target_modules = set(found["target_modules"])
        return peft.get_peft_model(model, made)
    if start in RESIDUAL:
        made.init_lora_weights = True  # the start is taken out below, the same at every beginning
    laid = peft.get_peft_model(model, made)
    if start in RESIDUAL:
        starts.take_out(laid, start, kept / starts.KEPT)
    elif start == "eva":
        starts.look_at_data(laid, rows, section.r, section.eva_rho)
        found = laid.peft_config[starts.NAME]
        ranks = {name: getattr(found, name) for name in ("rank_pattern", "alpha_pattern", "target_modules")}
        shared.write_text(json.dumps({**ranks, "target_modules": sorted(found.target_modules)}), encoding="utf-8")
    else:
        assert base is not None, "loftq reads the base's files"
        starts.make_good(laid, base)
    _refresh_lengths(laid)
    return laid


def _refresh_lengths(model: Any) -> None:
    """DoRA's lengths were measured before the start was made: measure again, base and adapter together."""
    for _, layer in starts.layers(model):
        dora = getattr(layer, "lora_magnitude_vector", {})
        if starts.NAME in dora:
            a, b = layer.lora_A[starts.NAME].weight, layer.lora_B[starts.NAME].weight
            weight = layer.get_base_layer().weight
            if hasattr(weight, "quant_state"):
                from bitsandbytes.functional import dequantize_4bit

                weight = dequantize_4bit(weight.data, weight.quant_state)
            weight = weight.detach().float()
            weight = weight.T if isinstance(layer.get_base_layer(), Conv1D) else weight
            whole = weight + layer.scaling[starts.NAME] * (b.float() @ a.float())
            dora[starts.NAME].weight.data = torch.linalg.norm(whole, dim=1).to(dora[starts.NAME].weight.dtype)


def go_on(config: RunConfig, model: Any, folder: Path) -> Any:
    """An earlier adapter, to be trained on. Its own shape stands, whatever the config says of rank and layers."""
    from peft import PeftConfig, PeftModel

    section: Any = config.adapter
    field = "adapter.continue_from"
    try:
        found: Any = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(field, f"{folder} holds no adapter that PEFT reads.", "Give an adapter's folder.") from None
    wanted = peft_config(section, None if getattr(section, "target_modules", "") != "attention" else model)
    if found.peft_type != wanted.peft_type:
        raise ConfigError(
            field,
            f"{folder.name} holds an adapter of kind {found.peft_type.value.lower()}, not {section.type}.",
            "Choose that kind, or start a new adapter.",
        )
    residual = isinstance(getattr(found, "init_lora_weights", None), str) and str(found.init_lora_weights).startswith(
        ("pissa", "olora", "corda", "lora_ga", "loftq")
    )
    if residual:
        raise ConfigError(
            field,
            f"the adapter's start ({found.init_lora_weights}) was taken out of its base.",
            "Merge it first, and train on the result.",
        )
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise ConfigError(
            field,
            f"the adapter doesn't fit this base ({' '.join(str(error).split())[:200]}).",
            "Give the base that it was trained on.",
        ) from None


def with_folder(config: RunConfig, folder: str | None) -> RunConfig:
    """The config with the folder that its `adapter.continue_from` stood for when the run was submitted."""
    if folder is None or config.adapter is None:
        return config
    return config.model_copy(update={"adapter": config.adapter.model_copy(update={"continue_from": folder})})


def is_residual(config: RunConfig) -> bool:
    """Whether the adapter's start was taken out of the base, so that it must be turned before it is saved."""
    section = config.adapter
    return isinstance(section, LoraAdapter) and section.init_lora_weights in RESIDUAL and not section.continue_from


def save_adapter(config: RunConfig, model: Any, folder: Path, kept: Path) -> None:
    """The adapter's files, such that plain PEFT lays them over the base as it was."""
    with warnings.catch_warnings():
        # Layers that AdaLoRA has left no rank are saved empty, which PEFT takes for a saving gone wrong.
        warnings.filterwarnings("ignore", message=".*tensor\\(s\\) have invalid shape")
        model.save_pretrained(str(folder), selected_adapters=[starts.NAME])  # without a method's own reference copy
    if is_residual(config):
        starts.as_plain_lora(folder, kept / starts.KEPT)


def as_saved(config: RunConfig, model: Any, folder: Path, kept: Path) -> Any:
    """The trained model with its adapter as it was saved, so that switching it off shows the base as it was."""
    if not is_residual(config):
        return model
    from peft import PeftModel

    starts.put_back(model, kept / starts.KEPT)
    return PeftModel.from_pretrained(model.unload(), str(folder))


@contextlib.contextmanager
def refusing(config: RunConfig) -> Iterator[None]:
    """What PEFT refuses becomes a sentence; its warnings of what the person can't change are left out."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"peft\.")
            yield
    except StudioError:
        raise
    except (
        ValueError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        ImportError,
        AttributeError,
        AssertionError,
    ) as error:
        frames = traceback.extract_tb(error.__traceback__)
        section: Any = config.adapter
        if section is None or not any("/peft/" in frame.filename.replace("\\", "/") for frame in frames):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            "adapter.type",
            f"PEFT can't lay a {section.type} adapter over this model ({reason}).",
            "Choose other layers (adapter.target_modules), or lora.",
        ) from error
