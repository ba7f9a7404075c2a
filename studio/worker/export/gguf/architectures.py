"""What llama.cpp calls an architecture, its numbers and its tensors, and how it lays those out.

In: a transformers config; a tensor's name and value. Out: GGUF metadata; a GGUF name; the tensor as llama.cpp wants it.
Facts come from llama.cpp's own converter; only architectures that tests load back are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gguf
import torch

from studio.core.errors import ModelError

Turn = Callable[[Any, str, torch.Tensor], torch.Tensor]


def _as_it_is(config: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    return value


def _interleave_heads(config: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    """Llama's rotary embedding pairs neighbours there, and halves in transformers: rows of q and k are reordered."""
    if ".q_proj." in name:
        heads = config.num_attention_heads
    elif ".k_proj." in name:
        heads = config.num_key_value_heads
    else:
        return value
    shaped = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return shaped.swapaxes(1, 2).reshape(value.shape)


def _add_one_to_norms(config: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    """Gemma's norms multiply by 1 + weight; there the 1 is in the weight."""
    return value + 1 if name.endswith("norm.weight") else value


def _untranspose(config: Any, name: str, value: torch.Tensor) -> torch.Tensor:
    """GPT-2 keeps its linear weights as (in, out)."""
    turned = (".attn.c_attn.weight", ".attn.c_proj.weight", ".mlp.c_fc.weight", ".mlp.c_proj.weight")
    return value.T.contiguous() if name.endswith(turned) else value


@dataclass(frozen=True)
class Architecture:
    """`whole`: names of weights that can only be turned as a whole, not in blocks of rows."""

    arch: gguf.MODEL_ARCH
    turn: Turn = _as_it_is
    whole: tuple[str, ...] = ()
    head_size: bool = False  # whether it may be another than hidden size / heads, and is written down


_LLAMA = Architecture(gguf.MODEL_ARCH.LLAMA, _interleave_heads, (".q_proj.", ".k_proj."))
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Architecture(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Architecture(gguf.MODEL_ARCH.QWEN3, head_size=True),
    "gemma2": Architecture(gguf.MODEL_ARCH.GEMMA2, _add_one_to_norms, head_size=True),
    "gemma3_text": Architecture(gguf.MODEL_ARCH.GEMMA3, _add_one_to_norms, head_size=True),
    "phi3": Architecture(gguf.MODEL_ARCH.PHI3),
    "gpt2": Architecture(gguf.MODEL_ARCH.GPT2, _untranspose, (".c_attn.weight", ".c_proj.weight", ".c_fc.weight")),
}


def architecture_of(config: Any) -> Architecture:
    """Raises ModelError for an architecture that isn't written here."""
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        raise ModelError(
            f"Models of type {config.model_type} aren't written as GGUF here; {', '.join(ARCHITECTURES)} are.",
            "Export it merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py.",
        )
    if getattr(config, "attention_bias", False) and config.model_type in ("llama", "mistral"):
        raise ModelError(
            "Llama models with biases in their attention aren't written as GGUF here.", "Export it merged instead."
        )
    return found


def names(architecture: Architecture, config: Any) -> Callable[[str], str]:
    """A function from the model's names to GGUF's. Raises ModelError for a tensor that llama.cpp has no name for."""
    table = gguf.get_tensor_name_map(architecture.arch, config.num_hidden_layers)

    def find(name: str) -> str:
        found = table.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ModelError(f"llama.cpp has no name for {name}.", "Export it merged instead.")
        return str(found)

    return find


def add_numbers(writer: gguf.GGUFWriter, config: Any) -> None:
    """The architecture's numbers as metadata. Raises ModelError for a scaling of positions that isn't known here."""
    architecture = architecture_of(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if architecture.head_size:
        writer.add_key_length(head)
        writer.add_value_length(head)
    elif architecture is _LLAMA or config.model_type == "phi3":
        writer.add_rope_dimension_count(head)
    if config.model_type in ("gemma2", "gemma3_text", "phi3") and getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if config.model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_rope_freq_base(_rope(config)["rope_theta"])


def _rope(config: Any) -> dict[str, Any]:
    found = config.rope_parameters or {}
    if "full_attention" in found:  # Gemma 3 has two
        found = found["full_attention"]
    if found.get("rope_type", "default") not in ("default", "llama3"):
        raise ModelError(
            f"Positions scaled by {found['rope_type']} aren't written as GGUF here.", "Export it merged instead."
        )
    return dict(found)


def rope_factors(config: Any) -> torch.Tensor | None:
    """Llama 3's scaling of positions: what each frequency is divided by, which llama.cpp keeps as a tensor.

    As the Llama 3.1 model card's code has it: long waves are stretched by `factor`, short ones not, and between the
    two bounds the one passes into the other.
    """
    if config.model_type == "gpt2" or _rope(config).get("rope_type", "default") != "llama3":
        return None
    rope = _rope(config)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    context, factor = rope["original_max_position_embeddings"], rope["factor"]
    factors = []
    for place in range(0, head, 2):
        wave = 2 * math.pi * rope["rope_theta"] ** (place / head)
        if wave < context / high:
            factors.append(1.0)
        elif wave > context / low:
            factors.append(factor)
        else:
            smooth = (context / wave - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors, dtype=torch.float32)
