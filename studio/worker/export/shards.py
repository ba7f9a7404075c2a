"""Safetensors files read and written a block at a time.

In: a model's folder; names, dtypes and shapes of what will be written. Out: tensors, or blocks of their rows; shards
with an index, named as transformers names them. The format is 8 bytes of header length, a JSON header with each
tensor's place, the data; since every shape is known before the first byte, the header is written first and no shard is
ever held. Files are read, not mapped: a mapped file's pages would count as this process's memory.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import IO, Any

import torch

from studio.core.errors import ModelError
from studio.core.job import read_json
from studio.worker.checkpoints import check_header

BLOCK = 2**21  # numbers computed at once: 8 MB in float32
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


class Unstreamable(Exception):
    """This model or adapter can't be merged a tensor at a time; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: its file, the offset of its first byte, how it is to be read."""

    path: Path
    start: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.numbers * int(self.dtype.itemsize)


def shard_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would read, in the order of their index."""
    whole = folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    index = read_json(folder / "model.safetensors.index.json")
    if index:
        return [folder / name for name in dict.fromkeys(index["weight_map"].values())]
    return sorted(folder.glob("*.safetensors"))


class TensorFiles:
    """The tensors in some safetensors files, by name, in the files' order. Raises ModelError for damaged files."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.places: dict[str, Place] = {}
        for path in paths:
            try:
                check_header(path)
                self.places |= _header(path)
            except (OSError, ValueError, KeyError) as error:
                raise ModelError(
                    f"{path} can't be read ({error}).", "Check that the folder is whole, or fetch the model again."
                ) from None

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def read(self, name: str) -> torch.Tensor:
        """A whole tensor, as it is stored."""
        place = self.places[name]
        found = torch.empty(place.shape, dtype=place.dtype)
        with place.path.open("rb") as file:
            file.seek(place.start)
            _read_into(file, found)
        return found

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """A tensor's rows, some at a time; a tensor of one dimension or none in one piece."""
        place = self.places[name]
        if len(place.shape) < 2:
            yield self.read(name)
            return
        with place.path.open("rb") as file:
            file.seek(place.start)
            for rows in row_blocks(place.shape):
                found = torch.empty((len(rows), *place.shape[1:]), dtype=place.dtype)
                _read_into(file, found)
                yield found


def row_blocks(shape: tuple[int, ...]) -> Iterator[range]:
    """Ranges of rows that hold some BLOCK numbers each."""
    step = max(1, BLOCK // max(1, math.prod(shape[1:])))
    for first in range(0, shape[0], step):
        yield range(first, min(first + step, shape[0]))


def _read_into(file: IO[bytes], tensor: torch.Tensor) -> None:
    view, got = memoryview(tensor.reshape(-1).view(torch.uint8).numpy()), 0
    while got < len(view):
        count = file.readinto(view[got:])  # type: ignore[attr-defined]
        if not count:
            raise ModelError(f"{file.name} ends before its last tensor.", "Fetch the model again.")
        got += count


def _header(path: Path) -> dict[str, Place]:
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    return {
        name: Place(path, 8 + length + entry["data_offsets"][0], DTYPES[entry["dtype"]], tuple(entry["shape"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }


Plan = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


def plan_bytes(plan: Plan) -> int:
    """How many bytes of tensors a plan holds."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in plan.values())


class ShardWriter:
    """Writes the tensors of a plan, each once, in any order, into shards of at most `shard_bytes` (or one tensor).

    `report(done, total)` in bytes, at each block; it may raise to stop.
    """

    def __init__(self, target: Path, plan: Plan, shard_bytes: int, report: Callable[[int, int], None]) -> None:
        self._plan, self._report = plan, report
        self._total, self._done = plan_bytes(plan), 0
        self._places: dict[str, tuple[int, int]] = {}
        self._left = set(plan)
        shards = _shards(plan, shard_bytes)
        count = len(shards)
        names = [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
        if count == 1:
            names = ["model.safetensors"]
        # Unbuffered: what a full disk refuses is refused at the write, not again at the closing.
        self._files = [(target / name).open("xb", buffering=0) for name in names]
        for number, members in enumerate(shards):
            self._open(number, members)
        if count > 1:
            weight_map = {name: names[number] for number, members in enumerate(shards) for name in members}
            index = {"metadata": {"total_size": self._total}, "weight_map": weight_map}
            text = json.dumps(index, indent=2, sort_keys=True) + "\n"
            (target / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    def _open(self, number: int, members: list[str]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in members:
            dtype, shape = self._plan[name]
            size = dtype.itemsize * math.prod(shape)
            header[name] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [offset, offset + size]}
            offset += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        _write_all(self._files[number], memoryview(struct.pack("<Q", len(text)) + text))
        for name in members:
            self._places[name] = (number, 8 + len(text) + header[name]["data_offsets"][0])

    def write(self, name: str, blocks: Iterable[torch.Tensor]) -> None:
        """Write one tensor from blocks of its rows, each cast to the plan's dtype."""
        dtype, shape = self._plan[name]
        number, offset = self._places[name]
        self._left.remove(name)
        file = self._files[number]
        if file.tell() != offset:
            file.seek(offset)
        written = 0
        for block in blocks:
            ready = block.to(dtype).contiguous()
            _write_all(file, memoryview(ready.reshape(-1).view(torch.uint8).numpy()))
            written += ready.numel()
            self._done += ready.nbytes
            self._report(self._done, self._total)
        assert written == math.prod(shape), f"{name}: {written} numbers instead of {shape}"

    def finish(self) -> None:
        """Close the files. Every tensor must have been written."""
        assert not self._left, f"never written: {sorted(self._left)[:3]}"
        self.close()

    def close(self) -> None:
        for file in self._files:
            file.close()


def _write_all(file: RawIOBase, view: memoryview) -> None:
    while len(view):
        view = view[file.write(view) or 0 :]


def _shards(plan: Plan, shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, (dtype, shape) in plan.items():
        more = dtype.itemsize * math.prod(shape)
        if shards[-1] and size + more > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    return shards
