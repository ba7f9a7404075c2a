"""What an export reads: a base, what was trained on it, the wished dtype.

In: folders. Out: sizes, and the small files that travel with the weights. Knows the layout of a transformers folder,
not how weights are combined.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.job import read_json

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

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
    """`output` holds an adapter (adapter_config.json) or a whole model.

    `report(text, done, total)` in bytes; it may raise Stopped.
    """

    base: Path
    output: Path
    wished_dtype: str
    report: Callable[[str, int, int], None]

    @property
    def is_adapter(self) -> bool:
        return (self.output / "adapter_config.json").is_file()

    @property
    def weights(self) -> Path:
        """The folder whose weights the merged model starts from."""
        return self.base if self.is_adapter else self.output

    def config(self) -> dict[str, Any]:
        return read_json(self.weights / "config.json") or {}

    def dtype(self) -> str:
        """The dtype to write: the wish, else the one the base is kept in, float32 where it says nothing."""
        if self.wished_dtype != "auto":
            return self.wished_dtype
        config = read_json(self.base / "config.json") or {}
        named = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
        return named if named in BYTES else "float32"

    def bytes_to_write(self, format: str) -> int:
        """About how large the result will be."""
        if format == "adapter":
            return sum(path.stat().st_size for path in self.output.glob("*") if path.is_file())
        from studio.worker.export.merge import tensor_count

        return tensor_count(self.weights) * BYTES[self.dtype()]

    def copy_small_files(self, target: Path) -> None:
        """Tokenizer, template, generation config and licence; the tokenizer that was trained with wins over the
        base's.
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
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
