"""Published measurements of real GPUs, and each as a config that the estimators understand.

In: a csv of measurements. Out: `Case`s; for a row that can't be stated, the reason. Nothing is tuned here: a case says
only what its source says.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.published import published
from studio.core.config import RunConfig
from studio.core.estimate import Device, Practice, Versions
from studio.core.shapes import ModelShape, from_config

_HERE = Path(__file__).parent
_PLACES = (_HERE / "measured.csv", _HERE.parents[1] / "shared" / "vram" / "measured.csv")
_CARDS = {
    "A100": ("ampere", 80),
    "A100-80GB": ("ampere", 80),
    "A100-40GB": ("ampere", 40),
    "A100-SXM4-40GB": ("ampere", 40),
    "1xA10G": ("ampere", 23),
    "RTX4090": ("ada", 24),
    "L40S": ("ada", 45),
    "NVIDIA L40S": ("ada", 45),
}


@dataclass(frozen=True)
class Case:
    """A measurement in bytes: `allocated` or `reserved` by torch, `device` by NVML; None where it wasn't taken."""

    source: str
    model: str
    method: str
    config_id: str
    quality: str
    label: str
    allocated: int | None
    reserved: int | None
    device: int | None
    config: RunConfig | None = None
    shape: ModelShape | None = None
    practice: Practice | None = None
    versions: Versions | None = None
    card: Device = field(default_factory=Device)
    reason: str = ""


def path() -> Path:
    """The csv: the one that STUDIO_MEASURED names, or where it is by itself."""
    given = os.environ.get("STUDIO_MEASURED")
    for place in (Path(given),) if given else _PLACES:
        if place.is_file():
            return place
    raise FileNotFoundError(f"no table of measurements at {_PLACES[0]}; set STUDIO_MEASURED")


def cases(file: Path) -> Iterator[Case]:
    """Every row of quality A or B."""
    shapes: dict[str, ModelShape] = {}
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["quality"] in ("A", "B"):
                yield _case(row, shapes)


def _case(row: dict[str, str], shapes: dict[str, ModelShape]) -> Case:
    kind, peak = row["peak_kind"], float(row["peak_gb"] or 0) * 1e9
    nvml = float(row["nvml_gb"]) * 1e9 if row["nvml_gb"] else peak if kind.startswith("nvml") else None
    generation, memory = _CARDS.get(row["gpu"], ("ampere", 80))
    base: dict[str, Any] = {
        "source": row["source"],
        "model": row["model_id"],
        "method": row["method"],
        "config_id": row["config_id"],
        "quality": row["quality"],
        "label": f"{row['model_id'].rpartition('/')[2]} {row['method']} {row['micro_batch']}x{row['seq_len'][:6]}",
        "allocated": round(peak) if kind.startswith(("allocated", "active")) else None,
        "reserved": round(peak) if kind.startswith("reserved") else None,
        "device": round(nvml) if nvml else None,
        "card": Device(generation=generation, memory=memory * 2**30),
    }
    if reason := _unstated(row):
        return Case(**base, reason=reason)
    if row["model_id"] not in shapes:
        shapes[row["model_id"]] = from_config(published(row["model_id"]) or {})
    if row["source"].startswith("litgpt"):
        return Case(
            **base,
            config=RunConfig.model_validate(_config(row)),
            shape=shapes[row["model_id"]],
            practice=_practice(row),
            versions=Versions.parse(_litgpt(row)),
        )
    versions = ",".join(f"{name}={row[name].split('+')[0]}" for name in ("transformers", "torch", "trl") if row[name])
    return Case(
        **base,
        config=RunConfig.model_validate(_config(row)),
        shape=shapes[row["model_id"]],
        practice=_practice(row),
        versions=Versions.parse(_day(row) + versions),
    )


def _day(row: dict[str, str]) -> str:
    """The libraries of the source's day, for those it doesn't name."""
    if row["date"].startswith("2023") or row["torch"] in ("2.0", "2.1.0", "2.1.1"):
        return "transformers=4.37.0,trl=0.7.10,torch=2.1.1,peft=0.7.1,bitsandbytes=0.41.0,"
    if row["date"].startswith("2024") and row["date"] < "2024-07-23" and row["source"].startswith("fms"):
        # the day bitsandbytes 0.43.2 came out
        return "transformers=4.39.3,trl=0.9.6,torch=2.2.2,peft=0.11.0,bitsandbytes=0.43.1,"
    if row["date"].startswith("2024"):
        return "transformers=4.45.0,trl=0.11.0,torch=2.4.1,peft=0.12.0,bitsandbytes=0.44.0,"
    return ""


def _litgpt(row: dict[str, str]) -> str:
    """LitGPT of the day; it asks for the bitsandbytes of the day too."""
    if row["date"].startswith("2024"):
        return "litgpt=0.4.0,torch=2.3.0,bitsandbytes=0.42.0"
    return "litgpt=0.1.0,torch=2.1.0,bitsandbytes=0.41.1"


def _unstated(row: dict[str, str]) -> str:
    if published(row["model_id"]) is None:
        return "the model's config isn't known"
    if row["method"] in ("adapter", "adapter_v2", "dora"):
        return f"the method {row['method']} isn't one of the studio's"
    if "in bwd" in row["optimizer"] or "opt in bwd" in row["notes"] or "all opts" in row["notes"]:
        return "the optimizer steps inside the backward pass"
    if "act offload" in row["notes"]:
        return "activations are offloaded"
    if "unpacked alpaca" in row["notes"]:
        return "lengths of the unpacked rows aren't given"
    if row["source"] == "torchtune" and row["method"] == "qlora4":
        return "torchao's NF4 with compiled kernels"
    if row["method"] == "gptq8-lora" or "int4 (bnb)" in row["weight_dtype"] or "int4 (gptq)" in row["weight_dtype"]:
        return "a quantized checkpoint whose packing isn't given"
    return ""


def _config(row: dict[str, str]) -> dict[str, Any]:
    notes = row["notes"]
    dropout = re.search(r"lora_dropout=([\d.]+)", notes)
    dtype = "float16" if "float16" in row["weight_dtype"] and "bf" not in row["weight_dtype"] else "bfloat16"
    if row["weight_dtype"] == "fp32":
        dtype = "float32"
    if "float16" in row["compute_dtype"] and "bfloat16" not in row["compute_dtype"]:
        dtype = "float16"
    attention = "flash_attention_2" if "flash" in row["attn_impl"] else "sdpa"
    return {
        "model": {
            "dtype": dtype,
            "quantization": "nf4" if row["method"] == "qlora4" else "none",
            "double_quant": row["weight_dtype"].endswith("dq"),
            "attn_implementation": "eager" if row["attn_impl"].startswith("eager") else attention,
        },
        "adapter": None if row["method"] == "full" else {
            "type": "lora", "r": int(row["lora_r"] or 8), "lora_alpha": 16,
            "lora_dropout": float(dropout[1].rstrip(".")) if dropout else 0.05,
            "target_modules": _targets(row),
        },
        "training": {
            "per_device_train_batch_size": int(row["micro_batch"]),
            "gradient_accumulation_steps": 1 if row["grad_accum"] in ("1", "") else 2,
            "max_length": 656 if row["seq_len"].startswith("<=768") else int(row["seq_len"]),
            "gradient_checkpointing": row["grad_checkpointing"].startswith("yes") and not _before_checkpointing(notes),
            "optim": "adamw_torch_fused" if row["optimizer"] == "AdamW" else "adamw_torch",
        },
        "hardware": {"device": "cuda"},
    }  # fmt: skip


def _before_checkpointing(notes: str) -> bool:
    """A table whose lines add one thing each, in this order: packing, compiling, checkpointing, and so on."""
    return "first draft table" in notes and notes.startswith(("+packed", "+compile"))


# How other code calls its matrices, in the words of the architectures' own.
_WORDS = {
    "query": ["q_proj", "query_key_value", "c_attn"],
    "value": ["v_proj"],
    "key": ["k_proj"],
    "projection": ["o_proj", "dense"],
    "output_proj": ["o_proj"],
    "output": ["o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj", "fc1", "fc2"],
    "q": ["q_proj"],
    "v": ["v_proj"],
    "(qkv)": ["q_proj", "k_proj", "v_proj", "c_attn"],
}


def _targets(row: dict[str, str]) -> Any:
    if row["source"].startswith("litgpt"):
        return row["lora_targets"].split() or ["query", "value"]  # its own words
    if row["lora_targets"] == "ALL":
        return "all-linear"
    names = [name for word in row["lora_targets"].split() for name in _WORDS.get(word, [word])]
    return [name for name in names if name not in ("DEFAULT", "head")] or ["q_proj", "v_proj", "query_key_value"]


def _practice(row: dict[str, str]) -> Practice:
    compute, notes, loss = row["compute_dtype"], row["notes"], row["loss_impl"]
    way: Literal["fast", "liger", "chunked", "padded"] | None = None
    if "foak" in loss:
        way = "fast"
    elif "liger" in loss:
        way = "liger"
    elif "chunked" in loss:
        way = "chunked"
    elif row["source"].startswith("peft"):
        way = "padded"  # its own loop, with the model's own loss
    adapters = re.search(r"adapters (fp32|bf16)", f"{notes}; {compute}")
    item = {"fp32": 4, "bf16": 2}[adapters[1]] if adapters else (2 if compute == "bf16-true" else None)
    autocast = "autocast" in compute and "no autocast" not in compute
    plain = "accelerated" in notes or row["source"].startswith("litgpt")
    return Practice(
        autocast=autocast or compute == "bf16-mixed",
        adapter_item=item,
        loss=way,
        upcast="none" if plain else None,
        reentrant=True if "reentrant" in row["grad_checkpointing"] else None,
        hold_logits="outputs kept alive" in notes,
        masked="4-D mask" in row["attn_impl"],
        compiled="compile" in notes or ("foak" in notes and "bigcode" not in row["model_id"]),
        expandable=False,
    )
