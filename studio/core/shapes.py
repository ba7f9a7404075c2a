"""ModelShape: every tensor of a model, its name, shape and dtype, without loading it.

In: a folder with config.json (and safetensors, if they are there), or the two as mappings. Out: a ModelShape. From
safetensors the headers are read and nothing else; from config.json the tables in `architectures` are used. An
architecture that is in neither raises ModelError: its tensors must then be listed by whoever can build the model.
Knows no memory, no device.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from studio.core import architectures
from studio.core.architectures import vision
from studio.core.errors import ModelError

# Bytes of one number, by safetensors' names and torch's.
ITEM = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1, "float32": 4, "float16": 2, "bfloat16": 2, "float64": 8,
}  # fmt: skip
_STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
_LAYER = re.compile(r"^(?:.*\.)?(?:layers|h|blocks)\.(\d+)\.(.+)$")
_EXPERT = re.compile(r"\bexperts\.(\d+)\.")
_LONGEST_HEADER = 100 * 2**20


class Tensor(NamedTuple):
    """One tensor of a checkpoint; `dtype` as safetensors names it."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.numel * ITEM.get(self.dtype, 2)


@dataclass(frozen=True)
class Matrix:
    """A linear layer: `inp` numbers in, `out` out; `count` of them, alike, where they are experts."""

    path: str
    out: int
    inp: int
    bias: bool = False
    count: int = 1

    @property
    def name(self) -> str:
        """Its last name, by which adapters choose it."""
        return self.path.rpartition(".")[2]

    @property
    def numel(self) -> int:
        return self.out * self.inp


@dataclass(frozen=True)
class Layer:
    """One decoder layer: its matrices by path, its other tensors (norms and the like) as path and numbers."""

    matrices: tuple[Matrix, ...]
    small: tuple[tuple[str, int], ...]

    def find(self, *names: str) -> Matrix | None:
        """The first matrix whose path ends in one of the names."""
        for name in names:
            for matrix in self.matrices:
                if matrix.path == name or matrix.path.endswith("." + name):
                    return matrix
        return None


@dataclass(frozen=True)
class ModelShape:
    """A causal language model, without its numbers.

    `config` is its config.json (of a model with eyes: the language part's); `tensors` are those of its checkpoint.
    `quantization`: the config's own (GPTQ and the like), or empty.
    """

    config: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    quantization: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    def number(self, *names: str, default: int = 0) -> int:
        """The first of these entries of the config that is there."""
        for name in names:
            if (value := self.config.get(name)) is not None:
                return int(value)
        return default

    @property
    def hidden(self) -> int:
        return self.number("hidden_size", "n_embd")

    @property
    def heads(self) -> int:
        return self.number("num_attention_heads", "n_head", default=1)

    @property
    def kv_heads(self) -> int:
        if self.config.get("multi_query") and not self.config.get("new_decoder_architecture"):
            return 1
        return self.number("num_key_value_heads", "num_kv_heads", default=self.heads)

    @property
    def head_dim(self) -> int:
        return architectures.head_dim(self.config)

    @property
    def dtype(self) -> str:
        """What its numbers are held in, in torch's words."""
        return str(self.config.get("dtype") or self.config.get("torch_dtype") or "float32").removeprefix("torch.")

    @cached_property
    def vocabulary(self) -> int:
        """Rows of the embedding, which may be more than the config says."""
        embedding = self.embedding
        return embedding.shape[0] if embedding else self.number("vocab_size")

    @cached_property
    def embedding(self) -> Tensor | None:
        return next((t for t in self.tensors if t.name.rpartition(".")[0].endswith(_EMBEDDINGS)), None)

    @cached_property
    def head(self) -> Tensor | None:
        """The head's own matrix; None where it shares the embedding's."""
        return next((t for t in self.tensors if t.name.rpartition(".")[0].endswith(("lm_head", "embed_out"))), None)

    @cached_property
    def numel(self) -> int:
        """Parameters, tied ones once."""
        return sum(t.numel for t in self.tensors)

    @cached_property
    def bytes(self) -> int:
        """What the checkpoint's tensors take: `total_size` in a sharded model's index."""
        return sum(t.bytes for t in self.tensors)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The decoder's layers in order; equal ones are one object."""
        inside: dict[int, list[tuple[str, Tensor]]] = {}
        for tensor in self.tensors:
            found = _LAYER.match(tensor.name)
            if found and "vision" not in tensor.name:
                inside.setdefault(int(found[1]), []).append((found[2], tensor))
        seen: dict[Layer, Layer] = {}
        made = (_layer(inside[index], self.model_type) for index in sorted(inside))
        return tuple(seen.setdefault(layer, layer) for layer in made)

    @cached_property
    def outside(self) -> tuple[Tensor, ...]:
        """Tensors that belong to no layer, embedding and head among them."""
        return tuple(t for t in self.tensors if not _LAYER.match(t.name) or "vision" in t.name)


_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")


def _layer(tensors: list[tuple[str, Tensor]], model_type: str) -> Layer:
    matrices: dict[str, Matrix] = {}
    small: list[tuple[str, int]] = []
    biased = {name.removesuffix(".bias") for name, _ in tensors if name.endswith(".bias")}
    large = {name.removesuffix(".weight") for name, tensor in tensors if len(tensor.shape) > 1}
    for name, tensor in tensors:
        path = name.removesuffix(".weight")
        general = _EXPERT.sub("experts.", path)
        if len(tensor.shape) == 2 and name.endswith((".weight", "_proj")):
            out, inp = reversed(tensor.shape) if model_type == "gpt2" else tensor.shape
            known = matrices.get(general)
            matrices[general] = Matrix(general, out, inp, path in biased, known.count + 1 if known else 1)
        elif len(tensor.shape) == 3:  # experts stacked in one tensor
            matrices[general] = Matrix(general, tensor.shape[1], tensor.shape[2], count=tensor.shape[0])
        elif not (name.endswith(".bias") and path.removesuffix(".bias") in large):
            small.append((path, tensor.numel))
    # files list their tensors by name, tables as a layer reads
    by_path = sorted(matrices.values(), key=lambda matrix: matrix.path)
    return Layer(tuple(by_path), tuple(sorted(small)))


def from_config(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json describes. Raises ModelError for an architecture that isn't in the tables."""
    flat = language_part(config)
    try:
        named = architectures.tensors_of(flat)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"The model's config.json lacks {error}.", "Fetch the model again.") from None
    if named is None:
        kind = flat.get("model_type", "no model_type")
        raise ModelError(f"The architecture {kind} can't be read from config.json alone.", "Fetch the model's weights.")
    dtype = _STORED.get(str(flat.get("dtype") or flat.get("torch_dtype") or "float32").removeprefix("torch."), "F32")
    tensors = tuple(Tensor(name, shape, dtype) for name, shape in (*named, *vision.tensors(config)))
    return ModelShape(flat, tensors, config.get("quantization_config") or {})


def from_tensors(config: Mapping[str, Any], tensors: Iterable[Tensor]) -> ModelShape:
    """The shape of a model whose tensors are known already: from headers, or from a model on the meta device."""
    tensors = tuple(tensors)
    if any(t.name.endswith(".qweight") for t in tensors):  # what the packed tensors stand for, config.json says
        return from_config(config)
    return ModelShape(language_part(config), tensors, config.get("quantization_config") or {})


def language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config itself; of a model with eyes or ears the part that speaks."""
    inner = config.get("text_config")
    if not isinstance(inner, Mapping):
        return config
    kind = inner.get("model_type") or f"{config.get('model_type')}_text"
    known = architectures.DEFAULTS.get(kind, {})
    given = {"dtype": config.get("torch_dtype") or config.get("dtype"), **known, **inner, "model_type": kind}
    if "tie_word_embeddings" in config:  # the whole's word counts
        given["tie_word_embeddings"] = config["tie_word_embeddings"]
    return given


def from_folder(folder: Path) -> ModelShape:
    """The shape of a model on this machine: from its safetensors' headers, else from config.json. Raises ModelError."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        files = sorted(folder.glob("*.safetensors"))
        tensors = [tensor for path in files for tensor in read_header(path)]
    except (OSError, ValueError) as error:
        raise ModelError(f"The model in {folder} can't be read ({error}).", "Fetch the model again.") from None
    return from_tensors(config, tensors) if tensors else from_config(config)


def read_header(path: Path) -> list[Tensor]:
    """The tensors that a safetensors file announces. Raises OSError or ValueError."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_LONGEST_HEADER, path.stat().st_size - 8):
            raise ValueError(f"{path.name} has no safetensors header")
        return parse_header(file.read(length))


def parse_header(text: bytes) -> list[Tensor]:
    """The tensors in a safetensors header's JSON, which may as well come from a range request. Raises ValueError."""
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("the header is no object")
    found = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            found.append(Tensor(str(name), tuple(int(n) for n in entry["shape"]), str(entry["dtype"])))
        except (KeyError, TypeError) as error:
            raise ValueError(f"the header's entry for {name} lacks {error}") from None
    return found


def from_skeleton(answer: Mapping[str, Any]) -> ModelShape:
    """The shape of a model that was built without memory: what worker/skeletons.py answers, or that as it was kept.

    Raises ValueError for something else.
    """
    try:
        tensors = [
            Tensor(str(name), tuple(int(n) for n in shape), str(dtype)) for name, shape, dtype in answer["tensors"]
        ]
        return from_tensors(answer["config"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"that is no model's skeleton ({error})") from None
