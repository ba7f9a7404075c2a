"""Architectures with a plan of their own: GPT-2, GPTBigCode, GPT-NeoX, Phi (1, 2), Falcon, Qwen (1).

In: a config. Out: (name, shape) pairs, as in `decoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Config = Mapping[str, Any]
Named = tuple[str, tuple[int, ...]]


def _both(at: str, *shape: int) -> Iterator[Named]:
    """A weight and its bias; of a matrix the first number counts outputs."""
    yield f"{at}.weight", shape
    yield f"{at}.bias", (shape[0],)


def _turned(at: str, inp: int, out: int) -> Iterator[Named]:
    """GPT-2's Conv1D: stored as (inputs, outputs)."""
    yield f"{at}.weight", (inp, out)
    yield f"{at}.bias", (out,)


def _gpt2(config: Config) -> Iterator[Named]:
    width = config["n_embd"]
    inner = config.get("n_inner") or 4 * width
    yield "transformer.wte.weight", (config["vocab_size"], width)
    yield "transformer.wpe.weight", (config["n_positions"], width)
    for index in range(config["n_layer"]):
        at = f"transformer.h.{index}"
        yield from _both(f"{at}.ln_1", width)
        yield from _turned(f"{at}.attn.c_attn", width, 3 * width)
        yield from _turned(f"{at}.attn.c_proj", width, width)
        yield from _both(f"{at}.ln_2", width)
        yield from _turned(f"{at}.mlp.c_fc", width, inner)
        yield from _turned(f"{at}.mlp.c_proj", inner, width)
    yield from _both("transformer.ln_f", width)
    yield "lm_head.weight", (config["vocab_size"], width)


def _gpt_bigcode(config: Config) -> Iterator[Named]:
    width = config["n_embd"]
    inner = config.get("n_inner") or 4 * width
    key = width // config["n_head"] if config.get("multi_query", True) else width
    yield "transformer.wte.weight", (config["vocab_size"], width)
    yield "transformer.wpe.weight", (config["n_positions"], width)
    for index in range(config["n_layer"]):
        at = f"transformer.h.{index}"
        yield from _both(f"{at}.ln_1", width)
        yield from _both(f"{at}.attn.c_attn", width + 2 * key, width)
        yield from _both(f"{at}.attn.c_proj", width, width)
        yield from _both(f"{at}.ln_2", width)
        yield from _both(f"{at}.mlp.c_fc", inner, width)
        yield from _both(f"{at}.mlp.c_proj", width, inner)
    yield from _both("transformer.ln_f", width)
    yield "lm_head.weight", (config["vocab_size"], width)


def _gpt_neox(config: Config) -> Iterator[Named]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "gpt_neox.embed_in.weight", (config["vocab_size"], width)
    for index in range(config["num_hidden_layers"]):
        at = f"gpt_neox.layers.{index}"
        yield from _both(f"{at}.input_layernorm", width)
        yield from _both(f"{at}.post_attention_layernorm", width)
        yield from _both(f"{at}.attention.query_key_value", 3 * width, width)
        yield from _both(f"{at}.attention.dense", width, width)
        yield from _both(f"{at}.mlp.dense_h_to_4h", inner, width)
        yield from _both(f"{at}.mlp.dense_4h_to_h", width, inner)
    yield from _both("gpt_neox.final_layer_norm", width)
    yield "embed_out.weight", (config["vocab_size"], width)


def _phi(config: Config) -> Iterator[Named]:
    width, inner = config["hidden_size"], config["intermediate_size"]
    size = width // config["num_attention_heads"]
    key = (config.get("num_key_value_heads") or config["num_attention_heads"]) * size
    yield "model.embed_tokens.weight", (config["vocab_size"], width)
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}"
        yield from _both(f"{at}.input_layernorm", width)
        yield from _both(f"{at}.self_attn.q_proj", width, width)
        yield from _both(f"{at}.self_attn.k_proj", key, width)
        yield from _both(f"{at}.self_attn.v_proj", key, width)
        yield from _both(f"{at}.self_attn.dense", width, width)
        yield from _both(f"{at}.mlp.fc1", inner, width)
        yield from _both(f"{at}.mlp.fc2", width, inner)
    yield from _both("model.final_layernorm", width)
    yield from _both("lm_head", config["vocab_size"], width)


def _falcon(config: Config) -> Iterator[Named]:
    width, size = config["hidden_size"], config["hidden_size"] // config["num_attention_heads"]
    grouped = config.get("new_decoder_architecture", False)
    keys = (config.get("num_kv_heads") or config["num_attention_heads"]) if grouped else 1
    if not grouped and not config.get("multi_query", True):
        keys = config["num_attention_heads"]
    inner = config.get("ffn_hidden_size") or 4 * width
    norms = ("ln_attn", "ln_mlp") if grouped else ("input_layernorm",)
    linear = _both if config.get("bias") else _weight
    yield "transformer.word_embeddings.weight", (config["vocab_size"], width)
    for index in range(config["num_hidden_layers"]):
        at = f"transformer.h.{index}"
        for name in norms:
            yield from _both(f"{at}.{name}", width)
        yield from linear(f"{at}.self_attention.query_key_value", width + 2 * keys * size, width)
        yield from linear(f"{at}.self_attention.dense", width, width)
        yield from linear(f"{at}.mlp.dense_h_to_4h", inner, width)
        yield from linear(f"{at}.mlp.dense_4h_to_h", width, inner)
    yield from _both("transformer.ln_f", width)
    yield "lm_head.weight", (config["vocab_size"], width)


def _weight(at: str, *shape: int) -> Iterator[Named]:
    yield f"{at}.weight", shape


def _qwen(config: Config) -> Iterator[Named]:
    """The first Qwen, as its own code lays it out; its `intermediate_size` counts gate and up together."""
    width, half = config["hidden_size"], config["intermediate_size"] // 2
    query = config["kv_channels"] * config["num_attention_heads"]
    yield "transformer.wte.weight", (config["vocab_size"], width)
    for index in range(config["num_hidden_layers"]):
        at = f"transformer.h.{index}"
        yield f"{at}.ln_1.weight", (width,)
        yield from _both(f"{at}.attn.c_attn", 3 * query, width)
        yield f"{at}.attn.c_proj.weight", (width, query)
        yield f"{at}.ln_2.weight", (width,)
        yield f"{at}.mlp.w1.weight", (half, width)
        yield f"{at}.mlp.w2.weight", (half, width)
        yield f"{at}.mlp.c_proj.weight", (width, half)
    yield "transformer.ln_f.weight", (width,)
    yield "lm_head.weight", (config["vocab_size"], width)


TENSORS: dict[str, Callable[[Config], Iterator[Named]]] = {
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gpt_neox": _gpt_neox,
    "phi": _phi,
    "falcon": _falcon,
    "qwen": _qwen,
}
