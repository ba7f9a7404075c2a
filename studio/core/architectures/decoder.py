"""Architectures laid out like Llama: model.layers.N with self_attn and mlp, rotary positions, RMS norms.

In: a config. Out: (name, shape) pairs. What sets one apart from another stands in its `Traits`; figures are the
config's. Layouts are those of the transformers models of the same name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
Named = tuple[str, tuple[int, ...]]

_TWO = ("input_layernorm", "post_attention_layernorm")
_FOUR = (*_TWO, "pre_feedforward_layernorm", "post_feedforward_layernorm")


@dataclass(frozen=True)
class Traits:
    """What a family has beside Llama's plan.

    `qkv_bias`, `o_bias`, `mlp_bias`: True, False, or the config entry that says so. `qk_norm`: one weight for each
    number of a `head`, or of the `whole` projection. `fused`: q, k, v are one matrix, and so are gate and up.
    `experts`: how a mixture names its parts; None for a dense model.
    """

    norms: tuple[str, ...] = _TWO
    qkv_bias: bool | str = False
    o_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: str = ""
    fused: bool = False
    head_dim: int | None = None
    experts: str | None = None
    final_norm: bool = True


TRAITS: dict[str, Traits] = {
    "llama": Traits(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Traits(),
    "mixtral": Traits(experts="mixtral"),
    "qwen2": Traits(qkv_bias=True),
    "qwen2_moe": Traits(qkv_bias=True, experts="qwen"),
    "qwen3": Traits(qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="head", head_dim=128),
    "qwen3_moe": Traits(qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="head", experts="qwen"),
    "gemma": Traits(qkv_bias="attention_bias", o_bias="attention_bias", head_dim=256),
    "gemma2": Traits(norms=_FOUR, qkv_bias="attention_bias", o_bias="attention_bias", head_dim=256),
    "gemma3_text": Traits(
        norms=_FOUR, qkv_bias="attention_bias", o_bias="attention_bias", head_dim=256, qk_norm="head"
    ),
    "phi3": Traits(fused=True),
    "smollm3": Traits(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"),
    "granite": Traits(qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"),
    "granitemoe": Traits(qkv_bias="attention_bias", o_bias="attention_bias", experts="granite"),
    "olmo": Traits(norms=(), qkv_bias="attention_bias", o_bias="attention_bias", final_norm=False),
    "olmo2": Traits(norms=_FOUR[1::2], qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="whole"),
    "olmo3": Traits(norms=_FOUR[1::2], qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="whole"),
    "olmoe": Traits(qkv_bias="attention_bias", o_bias="attention_bias", qk_norm="whole", experts="qwen"),
    "deepseek_v2": Traits(qkv_bias="attention_bias", o_bias="attention_bias", experts="deepseek"),
    "deepseek_v3": Traits(qkv_bias="attention_bias", o_bias="attention_bias", experts="deepseek"),
}


def head_dim(config: Config) -> int:
    """Numbers in one head; a config may leave it out."""
    traits = TRAITS.get(str(config.get("model_type")))
    given = config.get("head_dim") or (traits and traits.head_dim)
    return int(given or config["hidden_size"] // config["num_attention_heads"])


def tensors(config: Config) -> Iterator[Named]:
    """The tensors of a Llama-like model, head included."""
    traits = TRAITS[config["model_type"]]
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}"
        for name in traits.norms:
            yield f"{at}.{name}.weight", (hidden,)
        latent = "kv_lora_rank" in config
        yield from (_latent_attention if latent else _attention)(f"{at}.self_attn", config, traits)
        yield from _feed_forward(at, index, config, traits)
    if traits.final_norm:
        yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocabulary, hidden)


def _asked(choice: bool | str, config: Config) -> bool:
    return bool(config.get(choice)) if isinstance(choice, str) else choice


def _linear(at: str, out: int, inp: int, bias: bool = False) -> Iterator[Named]:
    yield f"{at}.weight", (out, inp)
    if bias:
        yield f"{at}.bias", (out,)


def _attention(at: str, config: Config, traits: Traits) -> Iterator[Named]:
    hidden, size = config["hidden_size"], head_dim(config)
    query = config["num_attention_heads"] * size
    key = (config.get("num_key_value_heads") or config["num_attention_heads"]) * size
    bias = _asked(traits.qkv_bias, config)
    if traits.fused:
        yield from _linear(f"{at}.qkv_proj", query + 2 * key, hidden, bias)
    else:
        for name, out in (("q_proj", query), ("k_proj", key), ("v_proj", key)):
            yield from _linear(f"{at}.{name}", out, hidden, bias)
    yield from _linear(f"{at}.o_proj", hidden, query, _asked(traits.o_bias, config))
    if traits.qk_norm:
        for name, whole in (("q_norm", query), ("k_norm", key)):
            yield f"{at}.{name}.weight", (size if traits.qk_norm == "head" else whole,)


def _latent_attention(at: str, config: Config, traits: Traits) -> Iterator[Named]:
    """DeepSeek's: keys and values are kept as one short vector a token (arXiv:2405.04434)."""
    hidden, heads, bias = config["hidden_size"], config["num_attention_heads"], _asked(traits.qkv_bias, config)
    plain, turned, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    query, rank = heads * (plain + turned), config["kv_lora_rank"]
    if config.get("q_lora_rank"):
        yield from _linear(f"{at}.q_a_proj", config["q_lora_rank"], hidden, bias)
        yield f"{at}.q_a_layernorm.weight", (config["q_lora_rank"],)
        yield from _linear(f"{at}.q_b_proj", query, config["q_lora_rank"])
    else:
        yield from _linear(f"{at}.q_proj", query, hidden)
    yield from _linear(f"{at}.kv_a_proj_with_mqa", rank + turned, hidden, bias)
    yield f"{at}.kv_a_layernorm.weight", (rank,)
    yield from _linear(f"{at}.kv_b_proj", heads * (plain + value), rank)
    yield from _linear(f"{at}.o_proj", hidden, heads * value, bias)


def _gated(at: str, hidden: int, width: int, bias: bool = False) -> Iterator[Named]:
    yield from _linear(f"{at}.gate_proj", width, hidden, bias)
    yield from _linear(f"{at}.up_proj", width, hidden, bias)
    yield from _linear(f"{at}.down_proj", hidden, width, bias)


def _feed_forward(at: str, index: int, config: Config, traits: Traits) -> Iterator[Named]:
    hidden, width = config["hidden_size"], config["intermediate_size"]
    if traits.experts and is_sparse(index, config, traits):
        yield from _MIXTURES[traits.experts](at, config)
    elif traits.fused:
        yield from _linear(f"{at}.mlp.gate_up_proj", 2 * width, hidden)
        yield from _linear(f"{at}.mlp.down_proj", hidden, width)
    else:
        yield from _gated(f"{at}.mlp", hidden, width, _asked(traits.mlp_bias, config))


def is_sparse(index: int, config: Config, traits: Traits) -> bool:
    """Whether this layer of a mixture has experts."""
    if traits.experts == "deepseek":
        first, every = config.get("first_k_dense_replace", 0), config.get("moe_layer_freq", 1)
        return bool(config.get("n_routed_experts")) and index >= first and index % every == 0
    if traits.experts == "qwen":
        return index not in (config.get("mlp_only_layers") or ()) and (
            (index + 1) % config.get("decoder_sparse_step", 1) == 0
        )
    return True


def _mixtral(at: str, config: Config) -> Iterator[Named]:
    hidden, width, count = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    yield f"{at}.block_sparse_moe.gate.weight", (count, hidden)
    for expert in range(count):
        for name, shape in (("w1", (width, hidden)), ("w2", (hidden, width)), ("w3", (width, hidden))):
            yield f"{at}.block_sparse_moe.experts.{expert}.{name}.weight", shape


def _qwen(at: str, config: Config) -> Iterator[Named]:
    hidden, count = config["hidden_size"], config.get("num_experts") or config["num_local_experts"]
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    yield f"{at}.mlp.gate.weight", (count, hidden)
    for expert in range(count):
        yield from _gated(f"{at}.mlp.experts.{expert}", hidden, width)
    if shared := config.get("shared_expert_intermediate_size"):
        yield from _gated(f"{at}.mlp.shared_expert", hidden, shared)
        yield f"{at}.mlp.shared_expert_gate.weight", (1, hidden)


def _deepseek(at: str, config: Config) -> Iterator[Named]:
    hidden, width, count = config["hidden_size"], config["moe_intermediate_size"], config["n_routed_experts"]
    yield f"{at}.mlp.gate.weight", (count, hidden)
    if config["model_type"] == "deepseek_v3":
        yield f"{at}.mlp.gate.e_score_correction_bias", (count,)
    for expert in range(count):
        yield from _gated(f"{at}.mlp.experts.{expert}", hidden, width)
    if shared := config.get("n_shared_experts"):
        yield from _gated(f"{at}.mlp.shared_experts", hidden, width * shared)


def _granite(at: str, config: Config) -> Iterator[Named]:
    hidden, width, count = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    yield f"{at}.block_sparse_moe.router.layer.weight", (count, hidden)
    yield f"{at}.block_sparse_moe.input_linear.weight", (count, 2 * width, hidden)
    yield f"{at}.block_sparse_moe.output_linear.weight", (count, hidden, width)


_MIXTURES = {"mixtral": _mixtral, "qwen": _qwen, "deepseek": _deepseek, "granite": _granite}
