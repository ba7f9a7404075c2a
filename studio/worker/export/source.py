"""What an export reads: a base, what was trained on it, the wished dtype.

In: folders. Out: sizes, and the small files that travel with the weights. Knows the layout of a transformers folder,
not how weights are combined.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from studio.core.config import ModelSection
from studio.core.job import read_json
from studio.core.llamacpp import QUANTIZED

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes a number in GGUF.
_SIZES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32} | {kind: bits / 8 for kind, bits in QUANTIZED.items()}
SHARD_BYTES = 5 * 10**9

# Everything a transformers folder may hold beside weights that a loader of the result wants.
_SMALL = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "vocab*",
    "merges.txt",
    "LICENSE*",
)


@dataclass(frozen=True)
class Source:
    """`output` holds an adapter (adapter_config.json) or a whole model; `others` are more adapters to put together.

    `report(text, done, total)` in bytes; it may raise Stopped. `quantized`: how the run loaded its base, where that is
    to be merged into what the quantized weights stand for.
    """

    base: Path
    output: Path
    wished_dtype: str
    report: Callable[[str, int, int], None]
    shard_bytes: int = SHARD_BYTES
    others: tuple[Path, ...] = ()
    quantized: ModelSection | None = None

    @property
    def is_adapter(self) -> bool:
        return (self.output / "adapter_config.json").is_file()

    @property
    def adapters(self) -> list[Path]:
        return [self.output, *self.others]

    @property
    def weights(self) -> Path:
        """The folder whose weights the merged model starts from."""
        return self.base if self.is_adapter else self.output

    @property
    def writing(self) -> Callable[[int, int], None]:
        return partial(self.report, "Merging" if self.is_adapter else "Writing")

    def config(self) -> dict[str, Any]:
        return read_json(self.weights / "config.json") or {}

    def dtype(self) -> str:
        """The dtype to write: the wish, else the one the base is kept in, float32 where it says nothing."""
        if self.wished_dtype != "auto":
            return self.wished_dtype
        config = read_json(self.base / "config.json") or {}
        named = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
        return named if named in BYTES else "float32"

    @property
    def keeps_dtypes(self) -> bool:
        """Whether each tensor is written in the dtype it has in the base, which keeps some more exactly than others."""
        return self.wished_dtype == "auto" and self.is_adapter

    def cast(self, stored: Any) -> Any:
        """The torch dtype that a tensor of dtype `stored` is written in: whole numbers stay what they are."""
        import torch

        return stored if self.keeps_dtypes or not stored.is_floating_point else getattr(torch, self.dtype())

    def bytes_to_write(self, format: str, quantization: str = "auto", written: str = "") -> int:
        """About how large the result will be, with what is written beside it on the way: `written` is the number format
        of the file that llama.cpp's quantizer is given, where it makes the result.
        """
        if format in ("adapter", "gguf-lora"):
            return sum(path.stat().st_size for path in self.output.glob("*") if path.is_file())
        from studio.worker.export.shards import TensorFiles, plan_bytes, shard_files

        places = TensorFiles(shard_files(self.weights)).places
        if quantization in _SIZES:
            each = _SIZES[quantization] + (_SIZES[written] if quantization in QUANTIZED else 0)
            return int(sum(place.numbers for place in places.values()) * each)
        whole = plan_bytes({name: (self.cast(place.dtype), place.shape) for name, place in places.items()})
        return 2 * whole if format == "bnb" else whole

    def copy_small_files(self, target: Path, changes: Mapping[str, Any]) -> None:
        """Tokenizer, template, generation config and licence; the tokenizer that was trained with wins over the
        base's. `changes`: fields of the config that the merge has changed.
        """
        for folder in (self.base, self.output):
            for pattern in _SMALL:
                for path in folder.glob(pattern):
                    if (path.is_file() and path.suffix != ".model") or path.name == "tokenizer.model":
                        shutil.copyfile(path, target / path.name)
        generation = self.base / "generation_config.json"
        if generation.is_file():
            shutil.copyfile(generation, target / generation.name)
        config = self.config()
        config.pop("quantization_config", None)
        config.pop("torch_dtype", None)
        config["dtype"] = self.dtype()
        if "torch_dtype" in (read_json(self.base / "config.json") or {}):
            config["torch_dtype"] = self.dtype()  # programs older than transformers 4.56 look for this name
        for name, value in changes.items():
            for section in (config, config.get("text_config")):
                if isinstance(section, dict) and (section is config or name in section):
                    section[name] = value
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
