"""Every kind of adapter and option that PEFT has, for models of every build: what is crossed with what.

In: a case's name, a model's. Out: a PEFT config; which case is crossed with which model; what of it PEFT itself can't
build, what goes the short way, what unties embeddings. Knows no merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import peft
from peft import LoraConfig

TASK = {"task_type": "CAUSAL_LM"}


@dataclass(frozen=True)
class Build:
    """How a model names its parts. `turned`: its linear layers are Conv1D; `inner`: the feed-forward part's last."""

    some: tuple[str, ...] = ("q_proj", "v_proj", "o_proj", "down_proj")
    inner: tuple[str, ...] = ("down_proj",)
    embed: str = "embed_tokens"
    norm: str = "input_layernorm"
    turned: bool = False

    @property
    def first(self) -> str:
        return self.some[0]


BUILDS = {
    "llama": Build(),
    "gpt2": Build(("c_attn", "c_proj"), ("c_proj",), "wte", "ln_1", turned=True),
    "gemma": Build(),
    "mixtral": Build(("q_proj", "v_proj", "o_proj"), ()),
    "qwen-moe": Build(),
    "llama-bias": Build(),
    "gemma-bias": Build(),
}
MODELS = ("llama", "gpt2", "gemma", "mixtral", "qwen-moe")
BIASED = ("llama-bias", "gpt2", "gemma-bias", "qwen-moe")  # a Mixtral has no biases
TIED, EXPERTS = ("gpt2", "gemma"), ("mixtral", "qwen-moe")
Case = Callable[[Build], Any]


def lora(**fields: Any) -> LoraConfig:
    return LoraConfig(**{**TASK, "r": 4, "lora_alpha": 6, "target_modules": "all-linear", **fields})


def laid(build: Build, **fields: Any) -> LoraConfig:
    """LoRA on some of a model's layers."""
    return lora(**{"target_modules": list(build.some), "fan_in_fan_out": build.turned, **fields})


def kind(name: str, modules: Any = None, **fields: Any) -> Any:
    return getattr(peft, name)(**TASK, target_modules=list(modules or BUILDS["llama"].some), **fields)


def of(name: str, **fields: Any) -> Case:
    """Another kind of adapter on some of a model's layers."""
    return lambda build: kind(name, build.some, **fields)


def turning(name: str, **fields: Any) -> Case:
    """The same for kinds that have to be told of Conv1D."""
    return lambda build: kind(name, build.some, fan_in_fan_out=build.turned, **fields)


def experts(**fields: Any) -> Case:
    both = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    return lambda build: lora(**{"target_modules": ["q_proj"], "target_parameters": both, **fields})


BLOCKS = {"r": 0, "oft_block_size": 16}
VERA = {"r": 8, "d_initial": 0.5}
CASES: dict[str, Case] = {
    "lora": laid,  # also what LoRA+ leaves: that is the optimizer's
    "all-linear": lambda b: lora(fan_in_fan_out=b.turned),
    "rank and alpha patterns": lambda b: laid(b, rank_pattern={b.first: 8}, alpha_pattern={b.some[1]: 9}),
    "rslora": lambda b: laid(b, use_rslora=True, rank_pattern={b.first: 8}),
    "dora": lambda b: laid(b, use_dora=True),
    "some layers": lambda b: laid(b, layers_to_transform=[1]),
    "saved head": lambda b: laid(b, modules_to_save=["lm_head"]),
    "saved embedding": lambda b: laid(b, modules_to_save=[b.embed]),
    "both saved": lambda b: laid(b, modules_to_save=[b.embed, "lm_head"]),
    "saved norm": lambda b: laid(b, modules_to_save=[b.norm]),
    "embedding": lambda b: laid(b, target_modules=[b.first, b.embed]),
    "head": lambda b: laid(b, target_modules=[b.first, "lm_head"]),
    "both embeddings": lambda b: laid(b, target_modules=[b.first, b.embed, "lm_head"]),
    "tokens": lambda b: laid(b, trainable_token_indices=[1, 5, 7]),
    "pissa": lambda b: laid(b, init_lora_weights="pissa"),
    "olora": lambda b: laid(b, init_lora_weights="olora"),
    "eva": lambda b: laid(b, init_lora_weights="eva"),
    "orthogonal": lambda b: laid(b, init_lora_weights="orthogonal"),
    "adalora": turning("AdaLoraConfig", init_r=6, target_r=4, total_step=10),
    "vera": lambda b: kind("VeraConfig", [b.first], fan_in_fan_out=b.turned, **VERA),
    "vera by its seed": lambda b: kind("VeraConfig", [b.first], fan_in_fan_out=b.turned, save_projection=False, **VERA),
    "loha": of("LoHaConfig", r=4, alpha=6),
    "lokr": of("LoKrConfig", r=4, alpha=6),
    "lokr both": of("LoKrConfig", r=4, alpha=6, decompose_both=True, decompose_factor=4),
    "ia3": lambda b: kind("IA3Config", b.some, feedforward_modules=list(b.inner), fan_in_fan_out=b.turned),
    "oft": of("OFTConfig", **BLOCKS),
    "oft constrained": of("OFTConfig", **BLOCKS, coft=True, eps=1e-2),
    "oft shared": of("OFTConfig", **BLOCKS, block_share=True),
    "boft": turning("BOFTConfig", boft_block_size=8, boft_n_butterfly_factor=2),
}
ON_SOME: dict[str, tuple[tuple[str, ...], Case]] = {
    "bias all": (BIASED, lambda b: laid(b, bias="all")),
    "bias lora_only": (BIASED, lambda b: laid(b, bias="lora_only")),
    "lora_bias": (BIASED, lambda b: laid(b, target_modules=[b.first], lora_bias=True)),
    "kept tied": (TIED, lambda b: laid(b, target_modules=[b.first, b.embed], ensure_weight_tying=True)),
    "experts": (EXPERTS, experts()),
    "experts, ranks": (EXPERTS, experts(rank_pattern={"mlp.experts.down_proj": 2}, use_rslora=True)),
    "one of the experts' weights": (EXPERTS, experts(target_parameters=["mlp.experts.down_proj"])),
    # What PEFT has beside, and nothing in the studio trains.
    "hra": (("llama",), of("HRAConfig", r=4)),
    "norms": (("llama",), lambda b: peft.LNTuningConfig(**TASK)),
    "tokens alone": (("gemma",), lambda b: peft.TrainableTokensConfig(**TASK, token_indices=[11, 12])),
    "fourier": (("llama",), of("FourierFTConfig", n_frequency=50)),
    "randlora": (("llama",), lambda b: kind("RandLoraConfig", [b.first], r=4)),
    "c3a": (("llama",), of("C3AConfig", block_size=16)),
    "miss": (("llama",), of("MissConfig", r=4)),
    "wave": (("llama",), of("WaveFTConfig", n_frequency=50)),
    "delora": (("llama",), of("DeloraConfig", r=4)),
    "gralora": (("llama",), of("GraloraConfig", r=4)),
    "shira": (("llama",), of("ShiraConfig", r=4)),
    "vblora": (("llama",), of("VBLoRAConfig", r=2, vector_length=16, num_vectors=16, topk=2)),
    "road": (("llama",), lambda b: kind("RoadConfig", ["q_proj", "down_proj"])),
}
# On models that were given 16 more tokens.
WIDER: dict[str, Case] = {
    "more tokens": laid,
    "more tokens, both saved": lambda b: laid(b, modules_to_save=[b.embed, "lm_head"]),
    "more tokens, some trained": lambda b: laid(b, trainable_token_indices=[1, 405]),
    "more tokens, both laid over": lambda b: laid(b, target_modules=[b.first, b.embed, "lm_head"]),
}
CROSSED = [
    *((case, name) for case in (*CASES, *WIDER) for name in MODELS),
    *((case, name) for case, (names, _) in ON_SOME.items() for name in names),
]
# What PEFT itself doesn't build.
NOT_BUILT = {(case, "gpt2") for case in CASES if case.split()[0] in ("olora", "loha", "lokr", "oft", "boft")}
SHORT = ("lora", "all-linear", "rslora", "some layers", "orthogonal")
# Embedding and head are one no longer once one of them alone is changed, or each by something of its own.
_APART = ("saved head", "saved embedding", "both saved", "embedding", "head", "both embeddings")
_APART += ("more tokens, both saved", "more tokens, both laid over")
UNTIES = {("kept tied", "gpt2"), *((case, name) for case in _APART for name in TIED)}  # PEFT ties nothing on Conv1D


def config_of(case: str, name: str) -> Any:
    """A case's config for a model."""
    known = CASES | WIDER | {case: made for case, (_, made) in ON_SOME.items()}
    return known[case](BUILDS[name])
