"""Every format, written right and written wrong: one criterion tells them apart."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file

from studio.worker.export.bnb import write_bnb
from studio.worker.export.gguf.lora import write_lora
from studio.worker.export.parity import Parity, compare
from studio.worker.export.source import Source
from tests.worker.export.made import files_of, make_adapter, merge
from tests.worker.export.test_gguf import write as write_gguf

Base = Callable[..., Path]
Pair = tuple[Path, Path]
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.usefixtures("short_replies"),
]
FORMATS = [
    ("adapter", "float32"),
    ("gguf-lora", "float32"),
    *(("merged", dtype) for dtype in ("float32", "bfloat16", "float16")),
    *(("gguf", kind) for kind in ("f32", "f16", "bf16", "q8_0")),
    *(("bnb", kind) for kind in ("nf4", "fp4", "int8")),
]


KINDS = [("adapter", "float32"), ("gguf-lora", "float32"), ("merged", "bfloat16"), ("gguf", "q8_0"), ("bnb", "nf4")]


@pytest.fixture
def right(base: Base, tmp_path: Path) -> Pair:
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear")
    return base("llama"), make_adapter(base("llama"), tmp_path / "adapter", config)


def written(pair: Pair, out: Path, format: str, quantization: str, dtype: str = "float32") -> Path:
    base, adapter = pair
    if format == "merged":
        return merge(base, adapter, out, quantization)
    if format == "gguf":
        return write_gguf(base, adapter, out, quantization).parent
    out.mkdir()
    if format == "bnb":
        source = Source(base, adapter, dtype, lambda text, done, total: None)
        write_bnb(SimpleNamespace(source=source, combine=None, bnb_type=quantization), out)  # type: ignore[arg-type]
        return out
    if format == "gguf-lora":
        write_lora(Source(base, adapter, dtype, lambda text, done, total: None), out / "adapter-f32.gguf")
        return out
    return Path(shutil.copytree(adapter, out, dirs_exist_ok=True))


def judged(pair: Pair, out: Path, format: str, quantization: str, dtype: str = "float32") -> Parity:
    fields = {"base": str(pair[0]), "adapters": [str(pair[1])], "written": str(out), "format": format}
    dtype = quantization if format == "merged" else dtype
    return compare({**fields, "quantization": quantization, "dtype": dtype})


def unmerged(pair: Pair, folder: Path) -> Pair:
    copy = Path(shutil.copytree(pair[1], folder))
    tensors = files_of(copy)
    nothing = {key: torch.zeros_like(value) if "lora_B" in key else value for key, value in tensors.items()}
    save_file(nothing, copy / "adapter_model.safetensors")
    return pair[0], copy


def scaled(pair: Pair, folder: Path) -> Pair:
    """As if alpha / sqrt(r) were alpha / r, or the other way round."""
    copy = Path(shutil.copytree(pair[1], folder))
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True}))
    return pair[0], copy


def swapped(pair: Pair, folder: Path, number: int = 0) -> Pair:
    """Two layers' weights, in each other's places."""
    copy = Path(shutil.copytree(pair[number], folder))
    tensors = files_of(copy)
    for key in [key for key in tensors if "layers.0.mlp.down_proj" in key]:
        other = key.replace("layers.0", "layers.1")
        tensors[key], tensors[other] = tensors[other], tensors[key]
    (file,) = copy.glob("*.safetensors")
    save_file(tensors, file, metadata={"format": "pt"})
    return (copy, pair[1]) if number == 0 else (pair[0], copy)


def swapped_in_the_adapter(pair: Pair, folder: Path) -> Pair:
    return swapped(pair, folder, 1)


# Every way of being wrong for one of each kind of rounding; all of them by night.
EVERY = [
    pytest.param(wrong, *kind, marks=[] if kind in KINDS else pytest.mark.nightly)
    for wrong in (unmerged, scaled, swapped)
    for kind in FORMATS
]


@pytest.mark.parametrize(("wrong", "format", "quantization"), EVERY)
def test_a_wrong_export_is_red(
    right: Pair, tmp_path: Path, wrong: Callable[[Pair, Path], Pair], format: str, quantization: str
) -> None:
    if format in ("adapter", "gguf-lora") and wrong is swapped:  # the base isn't part of it
        wrong = swapped_in_the_adapter
    out = written(wrong(right, tmp_path / "wrong"), tmp_path / "out", format, quantization)
    found = judged(right, out, format, quantization)
    assert found.same is False
    assert "the format explains" in found.problems[0]


@pytest.mark.parametrize(("format", "quantization"), FORMATS)
def test_a_right_one_is_not(right: Pair, tmp_path: Path, format: str, quantization: str) -> None:
    found = judged(right, written(right, tmp_path / "out", format, quantization), format, quantization)
    assert found.same is True, found.problems
    assert found.explained is not None and found.max_logit_diff is not None and found.moved is not None
    exact = quantization in ("float32", "f32")
    assert (found.explained < 1e-3) is (found.max_logit_diff < 1e-3) is exact


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_checkpoint_of_bfloat16_is_rounded_twice(base: Base, tmp_path: Path, kind: str) -> None:
    """The merge is kept in the base's dtype, and then in fewer bits: the explanation does both."""
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules="all-linear")
    pair = base("llama", "bfloat16"), make_adapter(base("llama", "bfloat16"), tmp_path / "adapter", config)
    out = written(pair, tmp_path / "out", "bnb", kind, "auto")
    assert judged(pair, out, "bnb", kind, "bfloat16").same is True


def test_a_faint_change_in_a_coarse_format_must_be_there_too(base: Base, tmp_path: Path) -> None:
    """Four bits explain ten times what this adapter does; whether it was merged is told all the same."""
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=0.4, target_modules="all-linear")
    right = base("llama"), make_adapter(base("llama"), tmp_path / "adapter", config)
    found = judged(right, written(right, tmp_path / "right", "bnb", "nf4"), "bnb", "nf4")
    assert found.explained is not None and found.moved is not None and found.left is not None
    assert found.explained > 10 * found.moved > 0
    assert found.left < 0.01 * found.moved
    for wrong in (unmerged, scaled):
        name = wrong.__name__
        out = written(wrong(right, tmp_path / f"wrong-{name}"), tmp_path / name, "bnb", "nf4")
        found = judged(right, out, "bnb", "nf4")
        assert "is left where the same rounding is done" in found.problems[0], (name, found)
