"""The traced estimate against the instant one, and both against what PEFT and torch count."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import peft
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from studio.core.config import RunConfig
from studio.core.errors import ModelError
from studio.core.estimate import Device, Practice, estimate, prepared
from studio.core.memory.state import trained_sizes
from studio.core.shapes import from_config
from studio.worker.adapters import peft_config
from studio.worker.trace import trace
from studio.worker.tracing.recorder import Recorder
from tests.core.published import LLAMA_8B, LLAMA_70B, tiny

# Large enough that what is kept outweighs what both leave out, small enough for a second.
MIDDLE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 16,
          "num_key_value_heads": 4, "vocab_size": 32000, "max_position_embeddings": 4096}  # fmt: skip
LATENT = {"kv_lora_rank": 256, "q_lora_rank": 384, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
          "n_routed_experts": 16, "moe_intermediate_size": 512, "num_experts_per_tok": 4,
          "num_key_value_heads": 16}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "gemma": {"head_dim": 128},
    "gemma2": {"head_dim": 128, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    "phi3": {},
    "granite": {},
    "olmo2": {},
    "smollm3": {},
    "gpt2": {"n_embd": 1024, "n_layer": 8, "n_head": 16, "n_positions": 2048},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 16, "moe_intermediate_size": 512, "num_experts_per_tok": 4, "mlp_only_layers": []},
    "deepseek_v3": LATENT,
}  # fmt: skip


def config_of(adapter: dict[str, Any] | None, **knobs: Any) -> RunConfig:
    model = {k: knobs.pop(k) for k in ("dtype", "quantization", "attn_implementation") if k in knobs}
    training = {"per_device_train_batch_size": 2, "max_length": 2048, "optim": "adamw_torch_fused", **knobs}
    return RunConfig.model_validate(
        {"model": model, "adapter": adapter if adapter is None else {"type": "lora", **adapter}, "training": training}
    )


def both(kind: str, config: RunConfig, practice: Practice | None = None) -> tuple[int, int]:
    """(instant, traced)."""
    described = tiny(kind, **{**MIDDLE, **KINDS[kind]})
    instant = estimate(config, from_config(described), device=Device(), practice=practice)
    traced = trace(config, described, device=Device(), practice=practice)
    for peak in traced.moments.values():
        assert sum(peak.parts.values()) == peak.bytes
    assert traced.reserved >= traced.allocated
    return instant.allocated, traced.allocated


@pytest.mark.parametrize("adapter", [{}, None], ids=["lora", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_two_estimates_agree(kind: str, adapter: dict[str, Any] | None) -> None:
    instant, traced = both(kind, config_of(adapter, gradient_checkpointing=adapter is not None))
    assert instant == pytest.approx(traced, rel=0.05)


@pytest.mark.parametrize(
    ("adapter", "knobs", "practice"),
    [
        ({"lora_dropout": 0.1}, {"quantization": "nf4"}, None),
        ({}, {"quantization": "int8"}, None),
        ({}, {"quantization": "nf4", "gradient_checkpointing": False}, Practice(upcast="norms", autocast=True)),
        ({}, {"dtype": "bfloat16"}, Practice(autocast=False, loss="padded")),
        ({}, {}, Practice(loss="kept", reentrant=True)),
        ({}, {}, Practice(loss="shifted", masked=True)),
        ({}, {"gradient_checkpointing": False}, Practice(loss="liger")),
        ({}, {"attn_implementation": "eager", "max_length": 512}, None),
        (None, {"optim": "adamw_8bit"}, None),
        (None, {"optim": "adamw_torch", "gradient_accumulation_steps": 1}, Practice(loss="fast")),
    ],
    ids=["nf4", "int8", "norms in float32", "no autocast", "kept", "masked", "liger", "eager", "8-bit adam", "fast"],
)
def test_they_agree_in_every_way_of_training(
    adapter: dict[str, Any] | None, knobs: dict[str, Any], practice: Practice | None
) -> None:
    instant, traced = both("llama", config_of(adapter, **knobs), practice)
    assert instant == pytest.approx(traced, rel=0.05)


def test_a_few_layers_stand_for_all_of_them() -> None:
    """The repeated layer's peak is that of a model whose every layer is gone through."""
    config = config_of({}, max_length=512)
    short = {**MIDDLE, "num_hidden_layers": 3}
    figures = [
        trace(config, tiny("llama", **{**MIDDLE, "num_hidden_layers": n}), device=Device()).allocated for n in (3, 4, 9)
    ]
    each = figures[1] - figures[0]
    assert figures[2] - figures[0] == pytest.approx(6 * each, rel=0.01)
    assert estimate(config, from_config(tiny("llama", **short)), device=Device()).allocated < figures[1]


def test_an_8b_and_a_70b_are_traced_in_little_memory() -> None:
    import resource

    config = config_of({}, max_length=1024)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    small, large = (trace(config, described, device=Device()).allocated for described in (LLAMA_8B, LLAMA_70B))
    assert 16e9 < small < 30e9
    assert 141e9 < large < 180e9
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # KiB


def test_a_model_that_cannot_be_built_is_a_model_error() -> None:
    with pytest.raises(ModelError):
        trace(config_of({}), {"model_type": "wonder"})


TARGETS: list[Any] = ["all-linear", ["q_proj", "v_proj"], ["q_proj", "down_proj"], r".*\.(k|o)_proj"]
ADAPTED = [
    *(
        (kind, t)
        for kind in ("llama", "qwen2", "gemma2", "granite", "olmo2", "qwen3_moe", "qwen2_moe")
        for t in TARGETS
    ),
    *(("mixtral", t) for t in TARGETS if "down_proj" not in t),  # whose experts have other names
    ("deepseek_v3", "all-linear"),
    ("gpt2", "all-linear"),
    ("phi3", ["qkv_proj", "down_proj"]),
]


@pytest.mark.parametrize(("kind", "targets"), ADAPTED, ids=str)
@pytest.mark.parametrize("rank", [1, 16])
def test_adapters_have_as_many_parameters_as_peft_says(kind: str, targets: Any, rank: int) -> None:
    described = tiny(kind)
    config = config_of({"r": rank, "target_modules": targets})
    assert config.adapter is not None
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**described))
        counted, _ = peft.get_peft_model(model, peft_config(config.adapter)).get_nb_trainable_parameters()
    run, _, _ = prepared(config, from_config(described), None, None, None, Device())
    assert sum(times * numel for numel, _, times in trained_sizes(run)) == counted


def test_the_recorder_sees_what_comes_and_goes() -> None:
    recorder = Recorder(vocabulary=7)
    known = torch.empty(1000)
    recorder.know(known)
    with recorder:
        first = known * 2
        second = first.view(10, 100)
        recorder.mark(0)
        del first
        third = torch.empty(200, 7)
        third.add_(1)
        _ = known + 1
        del second, third, _
        gc.collect()
    sizes = [size for _, size, _ in recorder.events]
    assert sizes == [4096, 5632, 4096, -4096, -5632, -4096]
    assert [part for _, size, part in recorder.events if size > 0][:1] == ["activations"]
    assert recorder.marks == [(1, 0)]
