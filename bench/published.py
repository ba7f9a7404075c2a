"""Configs of published models, as their config.json says, for measurements that name a model.

In: a model's name, as measurements write it. Out: the entries of its config.json that shapes follow from, or None.
Only figures; no weights, no network.
"""

from __future__ import annotations

import re
from typing import Any


def _llama(
    kind: str, hidden: int, inner: int, layers: int, heads: int, kv: int, words: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": words,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        **more,
    }


def _qwen(hidden: int, inner: int, layers: int, heads: int, words: int = 151936) -> dict[str, Any]:
    return _llama("qwen", hidden, inner, layers, heads, heads, words, kv_channels=128)


def _phi(hidden: int, layers: int, turned: float) -> dict[str, Any]:
    return _llama("phi", hidden, 4 * hidden, layers, 32, 32, 51200, hidden_act="gelu_new", partial_rotary_factor=turned)


def _tied(*figures: Any, **more: Any) -> dict[str, Any]:
    return _llama(*figures, tie_word_embeddings=True, **more)


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
_LONG = {"max_position_embeddings": 32768}
_EYES_256 = {"head_dim": 256}
_CAPPED = {**_EYES_256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}

# By the name's last part in small letters, without `-hf`, `-chat`, `-instruct` and the like.
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt_bigcode-santacoder": {
        "model_type": "gpt_bigcode", "n_embd": 2048, "n_layer": 24, "n_head": 16, "n_inner": 8192, "n_positions": 2048,
        "vocab_size": 49280, "multi_query": True, "activation_function": "gelu_fast", "attn_pdrop": 0.1,
        "resid_pdrop": 0.1, "embd_pdrop": 0.1,
    },
    "mistral-7b": _llama("mistral", 4096, 14336, 32, 32, 8, 32000, **_LONG),
    "openbuddy-zephyr-7b": _llama("mistral", 4096, 14336, 32, 32, 8, 36608, **_LONG),
    "mixtral-8x7b": _llama(
        "mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2, **_LONG
    ),
    "llama-2-7b": _llama("llama", 4096, 11008, 32, 32, 32, 32000),
    "llama-2-13b": _llama("llama", 5120, 13824, 40, 40, 40, 32000),
    "llama-2-70b": _llama("llama", 8192, 28672, 80, 64, 8, 32000),
    "llama-3-8b": _llama("llama", 4096, 14336, 32, 32, 8, 128256),
    "llama-3-70b": _llama("llama", 8192, 28672, 80, 64, 8, 128256),
    "llama-3.2-1b": _tied("llama", 2048, 8192, 16, 32, 8, 128256, head_dim=64),
    "llama-3.2-3b": _tied("llama", 3072, 8192, 28, 24, 8, 128256, head_dim=128),
    "tiny-llama": _llama("llama", 2048, 5632, 22, 32, 4, 32000),
    "gemma-2b": _tied("gemma", 2048, 16384, 18, 8, 1, 256000, **_EYES_256),
    "gemma-7b": _tied("gemma", 3072, 24576, 28, 16, 16, 256000, **_EYES_256),
    "gemma-2-2b": _tied("gemma2", 2304, 9216, 26, 8, 4, 256000, **_CAPPED),
    "gemma-2-9b": _tied("gemma2", 3584, 14336, 42, 16, 8, 256000, **_CAPPED),
    "falcon-7b": {
        "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "vocab_size": 65024, "multi_query": True, "tie_word_embeddings": False, "hidden_act": "gelu",
    },
    "phi-1.5": _phi(2048, 24, 0.5),
    "phi-2": _phi(2560, 32, 0.4),
    "phi-3-mini": _llama("phi3", 3072, 8192, 32, 32, 32, 32064),
    "stablelm-base-alpha-3b": {
        "model_type": "gpt_neox", "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 16,
        "num_attention_heads": 32, "vocab_size": 50432, "tie_word_embeddings": False, "hidden_act": "gelu",
        "rotary_pct": 0.25,
    },
    "powerlm-3b": _tied("granite", 2304, 9216, 40, 36, 36, 49152),
    "granite-3.0-2b": _tied("granite", 2048, 8192, 40, 32, 8, 49155),
    "granite-3.0-8b": _tied("granite", 4096, 12800, 40, 32, 8, 49155),
    "granite-3.0-1b-a400m": _tied(
        "granitemoe", 1024, 512, 24, 16, 8, 49155, num_local_experts=32, num_experts_per_tok=8
    ),
    "granite-3.0-3b-a800m": _tied(
        "granitemoe", 1536, 512, 32, 24, 8, 49155, num_local_experts=40, num_experts_per_tok=8
    ),
    "yi-6b": _llama("llama", 4096, 11008, 32, 32, 4, 64000),
    "yi-34b": _llama("llama", 7168, 20480, 60, 56, 8, 64000),
    "qwen-1.8b": _qwen(2048, 11008, 24, 16),
    "qwen-7b": _qwen(4096, 22016, 32, 32),
    "qwen-14b": _qwen(5120, 27392, 40, 40, 152064),
    "qwen-72b": _qwen(8192, 49152, 80, 64, 152064),
    "qwen1.5-7b": _llama("qwen2", 4096, 11008, 32, 32, 32, 151936),
    "qwen1.5-14b": _llama("qwen2", 5120, 13696, 40, 40, 40, 152064),
    "qwen2-0.5b": _tied("qwen2", 896, 4864, 24, 14, 2, 151936),
    "qwen2-1.5b": _tied("qwen2", 1536, 8960, 28, 12, 2, 151936),
    "qwen2-7b": _llama("qwen2", 3584, 18944, 28, 28, 4, 152064),
    "qwen2.5-3b": _tied("qwen2", 2048, 11008, 36, 16, 2, 151936),
    "qwen2.5-14b": _llama("qwen2", 5120, 13824, 48, 40, 8, 152064),
    "qwen2.5-32b": _llama("qwen2", 5120, 27648, 64, 40, 8, 152064),
}  # fmt: skip

# The same figures under another name.
_SAME = {"llama-3.1-8b": "llama-3-8b", "llama-3.1-70b": "llama-3-70b", "tinyllama-1.1b": "tiny-llama"} | {
    f"qwen2.5-{size}": f"qwen2-{size}" for size in ("0.5b", "1.5b", "7b")
}
_ENDINGS = re.compile(r"-(hf|base|chat|instruct|it|v0\.\d|gptq|int4|int8|intermediate.*|4k|128k)(?=-|$)")


def published(name: str) -> dict[str, Any] | None:
    """The config of the model that goes by this name, with GPTQ's where the name says that it is quantized."""
    last = name.rpartition("/")[2].lower()
    short = re.sub(r"(?<=\d)_(?=\d)", ".", last).removeprefix("meta-").replace("llama2", "llama-2")
    bare = _ENDINGS.sub("", short)
    found = CONFIGS.get(short) or CONFIGS.get(_SAME.get(bare, bare))
    if found and re.search(r"gptq|int4", last):
        return {**found, "quantization_config": _GPTQ}
    return found
