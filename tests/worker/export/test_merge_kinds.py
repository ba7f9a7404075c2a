"""Every kind of adapter, merged a tensor at a time: what PEFT's whole merge gives, and what base and adapter say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from studio.core.errors import ModelError
from studio.worker.export import adapterfile
from studio.worker.export import merge as merging
from studio.worker.export.plain import plain_stream
from studio.worker.export.shards import Unstreamable
from studio.worker.export.source import Source
from tests.worker.export.made import files_of, laid_over, load, logits, make_adapter, merge

Base = Callable[..., Path]
TASK = {"task_type": "CAUSAL_LM"}
SOME = ["q_proj", "v_proj", "down_proj", "o_proj"]

# PEFT warns of what these tests are about: saved, resized and untied embeddings.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:The following \\w+_pattern keys:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::peft.utils.warning.PeftWarning"),
]


def lora(**fields: Any) -> LoraConfig:
    return LoraConfig(**{**TASK, "r": 4, "lora_alpha": 6, "target_modules": "all-linear", **fields})


def conv(**fields: Any) -> LoraConfig:
    return lora(fan_in_fan_out=True, **fields)


def kind(name: str, modules: list[str] | None = None, **fields: Any) -> Any:
    return getattr(peft, name)(**TASK, target_modules=modules or SOME, **fields)


def experts(**fields: Any) -> LoraConfig:
    both = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    return lora(**{"target_modules": ["q_proj"], "target_parameters": both, **fields})


BLOCKS = {"r": 0, "oft_block_size": 16}
CASES: dict[str, tuple[str, Callable[[], Any]]] = {
    "lora": ("llama", lora),
    "lora tied": ("tied", lora),
    "lora gemma": ("gemma", lora),
    "lora mixtral": ("mixtral", lora),
    "lora qwen-moe": ("qwen-moe", lora),
    "lora Conv1D": ("gpt2", conv),
    "rank and alpha patterns": ("llama", lambda: lora(rank_pattern={"q_proj": 8}, alpha_pattern={"v_proj": 9})),
    "rslora": ("llama", lambda: lora(use_rslora=True)),
    "dora": ("llama", lambda: lora(use_dora=True)),
    "dora Conv1D": ("gpt2", lambda: conv(use_dora=True)),
    "some layers": ("llama", lambda: lora(target_modules=["q_proj"], layers_to_transform=[1])),
    "bias all": ("gpt2", lambda: conv(bias="all")),
    "bias lora_only": ("gpt2", lambda: conv(bias="lora_only")),
    "lora_bias": ("gpt2", lambda: conv(lora_bias=True)),
    "saved head": ("llama", lambda: lora(modules_to_save=["lm_head"])),
    "saved embedding": ("llama", lambda: lora(modules_to_save=["embed_tokens"])),
    "saved norm": ("gemma", lambda: lora(modules_to_save=["input_layernorm"])),
    "embedding": ("llama", lambda: lora(target_modules=["q_proj", "embed_tokens"])),
    "head": ("llama", lambda: lora(target_modules=["q_proj", "lm_head"])),
    "both embeddings": ("llama", lambda: lora(target_modules=["q_proj", "embed_tokens", "lm_head"])),
    "tokens": ("llama", lambda: lora(trainable_token_indices=[1, 5, 7])),
    "tokens tied": ("tied", lambda: lora(trainable_token_indices=[1, 5, 7])),
    "pissa": ("llama", lambda: lora(init_lora_weights="pissa")),
    "pissa Conv1D": ("gpt2", lambda: conv(init_lora_weights="pissa")),
    "olora": ("llama", lambda: lora(init_lora_weights="olora")),
    "eva": ("llama", lambda: lora(init_lora_weights="eva")),
    "experts mixtral": ("mixtral", experts),
    "experts qwen-moe": ("qwen-moe", lambda: experts(rank_pattern={"mlp.experts.down_proj": 2})),
    "one of the experts' weights": ("mixtral", lambda: experts(target_parameters=["mlp.experts.down_proj"])),
    "adalora": ("llama", lambda: kind("AdaLoraConfig", init_r=6, target_r=4, total_step=10)),
    "adalora Conv1D": (
        "gpt2",
        lambda: kind("AdaLoraConfig", ["c_attn"], init_r=6, target_r=4, total_step=10, fan_in_fan_out=True),
    ),
    "loha": ("llama", lambda: kind("LoHaConfig", r=4, alpha=6)),
    "lokr": ("llama", lambda: kind("LoKrConfig", r=4, alpha=6)),
    "lokr both": ("llama", lambda: kind("LoKrConfig", r=4, alpha=6, decompose_both=True, decompose_factor=4)),
    "ia3": ("llama", lambda: kind("IA3Config", feedforward_modules=["down_proj"])),
    "ia3 Conv1D": (
        "gpt2",
        lambda: kind("IA3Config", ["c_attn", "c_proj"], feedforward_modules=["c_proj"], fan_in_fan_out=True),
    ),
    "oft": ("llama", lambda: kind("OFTConfig", **BLOCKS)),
    "oft constrained": ("llama", lambda: kind("OFTConfig", **BLOCKS, coft=True, eps=1e-2)),
    "oft shared": ("llama", lambda: kind("OFTConfig", **BLOCKS, block_share=True)),
    "boft": ("llama", lambda: kind("BOFTConfig", boft_block_size=8, boft_n_butterfly_factor=2)),
    "vera": ("llama", lambda: kind("VeraConfig", ["q_proj", "v_proj"], r=8, d_initial=0.5)),
    "vera by its seed": (
        "llama",
        lambda: kind("VeraConfig", ["q_proj", "v_proj"], r=8, d_initial=0.5, save_projection=False),
    ),
    "hra": ("llama", lambda: kind("HRAConfig", r=4)),
    "norms": ("llama", lambda: peft.LNTuningConfig(**TASK)),
    "tokens alone": ("tied", lambda: peft.TrainableTokensConfig(**TASK, token_indices=[11, 12])),
    "fourier": ("llama", lambda: kind("FourierFTConfig", n_frequency=50)),
    "randlora": ("llama", lambda: kind("RandLoraConfig", ["q_proj"], r=4)),
    "c3a": ("llama", lambda: kind("C3AConfig", block_size=16)),
    "miss": ("llama", lambda: kind("MissConfig", r=4)),
    "wave": ("llama", lambda: kind("WaveFTConfig", n_frequency=50)),
    "delora": ("llama", lambda: kind("DeloraConfig", r=4)),
    "gralora": ("llama", lambda: kind("GraloraConfig", r=4)),
    "shira": ("llama", lambda: kind("ShiraConfig", r=4)),
    "vblora": ("llama", lambda: kind("VBLoRAConfig", r=2, vector_length=16, num_vectors=16, topk=2)),
    "road": ("llama", lambda: kind("RoadConfig", ["q_proj", "down_proj"])),
}


@pytest.mark.parametrize("case", CASES)
def test_F50_each_weight_is_the_one_that_peft_merges_and_the_model_says_the_same(
    base: Base, tmp_path: Path, case: str
) -> None:
    name, config = CASES[case]
    adapter = make_adapter(base(name), tmp_path / "adapter", config())
    out = merge(base(name), adapter, tmp_path / "out")
    reference = laid_over(base(name), adapter)
    said = logits(reference)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert (logits(load(base(name))) - said).abs().max() > 0.005, "the adapter changes nothing"
    torch.testing.assert_close(logits(model), said, rtol=1e-4, atol=5e-4)
    right = reference.merge_and_unload().state_dict()
    found = model.state_dict()
    assert set(found) == set(right)
    for key, value in found.items():
        # The sums behind a number may differ in float32's own last places.
        torch.testing.assert_close(value, right[key], rtol=2e-6, atol=2e-6, msg=key)
    assert set(files_of(out)) == set(files_of(base(name))), "the files' own names are kept"


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


SHORT = ("lora", "lora tied", "lora gemma", "lora qwen-moe", "lora Conv1D", "rslora", "some layers")


@pytest.mark.parametrize("case", CASES)
def test_only_what_is_plain_goes_the_short_way(base: Base, tmp_path: Path, case: str) -> None:
    name, config = CASES[case]
    adapter = make_adapter(base(name), tmp_path / "adapter", config())
    stream = plain_stream(Source(base(name), adapter, "auto", lambda text, done, total: None))
    assert (stream is not None) is (case in SHORT)


TIED: dict[str, tuple[LoraConfig, int | None, bool]] = {
    "head saved": (lora(modules_to_save=["lm_head"]), None, False),
    "embedding saved": (lora(modules_to_save=["embed_tokens"]), None, False),
    "both saved": (lora(modules_to_save=["embed_tokens", "lm_head"]), None, False),
    "embedding": (lora(target_modules=["q_proj", "embed_tokens"]), None, False),
    "head": (lora(target_modules=["q_proj", "lm_head"]), None, False),
    "both": (lora(target_modules=["q_proj", "lm_head", "embed_tokens"]), None, False),
    "kept tied": (lora(target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True), None, False),
    "more tokens": (lora(), 416, True),
    "more tokens, saved": (lora(modules_to_save=["embed_tokens", "lm_head"]), 416, False),
    "more tokens, embedding": (lora(target_modules=["q_proj", "embed_tokens"]), 416, False),
    "more tokens, some trained": (lora(trainable_token_indices=[1, 405]), 416, True),
}


@pytest.mark.parametrize("name", ["tied", "gemma"])
@pytest.mark.parametrize("case", TIED)
def test_tied_embeddings_say_what_base_and_adapter_say(base: Base, tmp_path: Path, case: str, name: str) -> None:
    """PEFT merges into the weight that both share, and so changes the one that was never trained, too."""
    config, tokens, stays_tied = TIED[case]
    adapter = make_adapter(base(name), tmp_path / "adapter", config, tokens)
    out = merge(base(name), adapter, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.tie_word_embeddings is stays_tied
    assert ("lm_head.weight" in files_of(out)) is not stays_tied
    said = logits(laid_over(base(name), adapter, tokens))
    assert model.config.vocab_size == (tokens or 400) == said.shape[-1]
    assert (logits(load(base(name))) - said[..., :400]).abs().max() > 0.05
    torch.testing.assert_close(logits(model), said, rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("config", [lora(), lora(modules_to_save=["embed_tokens", "lm_head"])])
def test_more_tokens_than_the_base_has(base: Base, tmp_path: Path, config: LoraConfig) -> None:
    adapter = make_adapter(base("llama"), tmp_path / "adapter", config, 416)
    model = AutoModelForCausalLM.from_pretrained(merge(base("llama"), adapter, tmp_path / "out"))
    assert model.config.vocab_size == 416
    torch.testing.assert_close(logits(model), logits(laid_over(base("llama"), adapter, 416)), rtol=1e-4, atol=5e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", ["lora", "lora Conv1D", "dora", "lora mixtral", "experts qwen-moe", "oft", "ia3"])
def test_F50_another_dtype_costs_one_rounding(base: Base, tmp_path: Path, case: str, dtype: str) -> None:
    name, config = CASES[case]
    adapter = make_adapter(base(name), tmp_path / "adapter", config())
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


@pytest.mark.parametrize("start", ["pissa_niter_4", "corda", "lora_ga"])
def test_a_start_that_cant_be_found_again_is_refused(base: Base, tmp_path: Path, start: str) -> None:
    adapter = make_adapter(base("llama"), tmp_path / "adapter", lora())
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"init_lora_weights": true', f'"init_lora_weights": "{start}"'))
    with pytest.raises(ModelError, match="can't be repeated") as raised:
        merge(base("llama"), adapter, tmp_path / "out")
    assert "plain LoRA" in raised.value.hint


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
