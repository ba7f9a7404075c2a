"""The fingerprint of a base: the same for the same weights wherever they lie, another for any other."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.core.inputs import ModelInput
from studio.worker.origin import FILE, fingerprint, is_other, keep_origin
from tests.tiny import make_tiny_llama


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_F47_a_copy_is_the_same_base_whatever_it_is_called(tiny_model: Path, copy: Path, tmp_path: Path) -> None:
    keep_origin(tiny_model, ModelInput("folder", str(tiny_model)), tmp_path)
    kept = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert kept["base"] == tiny_model.name, "no folder of this machine"
    assert len(kept["sha256"]) == 64 and "first and last MB" in kept["of"]
    assert is_other(copy, tmp_path) is False
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, "transformers_version": "0"}), encoding="utf-8")
    assert is_other(copy, tmp_path) is False, "what a program notes down is no weight"


def test_F47_other_weights_of_the_same_shape_are_another_base(tiny_model: Path, copy: Path, tmp_path: Path) -> None:
    keep_origin(tiny_model, ModelInput("hub", "some/base"), tmp_path)
    tensors = load_file(copy / "model.safetensors")
    last = sorted(tensors)[-1]
    tensors[last] = tensors[last].clone()
    tensors[last].view(-1)[-1] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert is_other(copy, tmp_path) is True
    assert fingerprint(make_tiny_llama(tmp_path / "deeper", num_hidden_layers=3)) != fingerprint(tiny_model)


def test_names_shapes_and_dtypes_count_as_well_as_numbers(tmp_path: Path) -> None:
    found = set()
    for number, (name, tensor) in enumerate(
        (("a", torch.zeros(4)), ("b", torch.zeros(4)), ("a", torch.zeros(2, 2)), ("a", torch.zeros(4).int()))
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file({name: tensor}, folder / "model.safetensors")
        found.add(fingerprint(folder))
    assert len(found) == 4


def test_files_of_any_size_are_read_at_their_ends_only(tmp_path: Path) -> None:
    """Eight gigabytes with a hole: reading all of it would take the test's whole time."""
    size = 8 * 2**30
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()

    def write(folder: Path, end: bytes) -> str:
        folder.mkdir()
        with (folder / "model.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + size)
            file.seek(-len(end), 2)
            file.write(end)
        return fingerprint(folder)

    assert write(tmp_path / "one", b"\0\1") != write(tmp_path / "two", b"\0\2")


def test_who_can_t_say_says_nothing(tiny_model: Path, tmp_path: Path) -> None:
    assert is_other(tiny_model, tmp_path) is None, "an adapter from elsewhere has no origin.json"
    assert fingerprint(tmp_path) == ""
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        fingerprint(tmp_path)
    keep_origin(tmp_path, ModelInput("folder", "x"), tmp_path)
    assert not (tmp_path / FILE).exists(), "a run's end is no place to fail at that"
    keep_origin(tiny_model, ModelInput("starter", "starter"), tmp_path)
    assert is_other(tmp_path, tmp_path) is None
