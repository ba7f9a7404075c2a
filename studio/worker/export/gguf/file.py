"""A GGUF file written a block of rows at a time.

In: a stream of tensors, a config, a tokenizer, a number format. Out: the file. The header is written first, since
every shape is known; each tensor then goes to its own place, whatever the order they come in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from studio.worker.export.gguf.architectures import (
    Architecture,
    add_numbers,
    architecture_of,
    names,
    rope_factors,
)
from studio.worker.export.gguf.vocabulary import add_vocabulary
from studio.worker.export.merge import Stream

Type = gguf.GGMLQuantizationType
TYPES: dict[str, tuple[Any, Any]] = {
    "f32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (Type.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_ALIGNMENT = gguf.GGUF_DEFAULT_ALIGNMENT


def type_for(shape: tuple[int, ...], wished: str) -> Any:
    """What a tensor is written in: norms and biases always in float32; rows that q8_0 can't divide, in float16."""
    if len(shape) < 2:
        return Type.F32
    if wished == "q8_0" and shape[-1] % gguf.GGML_QUANT_SIZES[Type.Q8_0][0]:
        return Type.F16
    return TYPES[wished][0]


class GgufFile:
    """`report(done, total)` in bytes; it may raise to stop."""

    def __init__(
        self, path: Path, stream: Stream, config: Any, wished: str, report: Callable[[int, int], None]
    ) -> None:
        self.path, self.stream, self.config, self.report = path, stream, config, report
        self.architecture: Architecture = architecture_of(config)
        self._name = names(self.architecture, config)
        self._shapes: dict[str, tuple[int, ...]] = {}
        for key, (_, shape) in stream.plan.items():
            name = stream.model_name(key)
            if name:
                self._shapes[self._name(name)] = self._turned_shape(name, shape)
        self._rope = rope_factors(config)
        if self._rope is not None:
            self._shapes["rope_freqs.weight"] = tuple(self._rope.shape)
        self._types = {name: type_for(shape, wished) for name, shape in self._shapes.items()}
        self._file_type = TYPES[wished][1]

    def _turned_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        with torch.device("meta"):
            return tuple(self.architecture.turn(self.config, name, torch.empty(shape)).shape)

    def bytes_of(self, name: str) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self._types[name]]
        return int(math.prod(self._shapes[name]) // block * size)

    @property
    def total(self) -> int:
        return sum(self.bytes_of(name) for name in self._shapes)

    def write(self, tokenizer: Any, metadata: Callable[[gguf.GGUFWriter], None]) -> None:
        """Write the file; `metadata` adds what isn't the architecture's or the tokenizer's."""
        places = self._write_header(tokenizer, metadata)
        done = 0
        with self.path.open("r+b", buffering=0) as file:
            for name, blocks in self._tensors():
                file.seek(places[name])
                for block in blocks:
                    data = memoryview(gguf.quants.quantize(block.float().numpy(), self._types[name]).view(np.uint8))
                    rest = data.cast("B")
                    while len(rest):
                        rest = rest[file.write(rest) or 0 :]
                    done += data.nbytes
                    self.report(min(done, self.total), self.total)
            file.truncate(max(places[name] + self._padded(name) for name in places))

    def _padded(self, name: str) -> int:
        return int(gguf.GGUFWriter.ggml_pad(self.bytes_of(name), _ALIGNMENT))

    def _write_header(self, tokenizer: Any, metadata: Callable[[gguf.GGUFWriter], None]) -> dict[str, int]:
        writer = gguf.GGUFWriter(self.path, gguf.MODEL_ARCH_NAMES[self.architecture.arch])
        metadata(writer)
        writer.add_file_type(self._file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        add_numbers(writer, self.config)
        add_vocabulary(writer, tokenizer, self.config.vocab_size)
        for name, shape in self._shapes.items():
            writer.add_tensor_info(name, list(shape), np.dtype(np.float32), self.bytes_of(name), self._types[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        place = int(gguf.GGUFWriter.ggml_pad(self.path.stat().st_size, _ALIGNMENT))
        places = {}
        for name in self._shapes:
            places[name] = place
            place += self._padded(name)
        return places

    def _tensors(self) -> Iterator[tuple[str, Iterable[torch.Tensor]]]:
        if self._rope is not None:
            yield "rope_freqs.weight", [self._rope]
        for key, blocks in self.stream.tensors():
            name = self.stream.model_name(key)
            if not name:
                continue
            if any(part in name for part in self.architecture.whole):
                whole = torch.cat([block.float() for block in blocks])
                yield self._name(name), [self.architecture.turn(self.config, name, whole).contiguous()]
            else:
                yield self._name(name), (self.architecture.turn(self.config, name, b.float()) for b in blocks)
