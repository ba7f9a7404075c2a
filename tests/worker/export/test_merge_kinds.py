"""What a merge rounds, which way it goes, what it refuses; that each kind is merged right is `test_merge_matrix`'s."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from studio.core.errors import ModelError
from studio.worker.export import adapterfile
from studio.worker.export import merge as merging
from studio.worker.export.plain import plain_stream
from studio.worker.export.shards import Unstreamable
from studio.worker.export.source import Source
from tests.worker.export.cases import TASK, config_of, kind, lora
from tests.worker.export.made import files_of, make_adapter, merge

Base = Callable[..., Path]

# PEFT warns of what these tests are about: saved, resized and untied embeddings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]


@pytest.mark.parametrize("name", ["llama", "tied", "gpt2", "mixtral"])
@pytest.mark.parametrize("fields", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 8, "c_attn": 8}}])
def test_the_short_way_and_pefts_layers_come_to_the_same(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fields: dict[str, Any]
) -> None:
    """What is plain is merged without PEFT; the same by PEFT's layers."""
    targets = {"gpt2": ["c_attn", "c_proj"], "mixtral": ["q_proj", "v_proj"]}.get(name, "all-linear")
    config = lora(target_modules=targets, fan_in_fan_out=name == "gpt2", **fields)
    adapter = make_adapter(base(name), tmp_path / "adapter", config)
    source = Source(base(name), adapter, "auto", lambda text, done, total: None)
    assert plain_stream(source) is not None
    short = files_of(merge(base(name), adapter, tmp_path / "short"))
    monkeypatch.setattr(merging, "plain_stream", lambda source: None)
    long = files_of(merge(base(name), adapter, tmp_path / "long"))
    torch.testing.assert_close(short, long, rtol=0, atol=0)
    assert any(not torch.equal(value, short[key]) for key, value in files_of(base(name)).items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("lora", "llama"), ("lora", "gpt2"), ("dora", "gemma"), ("all-linear", "mixtral"), ("experts", "qwen-moe"),
        ("oft", "llama"), ("ia3", "gpt2"), ("embedding", "gemma"),
    ],
)  # fmt: skip
def test_F50_another_dtype_costs_one_rounding(base: Base, tmp_path: Path, case: str, name: str, dtype: str) -> None:
    adapter = make_adapter(base(name), tmp_path / "adapter", config_of(case, name))
    exact = files_of(merge(base(name), adapter, tmp_path / "exact", "float32"))
    rounded = files_of(merge(base(name), adapter, tmp_path / "rounded", dtype))
    assert set(exact) == set(rounded)
    for key, value in rounded.items():
        assert torch.equal(value, exact[key].to(getattr(torch, dtype))), key


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_F50_where_peft_adds_in_bfloat16_ours_is_nearer_to_the_truth(base: Base, tmp_path: Path, name: str) -> None:
    """The truth: W + (alpha / r) B A in float64, of the stored numbers. PEFT's safe merge rounds B A first."""
    small = base(name, "bfloat16")
    adapter = make_adapter(small, tmp_path / "adapter", lora(target_modules=["q_proj", "v_proj"]))
    ours = files_of(merge(small, adapter, tmp_path / "out"))
    model = AutoModelForCausalLM.from_pretrained(small, dtype=torch.bfloat16)
    theirs = peft.PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True).state_dict()
    stored, factors = files_of(small), files_of(adapter)
    errors = {"ours": 0.0, "theirs": 0.0}
    for key in stored:
        layer = f"base_model.model.{key.removesuffix('.weight')}"
        if f"{layer}.lora_A.weight" in factors:
            a, b = (factors[f"{layer}.lora_{side}.weight"].double() for side in "AB")
            truth = stored[key].double() + 6 / 4 * (b @ a)
            assert ours[key].dtype is torch.bfloat16
            assert torch.equal(ours[key], truth.to(torch.bfloat16)), "nearer than this no bfloat16 can be"
            errors["ours"] += float((ours[key].double() - truth).abs().sum())
            errors["theirs"] += float((theirs[key].double() - truth).abs().sum())
    assert 0 < errors["ours"] < errors["theirs"]


def test_a_weight_that_a_base_keeps_more_exactly_stays_so(base: Base, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import save_file

    mixed = Path(shutil.copytree(base("llama", "bfloat16"), tmp_path / "mixed"))
    tensors = files_of(mixed)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 2**-20
    save_file(tensors, mixed / "model.safetensors", metadata={"format": "pt"})
    adapter = make_adapter(mixed, tmp_path / "adapter", lora(target_modules=["q_proj"]))
    out = files_of(merge(mixed, adapter, tmp_path / "out"))
    assert torch.equal(out["model.norm.weight"], tensors["model.norm.weight"])
    assert out["model.layers.0.self_attn.q_proj.weight"].dtype is torch.bfloat16
    out = files_of(merge(mixed, adapter, tmp_path / "asked", "bfloat16"))
    assert {tensor.dtype for tensor in out.values()} == {torch.bfloat16}


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PrefixTuningConfig", "PromptTuningConfig", "PromptEncoderConfig"])
def test_learnt_prompts_are_no_weights(base: Base, tmp_path: Path, name: str) -> None:
    adapter = make_adapter(base("llama"), tmp_path / "adapter", getattr(peft, name)(**TASK, num_virtual_tokens=4))
    with pytest.raises(ModelError, match="before the text") as raised:
        merge(base("llama"), adapter, tmp_path / "out")
    assert "adapter alone" in raised.value.hint
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("start", "hint"),
    [("pissa_niter_4", "plain LoRA"), ("corda", "plain LoRA"), ("lora_ga", "plain LoRA"), ("loftq", "that trained it")],
)
def test_a_start_that_cant_be_found_again_is_refused(base: Base, tmp_path: Path, start: str, hint: str) -> None:
    """PEFT's LoftQ needs a card at every loading; the studio's own leaves the base as it was, and is plain LoRA."""
    adapter = make_adapter(base("llama"), tmp_path / "adapter", lora())
    config = adapter / "adapter_config.json"
    told = {**json.loads(config.read_text()), "init_lora_weights": start}
    config.write_text(json.dumps(told | ({"loftq_config": {"loftq_bits": 4}} if start == "loftq" else {})))
    with pytest.raises(ModelError, match="can't be repeated") as raised:
        merge(base("llama"), adapter, tmp_path / "out")
    assert hint in raised.value.hint


def test_tokens_without_rows_for_them_are_refused(base: Base, tmp_path: Path) -> None:
    config = lora(target_modules=["q_proj", "embed_tokens"])
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config, 416)
    with pytest.raises(ModelError, match=r"brings no rows for them to lm_head\.weight"):
        merge(base("llama"), adapter, tmp_path / "out")


def test_F47_an_adapter_for_a_deeper_base_is_refused(base: Base, tmp_path: Path) -> None:
    """PEFT passes over what has no place, in silence."""
    from tests.tiny import make_tiny_llama

    deep = make_tiny_llama(tmp_path / "deep", num_hidden_layers=3, tied=False)
    adapter = make_adapter(deep, tmp_path / "adapter", lora())
    with pytest.raises(ModelError, match=r"layers\.2\."):
        merge(base("llama"), adapter, tmp_path / "out")


@pytest.mark.parametrize("fields", [{}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}])
def test_F47_an_adapter_for_a_wider_base_is_refused(base: Base, tmp_path: Path, fields: dict[str, Any]) -> None:
    """By the short way and by PEFT's layers, before anything is written."""
    from tests.tiny import make_tiny_llama

    wider = make_tiny_llama(tmp_path / "wider", hidden_size=96, tied=False)
    adapter = make_adapter(wider, tmp_path / "adapter", lora(**fields))
    with pytest.raises(ModelError, match="fit"):
        merge(base("llama"), adapter, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_F47_an_adapter_whose_file_was_cut_is_refused(base: Base, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    adapter = make_adapter(base("llama"), tmp_path / "adapter", lora())
    tensors = files_of(adapter)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="lacks 1 of its weights"):
        merge(base("llama"), adapter, tmp_path / "out")


def test_what_isnt_known_to_merge_layer_by_layer_is_not_tried(base: Base, tmp_path: Path) -> None:
    adapter = make_adapter(base("llama"), tmp_path / "adapter", kind("HiraConfig", r=4))
    assert "HIRA" not in adapterfile.STREAMED
    with pytest.raises(Unstreamable):
        merge(base("llama"), adapter, tmp_path / "out")
