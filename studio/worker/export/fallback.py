"""The whole merge by PEFT, where a model or an adapter can't be taken a tensor at a time.

In: a Source. Out: the same folder as `merge` writes, at the price of the whole model in memory, which is looked at
before anything is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

from studio.core.errors import ModelError
from studio.worker.export.shards import TensorFiles, shard_files
from studio.worker.export.source import Source

_BESIDE = 1.15  # what loading and merging need beside the weights


def memory_needed(source: Source) -> int:
    """Bytes that the whole merge needs: the base in float32, and a little."""
    places = TensorFiles(shard_files(source.base)).places
    return int(sum(place.numbers for place in places.values()) * 4 * _BESIDE)


def check_memory(source: Source) -> None:
    """Raises ModelError where the whole model doesn't fit into what is free."""
    needed, free = memory_needed(source), psutil.virtual_memory().available
    if needed > free:
        raise ModelError(
            f"This adapter can only be merged with the whole model in memory: {needed / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free.",
            "Close other programs, merge it on a machine with more memory, or export the adapter alone.",
        )


def write_merged_whole(source: Source, target: Path, combine: Callable[[Any], str] | None = None) -> None:
    """Load base and adapter, merge in float32, write. Raises ModelError."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    check_memory(source)
    source.report("Loading the whole model", 0, 1)
    base = AutoModelForCausalLM.from_pretrained(str(source.base), dtype=torch.float32, trust_remote_code=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(base, str(source.output), autocast_adapter_dtype=True)
            if combine:
                for number, folder in enumerate(source.others, 1):
                    model.load_adapter(str(folder), adapter_name=f"adapter{number}")
                model.set_adapter(combine(model))
            merged = model.merge_and_unload()
    except (RuntimeError, ValueError, KeyError, NotImplementedError, AttributeError, TypeError) as error:
        raise ModelError(
            f"PEFT can't merge this adapter ({' '.join(str(error).split())[:300]}).", "Export the adapter alone."
        ) from error
    merged.to(getattr(torch, source.dtype())).save_pretrained(str(target), max_shard_size=source.shard_bytes)
    changes = {"tie_word_embeddings": False} if not merged.config.tie_word_embeddings else {}
    source.copy_small_files(target, changes)
