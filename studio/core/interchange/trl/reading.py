"""TRL's settings as run.yaml's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.interchange.carried import (
    Carried,
    Pair,
    Reader,
    listed,
    number,
)
from studio.core.interchange.trl.names import (
    DEFAULTS,
    DTYPES,
    LORA,
    PACKING,
    PAIRS,
    POINTLESS,
    RATE,
    RATES,
    TELLING,
)


def guess_method(data: Mapping[str, Any]) -> str:
    """The command that a file is for, from the knobs only one has; sft where none is there."""
    return next((name for name, signs in TELLING.items() if any(sign in data for sign in signs)), "sft")


def read(data: Mapping[str, Any], _dataset_info: Any = None, method: str = "") -> Carried:
    """run.yaml's settings; `method` is the command's, such as dpo in `trl dpo`."""
    name = method or guess_method(data)
    reader = Reader(data, DEFAULTS)
    reader.put("method.name", name)
    for key in [key for key in data if key in _method_knobs(name)]:
        value = reader.take(key)
        reader.put(
            f"method.{key}", [value] if key == "loss_type" and name == "dpo" and isinstance(value, str) else value
        )
    if name in ("grpo", "rloo"):
        reader.leave("reward_funcs", "rewards are chosen from a list here; see method.rewards")
    reader.put("training.learning_rate", number(reader.take("learning_rate")) or RATES.get(name, RATE))
    _dataset(reader)
    _adapter(reader)
    reader.pairs((*PAIRS, *PACKING))
    if reader.has("torch_dtype") and not reader.has("dtype"):
        reader.pairs((Pair("torch_dtype", "model.dtype", DTYPES),))
    elif not reader.has("dtype"):
        reader.put("model.dtype", "float32")  # what TRL loads where it isn't told
        reader.put("training.autocast", bool(reader.take("bf16", True)))
    reader.take("bf16")
    if reader.take("fp16"):
        reader.put("model.dtype", "float16")
    _rest(reader)
    return reader.finish(POINTLESS, "there is nothing like it here")


def _rest(reader: Reader) -> None:
    # transformers 5 has one knob for both: below 1 it is a share.
    warmup = number(reader.take("warmup_steps")) or 0
    share = number(reader.take("warmup_ratio"))
    reader.put("training.warmup_ratio", warmup if 0 < warmup < 1 else share)
    if warmup >= 1:
        reader.put("training.warmup_steps", int(warmup))
    reader.put("training.gradient_checkpointing", bool(reader.take("gradient_checkpointing")))
    if reader.has("gradient_checkpointing_kwargs"):
        kwargs = dict(reader.take("gradient_checkpointing_kwargs"))
        reader.put("training.use_reentrant", bool(kwargs.get("use_reentrant")))
    for key in ("logging_steps", "eval_steps", "save_steps"):
        value = number(reader.take(key))
        if value is not None and value >= 1:
            reader.put(f"training.{key}", int(value))
        elif value is not None:
            reader.leave(key, "a share of the run isn't known here; give a number of steps")
    known = ("tensorboard", "trackio", "wandb", "mlflow")
    wished = [one for one in listed(reader.take("report_to")) if one not in ("none", "all")]
    reader.put("training.report_to", [one for one in wished if one in known])
    if other := [one for one in wished if one not in known]:
        reader.leave("report_to", f"there is no tracker {', '.join(other)} here")


def _method_knobs(name: str) -> set[str]:
    from studio.core.knobs import knobs

    return {knob.name for knob in knobs() if knob.of == name and knob.path.startswith("method.")}


def _dataset(reader: Reader) -> None:
    mixture = reader.take("datasets") or []
    paths = [str(part.get("path", "")) if isinstance(part, Mapping) else str(part) for part in mixture]
    named = reader.take("dataset_name")
    if named:
        reader.put("dataset.path", str(named))
    elif paths:
        reader.put("dataset.path", paths[0] if len(paths) == 1 else paths)
    reader.leave("dataset_config", "register the dataset with it on the Data tab")
    if reader.take("completion_only_loss") is False and reader.take("assistant_only_loss") is not True:
        reader.put("dataset.train_on", "all")
    reader.take("assistant_only_loss")
    if not reader.has("eval_strategy") or reader.take("eval_strategy") == "no":
        reader.put("dataset.validation_split", 0.0)


def _adapter(reader: Reader) -> None:
    four, eight = reader.take("load_in_4bit"), reader.take("load_in_8bit")
    kind, nested = reader.take("bnb_4bit_quant_type"), reader.take("use_bnb_nested_quant")
    if not reader.take("use_peft"):
        reader.carried.settings["adapter"] = None
        return
    if four:
        reader.put("model.quantization", kind)
        reader.put("model.double_quant", bool(nested))
    elif eight:
        reader.put("model.quantization", "int8")
    reader.put("adapter.type", "lora")
    modules = reader.take("lora_target_modules")
    if isinstance(modules, list) and len(modules) == 1 and modules[0] == "all-linear":
        modules = modules[0]
    if modules is None:
        modules = ["q_proj", "v_proj"]  # PEFT's own choice for the Llama family
        reader.carried.leave(
            "lora_target_modules", None, "PEFT chooses by architecture there; q_proj, v_proj are taken"
        )
    reader.put("adapter.target_modules", modules)
    reader.pairs(LORA)
