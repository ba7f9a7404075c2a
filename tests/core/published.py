"""Published models: their config.json's figures and the `total_size` that their safetensors index announces."""

from __future__ import annotations

from typing import Any


def _llama(
    kind: str, hidden: int, inner: int, layers: int, heads: int, kv: int, words: int, **more: Any
) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    figures = dict(zip(names, (hidden, inner, layers, heads, kv), strict=True))
    return {"model_type": kind, **figures, "vocab_size": words, "tie_word_embeddings": False,
            "torch_dtype": "bfloat16", **more}  # fmt: skip


LLAMA_8B = _llama("llama", 4096, 14336, 32, 32, 8, 128256)
LLAMA_70B = _llama("llama", 8192, 28672, 80, 64, 8, 128256)
MISTRAL_7B = _llama("mistral", 4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768)
QWEN_MOE = _llama("qwen3_moe", 2048, 6144, 48, 32, 4, 151936, head_dim=128, num_experts=128, moe_intermediate_size=768)

TOTAL_SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "meta-llama/Llama-2-7b-hf": (_llama("llama", 4096, 11008, 32, 32, 32, 32000), 13_476_831_232),
    "meta-llama/Llama-3.1-8B": (LLAMA_8B, 16_060_522_496),
    "meta-llama/Llama-3.1-70B": (LLAMA_70B, 141_107_412_992),
    "meta-llama/Llama-3.2-3B": (
        _llama("llama", 3072, 8192, 28, 24, 8, 128256, head_dim=128, tie_word_embeddings=True), 6_425_499_648
    ),
    "mistralai/Mistral-7B-v0.1": (MISTRAL_7B, 14_483_464_192),
    "mistralai/Mistral-Nemo-Base-2407": (
        _llama("mistral", 5120, 14336, 40, 32, 8, 131072, head_dim=128), 24_495_564_800
    ),
    "mistralai/Mixtral-8x7B-v0.1": (
        _llama("mixtral", 4096, 14336, 32, 32, 8, 32000, num_local_experts=8), 93_405_585_408
    ),
    "Qwen/Qwen2.5-3B": (_llama("qwen2", 2048, 11008, 36, 16, 2, 151936, tie_word_embeddings=True), 6_171_877_376),
    "Qwen/Qwen2.5-7B": (_llama("qwen2", 3584, 18944, 28, 28, 4, 152064), 15_231_233_024),
    "Qwen/Qwen2.5-32B": (_llama("qwen2", 5120, 27648, 64, 40, 8, 152064), 65_527_752_704),
    "Qwen/Qwen2.5-72B": (_llama("qwen2", 8192, 29568, 80, 64, 8, 152064), 145_412_407_296),
    "Qwen/Qwen1.5-MoE-A2.7B": (
        _llama("qwen2_moe", 2048, 5632, 24, 16, 16, 151936, num_experts=60, moe_intermediate_size=1408,
               shared_expert_intermediate_size=5632), 28_631_568_384
    ),
    "Qwen/Qwen3-8B": (_llama("qwen3", 4096, 12288, 36, 32, 8, 151936, head_dim=128), 16_381_470_720),
    "Qwen/Qwen3-30B-A3B": (QWEN_MOE, 61_064_245_248),
    "google/gemma-3-4b-it": (
        {"model_type": "gemma3", "torch_dtype": "bfloat16",
         "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
                         "num_hidden_layers": 34},
         "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304,
                           "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 896, "patch_size": 14,
                           "vision_use_head": False}}, 8_600_158_944
    ),
    "google/gemma-2-9b": (
        _llama("gemma2", 3584, 14336, 42, 16, 8, 256000, head_dim=256, tie_word_embeddings=True), 18_483_411_968
    ),
    "microsoft/phi-2": (
        {"model_type": "phi", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32,
         "num_attention_heads": 32, "vocab_size": 51200, "torch_dtype": "float16"}, 5_559_367_680
    ),
    "microsoft/Phi-3-mini-4k-instruct": (_llama("phi3", 3072, 8192, 32, 32, 32, 32064), 7_642_159_104),
    "microsoft/phi-4": (_llama("phi3", 5120, 17920, 40, 40, 10, 100352), 29_319_014_400),
    "HuggingFaceTB/SmolLM3-3B": (
        _llama("smollm3", 2048, 11008, 36, 16, 4, 128256, tie_word_embeddings=True), 6_150_197_248
    ),
    "deepseek-ai/DeepSeek-V2-Lite": (
        _llama("deepseek_v2", 2048, 10944, 27, 16, 16, 102400, kv_lora_rank=512, q_lora_rank=None, qk_nope_head_dim=128,
               qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=64, n_shared_experts=2, moe_intermediate_size=1408,
               first_k_dense_replace=1), 31_412_968_448
    ),
}  # fmt: skip


def tiny(kind: str, **more: Any) -> dict[str, Any]:
    """A config of an architecture in a few thousand parameters."""
    shape = _llama(
        kind, 64, 96, 3, 4, 2, 300, max_position_embeddings=128, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    latent = {"kv_lora_rank": 16, "q_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
              "n_routed_experts": 4, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "n_shared_experts": 2,
              "topk_group": 1, "num_experts_per_tok": 2, "num_key_value_heads": 4}  # fmt: skip
    extra: dict[str, dict[str, Any]] = {
        "mixtral": {"num_local_experts": 4},
        "granitemoe": {"num_local_experts": 4},
        "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
        "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48},
        "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 32, "mlp_only_layers": [1], "num_experts_per_tok": 2},
        "deepseek_v2": {**latent, "n_group": 1},
        "deepseek_v3": {**latent, "n_group": 2},
        "gpt2": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
        "gpt_bigcode": {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
    }
    return {**shape, **extra.get(kind, {}), **more}
