"""Base + adapter as one model, a tensor at a time.

In: a Source. Out: safetensors shards with their index, config, tokenizer. Each weight is read, given its change in
float32, cast and written; never more than one layer's tensors are held, whatever the model's size, and no GPU is
needed. The base is always read from its own files, never from weights that were quantized for training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from studio.core.errors import ModelError
from studio.worker.export.plain import plain_stream
from studio.worker.export.shards import ShardWriter, TensorFiles, shard_files
from studio.worker.export.source import Source

Written = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def write_merged(source: Source, target: Path, combine: Callable[[Any], str] | None = None) -> None:
    """Write the merged model.

    Raises ModelError where the adapter can't be laid over the base, Unstreamable where that takes the whole model.
    """
    with torch.inference_mode():
        stream = _stream_of_files(source, combine)
        writer = ShardWriter(target, stream.plan, source.shard_bytes, source.writing)
        try:
            for name, blocks in stream.tensors():
                writer.write(name, blocks)
            writer.finish()
        finally:
            writer.close()
    source.copy_small_files(target, stream.changes)


def _stream_of_files(source: Source, combine: Callable[[Any], str] | None) -> FileStream:
    """By the shortest way there is. Raises ModelError, Unstreamable."""
    _refuse_quantized(source)
    if not source.is_adapter:
        return WholeModel(source)
    return (plain_stream(source) if combine is None else None) or open_stream(source, combine)


class FileStream(Protocol):
    """The tensors of a result, by the names that the base's files use."""

    plan: Written
    changes: dict[str, Any]  # what the result's config says otherwise than the base's

    def tensors(self) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        """Every tensor of the plan, once, in blocks of rows."""
        ...


class Stream(FileStream, Protocol):
    """The same, knowing what the model calls them."""

    def model_name(self, key: str) -> str:
        """What the model calls a tensor of the files; "" where it doesn't know it, or makes one of several."""
        ...


def open_stream(source: Source, combine: Callable[[Any], str] | None = None) -> Stream:
    """What is to be written, for a writer of whatever format. Raises ModelError, Unstreamable."""
    _refuse_quantized(source)
    from studio.worker.export.stream import AdaptedModel, KnownModel

    return AdaptedModel(source, combine) if source.is_adapter else KnownModel(source)


def _refuse_quantized(source: Source) -> None:
    if source.config().get("quantization_config") and source.is_adapter:
        raise ModelError(
            "The base is stored quantized, and merging into quantized weights would lose what was learnt.",
            "Train on the model's 16-bit original, or export the adapter alone.",
        )


class WholeModel:
    """A model that was trained whole: its files as they are."""

    def __init__(self, source: Source) -> None:
        self.files = TensorFiles(shard_files(source.weights))
        places = self.files.places
        self.plan: Written = {name: (source.cast(place.dtype), place.shape) for name, place in places.items()}
        self.changes: dict[str, Any] = {}

    def tensors(self) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        for name in self.plan:
            yield name, self.files.blocks(name)
