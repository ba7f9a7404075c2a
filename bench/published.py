"""Configs of published models, as their config.json says, for measurements that name a model.

In: a model's name. Out: the entries of its config.json that shapes follow from. Only figures; no weights, no network.
"""

from __future__ import annotations

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


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
_MISTRAL = _llama("mistral", 4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768)
_LLAMA_3_3B = _llama("llama", 3072, 8192, 28, 24, 8, 128256, head_dim=128, tie_word_embeddings=True)
_LLAMA_3_8B = _llama("llama", 4096, 14336, 32, 32, 8, 128256)
_STABLELM = {
    "model_type": "gpt_neox", "hidden_size": 4096, "intermediate_size": 16384, "num_hidden_layers": 16,
    "num_attention_heads": 32, "vocab_size": 50432, "tie_word_embeddings": False, "hidden_act": "gelu",
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "bigcode/gpt_bigcode-santacoder": {
        "model_type": "gpt_bigcode", "n_embd": 2048, "n_layer": 24, "n_head": 16, "n_inner": 8192, "n_positions": 2048,
        "vocab_size": 49280, "multi_query": True, "activation_function": "gelu_fast", "attn_pdrop": 0.1,
        "resid_pdrop": 0.1, "embd_pdrop": 0.1,
    },
    "mistralai/Mistral-7B-v0.1": _MISTRAL,
    "TheBloke/Mistral-7B-v0.1-GPTQ": {**_MISTRAL, "quantization_config": _GPTQ},
    "mistral-7b-v0.2": _MISTRAL,
    "meta-llama/Llama-3.2-3B": _LLAMA_3_3B,
    "meta-llama/Llama-3.2-3B-Instruct": _LLAMA_3_3B,
    "llama-3.2-3b": _LLAMA_3_3B,
    "llama-3.2-1b": _llama("llama", 2048, 8192, 16, 32, 8, 128256, head_dim=64, tie_word_embeddings=True),
    "llama-3-8b": _LLAMA_3_8B,
    "meta-llama/Llama-3.1-8B-Instruct": _LLAMA_3_8B,
    "meta-llama/Llama-2-7b-hf": _llama("llama", 4096, 11008, 32, 32, 32, 32000),
    "tiny-llama": _llama("llama", 2048, 5632, 22, 32, 4, 32000),
    "gemma-7b": _llama("gemma", 3072, 24576, 28, 16, 16, 256000, head_dim=256, tie_word_embeddings=True),
    "gemma-2-2b": _llama(
        "gemma2", 2304, 9216, 26, 8, 4, 256000, head_dim=256, tie_word_embeddings=True, attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0,
    ),
    "falcon-7b": {
        "model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32, "num_attention_heads": 71,
        "vocab_size": 65024, "multi_query": True, "tie_word_embeddings": False, "hidden_act": "gelu",
    },
    "phi-2": {
        "model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
        "num_attention_heads": 32, "vocab_size": 51200, "tie_word_embeddings": False, "hidden_act": "gelu_new",
    },
    "stablelm-base-alpha-3b": _STABLELM,
    "stabilityai/stablelm-base-alpha-3b": _STABLELM,
    "yi-6b-chat": _llama("llama", 4096, 11008, 32, 32, 4, 64000),
    "yi-34b-chat": _llama("llama", 7168, 20480, 60, 56, 8, 64000),
    "openbuddy-zephyr-7b-chat": _llama("mistral", 4096, 14336, 32, 32, 8, 36608, max_position_embeddings=32768),
    "qwen-1_8b-chat": _qwen(2048, 11008, 24, 16),
    "qwen-7b-chat": _qwen(4096, 22016, 32, 32),
    "qwen-14b-chat": _qwen(5120, 27392, 40, 40, 152064),
    "qwen-72b-chat": _qwen(8192, 49152, 80, 64, 152064),
    "Qwen/Qwen-1_8B": _qwen(2048, 11008, 24, 16),
    "Qwen/Qwen-7B": _qwen(4096, 22016, 32, 32),
    "Qwen/Qwen-14B": _qwen(5120, 27392, 40, 40, 152064),
    "Qwen/Qwen-1_8B-Int4": {**_qwen(2048, 11008, 24, 16), "quantization_config": _GPTQ},
    "Qwen/Qwen-7B-Int4": {**_qwen(4096, 22016, 32, 32), "quantization_config": _GPTQ},
    "Qwen/Qwen-14B-Int4": {**_qwen(5120, 27392, 40, 40, 152064), "quantization_config": _GPTQ},
    "Qwen/Qwen-72B-Int4": {**_qwen(8192, 49152, 80, 64, 152064), "quantization_config": _GPTQ},
}  # fmt: skip
