"""LLaMA-Factory's settings as run.yaml's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.core.datasetinfo import Entry, read_dataset_info
from studio.core.interchange.carried import (
    Carried,
    Pair,
    Reader,
    listed,
    number,
)
from studio.core.interchange.llamafactory.names import (
    DEFAULTS,
    DPO_LOSSES,
    KTO,
    LORA,
    METHODS,
    PAIRS,
    POINTLESS,
)


def read(data: Mapping[str, Any], dataset_info: Any = None, _told: str = "") -> Carried:
    """run.yaml's settings. `dataset_info`: the content of the dataset_info.json that the file's datasets stand in."""
    reader = Reader(data, DEFAULTS)
    method = _method(reader)
    _model(reader)
    _adapter(reader)
    _dataset(reader, {entry.name: entry for entry in read_dataset_info(dataset_info)})
    reader.pairs(PAIRS)
    if method == "pretrain" and not reader.has("packing"):  # as its documentation says
        reader.put("training.packing", True)
    if reader.take("neat_packing"):
        reader.put("training.packing", True)
    elif reader.carried.settings["training"].get("packing"):
        reader.put("training.packing_strategy", "wrapped")
    _trackers(reader)
    return reader.finish(POINTLESS, "there is nothing like it here")


def _method(reader: Reader) -> str:
    stage = str(reader.take("stage"))
    name = METHODS.get(stage)
    if name is None:
        reader.leave("stage", f"there is no method {stage!r} here")
        name = "sft"
    loss = reader.take("pref_loss") if name == "dpo" else None
    name = {"orpo": "orpo", "simpo": "cpo"}.get(str(loss), name)
    reader.put("method.name", name)
    if name == "dpo":
        _dpo(reader, str(loss))
    elif name == "cpo":
        reader.put("method.loss_type", "simpo")
        reader.put("method.cpo_alpha", number(reader.take("pref_ftx", 0.0)))
        reader.pairs(
            (Pair("pref_beta", "method.beta", read=number), Pair("simpo_gamma", "method.simpo_gamma", read=number))
        )
    elif name == "orpo":
        reader.pairs((Pair("pref_beta", "method.beta", read=number),))
    elif name == "kto":
        reader.pairs(KTO)
    elif name == "ppo":
        _ppo(reader)
    return name


def _dpo(reader: Reader, loss: str) -> None:
    if loss not in DPO_LOSSES:
        reader.leave("pref_loss", f"there is no loss {loss!r} here; sigmoid is taken")
        loss = "sigmoid"
    losses, weights = [loss], [1.0]
    for key, ours in (("pref_ftx", "sft"), ("pref_bco_weight", "bco_pair")):
        weight = float(number(reader.take(key, 0.0)))
        if weight > 0:
            losses.append(ours)
            weights.append(weight)
    reader.put("method.loss_type", losses)
    if len(losses) > 1:
        reader.put("method.loss_weights", weights)
    reader.pairs(
        (
            Pair("pref_beta", "method.beta", read=number),
            Pair("dpo_label_smoothing", "method.label_smoothing", read=number),
        )
    )


def _ppo(reader: Reader) -> None:
    reward = reader.take("reward_model")
    if reward:
        reader.put("method.rewards", [f"model:{reward}"])
    reader.pairs((Pair("ppo_epochs", "method.num_ppo_epochs"), Pair("ppo_whiten_rewards", "method.whiten_rewards")))


def _model(reader: Reader) -> None:
    bits = reader.take("quantization_bit")
    kind, double = reader.take("quantization_type"), reader.take("double_quantization")
    if bits in (4, "4"):
        reader.put("model.quantization", kind)
        reader.put("model.double_quant", bool(double))
    elif bits in (8, "8"):
        reader.put("model.quantization", "int8")
    elif bits is not None:
        reader.leave("quantization_bit", "weights are held in 4 or 8 bits here")
    if reader.take("pure_bf16"):
        reader.put("model.dtype", "bfloat16")
        reader.put("training.autocast", False)
    elif reader.take("fp16"):
        reader.put("model.dtype", "float16")
    elif reader.take("bf16") and reader.take("finetuning_type") != "full":
        reader.put("model.dtype", "bfloat16")  # trained whole, its weights are float32 there too


def _adapter(reader: Reader) -> None:
    kind = reader.take("finetuning_type")
    if kind == "full":
        reader.carried.settings["adapter"] = None
    elif kind == "freeze":
        reader.put("adapter.type", "freeze")
        reader.put("adapter.trained_layers", reader.take("freeze_trainable_layers"))
    elif kind == "oft":
        reader.put("adapter.type", "oft")
        reader.put("adapter.oft_block_size", reader.take("oft_block_size"))
        reader.put("adapter.target_modules", _targets(reader.take("oft_target", "all")))
        reader.pairs((Pair("module_dropout", "adapter.module_dropout", read=number),))
    else:
        reader.put("adapter.type", "lora")
        reader.put("adapter.target_modules", _targets(reader.take("lora_target")))
        reader.pairs(LORA)
        if not reader.has("lora_alpha"):
            reader.put("adapter.lora_alpha", 2 * int(reader.take("lora_rank")))
        if reader.take("pissa_init"):
            slow = reader.take("pissa_iter", 16) == -1
            reader.put("adapter.init_lora_weights", "pissa" if slow else "pissa_niter_16")
    if kind in ("lora", "oft"):
        if extra := listed(reader.take("additional_target")):
            reader.put("adapter.modules_to_save", extra)
        earlier = listed(reader.take("adapter_name_or_path"))
        if len(earlier) == 1:
            reader.put("adapter.continue_from", earlier[0])
        elif earlier:
            reader.leave("adapter_name_or_path", "one adapter is trained on here; merge the others first")


def _targets(given: Any) -> str | list[str]:
    return "all-linear" if given == "all" else listed(given)


def _dataset(reader: Reader, known: Mapping[str, Entry]) -> None:
    reader.take("dataset_dir")
    names = listed(reader.take("dataset"))
    parts = [_part(reader, name, known.get(name)) for name in names]
    weights = [float(number(part)) for part in listed(reader.take("interleave_probs"))]
    strategy = reader.take("mix_strategy", "concat")
    if len(parts) == 1:
        reader.put("dataset.path", parts[0])
    elif parts and strategy != "concat" and len(weights) == len(parts):
        reader.put("dataset.path", [{"path": p, "weight": w} for p, w in zip(parts, weights, strict=True)])
        reader.put(
            "dataset.stopping_strategy", "first_exhausted" if strategy == "interleave_under" else "all_exhausted"
        )
    elif parts:
        reader.put("dataset.path", parts)
    held = listed(reader.take("eval_dataset"))
    if len(held) == 1:
        reader.put("dataset.validation_path", _part(reader, held[0], known.get(held[0])))
    elif held:
        reader.leave("eval_dataset", "one dataset is validated on here")
    if reader.take("train_on_prompt"):
        reader.put("dataset.train_on", "all")
    elif reader.take("mask_history"):
        reader.put("dataset.train_on", "last_assistant")


def _part(reader: Reader, name: str, entry: Entry | None) -> str:
    """A dataset's path: what its entry in dataset_info.json says, else its bare name."""
    if entry is None or entry.problem:
        why = f"its entry can't be used: {entry.problem.rstrip('.')}" if entry else "dataset_info.json doesn't name it"
        reader.carried.leave("dataset", name, f"{name} is named as it stands ({why}); register a dataset of that name")
        return name
    if entry.hf_hub_url:
        return entry.hf_hub_url
    folder = str(reader.take("dataset_dir", "data"))
    return f"{folder.rstrip('/')}/{entry.file_name}"


def _trackers(reader: Reader) -> None:
    known = ("tensorboard", "trackio", "wandb", "mlflow")
    wished = [name for name in listed(reader.take("report_to")) if name != "none"]
    reader.put("training.report_to", [name for name in wished if name in known])
    if other := [name for name in wished if name not in known]:
        reader.leave("report_to", f"there is no tracker {', '.join(other)} here")
