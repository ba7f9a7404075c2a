"""The merged model as a 4- or 8-bit bitsandbytes checkpoint, which loads with transformers as it is.

In: an export's task. Out: a folder. The merged weights are written beside it first, then quantized while they are
loaded, a tensor at a time: what is held is the small model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import psutil
import torch

from studio.core.config import ModelSection
from studio.core.errors import ModelError
from studio.worker.export.merge import write_merged
from studio.worker.export.shards import TensorFiles, shard_files
from studio.worker.export.source import Source
from studio.worker.export.task import Export


def write_bnb(task: Export, target: Path) -> None:
    """Raises ModelError where the quantized model doesn't fit into memory."""
    from transformers import AutoModelForCausalLM

    check_memory(task.source)
    merged = target / "merged"
    merged.mkdir()
    write_merged(task.source, merged, task.combine)
    task.source.report("Quantizing", 0, 1)
    model = AutoModelForCausalLM.from_pretrained(
        str(merged), quantization_config=settings(task.bnb_type), dtype=torch.float32, device_map={"": "cpu"}
    )
    model.save_pretrained(str(target), max_shard_size=task.source.shard_bytes)
    for path in merged.iterdir():
        if path.suffix != ".safetensors" and not (target / path.name).exists() and "index" not in path.name:
            shutil.copyfile(path, target / path.name)
    shutil.rmtree(merged)


def settings(kind: str) -> Any:
    """bitsandbytes' config for nf4, fp4 or int8."""
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_quant_storage=torch.uint8,
    )


def section(kind: str) -> ModelSection:
    """The same as a run would load it with."""
    return ModelSection(quantization=kind, double_quant=True, dtype="float32")  # type: ignore[arg-type]


def check_memory(source: Source) -> None:
    """Raises ModelError where there is less memory than embeddings in float32 and a byte for every other number."""
    places = TensorFiles(shard_files(source.weights)).places.values()
    needed = sum(place.numbers for place in places) + 4 * max(place.numbers for place in places) + 2**28
    free = psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"Quantizing needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free.",
            "Close other programs, or export it merged.",
        )
