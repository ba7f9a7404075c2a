"""Axolotl's settings as run.yaml's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.interchange.axolotl.names import (
    DEFAULTS,
    FORMATS,
    LORA,
    METHODS,
    PAIRS,
    POINTLESS,
    RL,
)
from studio.core.interchange.carried import (
    Carried,
    Reader,
    listed,
    number,
)


def read(data: Mapping[str, Any], _dataset_info: Any = None, _told: str = "") -> Carried:
    """run.yaml's settings."""
    reader = Reader(data, DEFAULTS)
    _method(reader)
    _adapter(reader)
    _precision(reader)
    _datasets(reader)
    reader.pairs(PAIRS)
    if reader.has("gradient_checkpointing_kwargs"):
        reader.put(
            "training.use_reentrant", bool(dict(reader.take("gradient_checkpointing_kwargs")).get("use_reentrant"))
        )
    checkpointing = reader.take("gradient_checkpointing")
    reader.put("training.gradient_checkpointing", bool(checkpointing))
    if checkpointing == "offload":
        reader.put("training.activation_offloading", True)
    for key, ours in (("eval_steps", "training.eval_steps"), ("save_steps", "training.save_steps")):
        value = number(reader.take(key))
        if value is not None and value >= 1:
            reader.put(ours, int(value))
        elif value is not None:
            reader.leave(key, "a share of the run isn't known here; give a number of steps")
    trackers = [name for name in ("wandb", "mlflow") if reader.has(f"{name}_project") or reader.has(f"use_{name}")]
    reader.put("training.report_to", trackers + (["tensorboard"] if reader.take("use_tensorboard") else []))
    if any("liger" in str(plugin).lower() for plugin in reader.take("plugins") or ()):
        reader.put("training.use_liger_kernel", True)
        for key in [key for key in reader.data if key.startswith("liger_")]:
            reader.take(key)
    return reader.finish(POINTLESS, "there is nothing like it here")


def _method(reader: Reader) -> None:
    wish = reader.take("rl")
    if wish is None:
        raw = bool(reader.take("pretraining_dataset"))
        reader.put("method.name", "reward" if reader.take("reward_model") else "pretrain" if raw else "sft")
        return
    name = METHODS.get(str(wish))
    if name is None:
        reader.leave("rl", f"there is no method {wish!r} here")
        return
    reader.put("method.name", name)
    if wish == "ipo":
        reader.put("method.loss_type", ["ipo"])
    if wish == "simpo":
        reader.put("method.loss_type", "simpo")
        reader.put("method.cpo_alpha", 0.0)
    reader.pairs(RL.get(name, ()))
    if name == "grpo":
        reader.leave("trl", "rewards are chosen from a list here; see method.rewards")


def _adapter(reader: Reader) -> None:
    kind = reader.take("adapter")
    four, eight = reader.take("load_in_4bit"), reader.take("load_in_8bit")
    if kind in (None, ""):
        reader.carried.settings["adapter"] = None
        return
    if kind not in ("lora", "qlora"):
        reader.leave("adapter", f"there is no adapter {kind!r} here; LoRA is taken")
    if kind == "qlora" or four:
        reader.put("model.quantization", "nf4")
    elif eight:
        reader.put("model.quantization", "int8")
    reader.put("adapter.type", "lora")
    modules = reader.take("lora_target_modules")
    if reader.take("lora_target_linear") or not modules:
        reader.put("adapter.target_modules", "all-linear")
    elif modules:
        reader.put("adapter.target_modules", listed(modules) if not isinstance(modules, str) else modules)
    reader.pairs(LORA)
    first = reader.take("peft_init_lora_weights")
    if isinstance(first, str):
        reader.put("adapter.init_lora_weights", first)


def _precision(reader: Reader) -> None:
    bf16, fp16 = reader.take("bf16"), reader.take("fp16")
    whole = reader.carried.settings.get("adapter", "") is None
    if reader.take("bfloat16") or (bf16 == "full"):
        reader.put("model.dtype", "bfloat16")
        reader.put("training.autocast", False)
    elif fp16:
        reader.put("model.dtype", "float16")
    elif bf16 is True and not whole:
        reader.put("model.dtype", "bfloat16")
    attention = reader.take("attn_implementation")
    for key, ours in (
        ("flash_attention", "flash_attention_2"),
        ("sdp_attention", "sdpa"),
        ("eager_attention", "eager"),
    ):
        attention = attention or (ours if reader.take(key) else None)
    if attention:
        reader.put("model.attn_implementation", attention)


def _datasets(reader: Reader) -> None:
    given = reader.take("datasets") or reader.take("pretraining_dataset") or []
    entries = [given] if isinstance(given, (Mapping, str)) else list(given)
    paths, layouts = [], []
    for entry in entries:
        entry = {"path": entry} if isinstance(entry, str) else dict(entry)
        files = listed(entry.get("data_files"))
        paths.append(files[0] if files and entry.get("ds_type") else str(entry.get("path", "")))
        layouts.append(_layout(reader, entry))
    if paths:
        reader.put("dataset.path", paths[0] if len(paths) == 1 else paths)
    if len(set(layouts)) == 1 and layouts[0] != "auto":
        reader.put("dataset.format", layouts[0])
    if reader.take("train_on_inputs"):
        reader.put("dataset.train_on", "all")
    held = reader.take("test_datasets") or []
    if len(held) == 1:
        reader.put("dataset.validation_path", str(held[0].get("path", "")))
    elif held:
        reader.leave("test_datasets", "one dataset is validated on here")


def _layout(reader: Reader, entry: Mapping[str, Any]) -> str:
    """A dataset's layout, and what else its entry says."""
    kind = entry.get("type")
    if isinstance(kind, Mapping):
        reader.carried.leave("datasets", dict(kind), "layouts of one's own are put together on the Data tab")
        return "auto"
    base = str(kind or "").partition(":")[0]
    if kind and base not in FORMATS:
        reader.carried.leave("datasets", kind, f"there is no layout {kind!r} here; it is recognised from the columns")
    columns = {"messages": entry.get("field_messages"), "text": entry.get("field")}
    for name, column in columns.items():
        if column and column != name:
            reader.put(f"dataset.columns.{name}", str(column))
    mapping = entry.get("message_property_mappings") or {}
    for theirs, tag in (("role", "role_tag"), ("content", "content_tag")):
        if mapping.get(theirs, theirs) != theirs:
            reader.put(f"dataset.tags.{tag}", str(mapping[theirs]))
    for key in ("roles", "roles_to_train", "chat_template", "split", "name", "shards"):
        if entry.get(key):
            reader.carried.leave(f"datasets.{key}", entry[key], "register the dataset with it on the Data tab")
    return FORMATS.get(base, "auto")
