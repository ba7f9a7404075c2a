"""Bases and adapters of every kind, made by transformers' and PEFT's own hands, and what they say.

In: a kind's name, a PEFT config. Out: folders; a model's logits; a merge in our way and in PEFT's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from studio.worker.export.merge import write_merged
from studio.worker.export.source import Source
from tests.tiny import make_tiny_model

EXPERTS = {"num_key_value_heads": 2, "moe_intermediate_size": 32}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": False}),
    "tied": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {}),
    "gemma": ("gemma2", {"num_key_value_heads": 2, "head_dim": 16}),
    "gemma-bias": ("gemma2", {"num_key_value_heads": 2, "head_dim": 16, "attention_bias": True}),
    "llama-bias": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": False, "attention_bias": True}),
    "mixtral": ("mixtral", {"num_key_value_heads": 2, "num_local_experts": 4}),
    "qwen-moe": ("qwen2_moe", {**EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 64}),
}
IDS = torch.arange(10, 40)[None]


def make_base(kind: str, folder: Path, dtype: str = "float32") -> Path:
    """A random model whose biases aren't all zeros either."""
    model_type, shape = KINDS[kind]
    make_tiny_model(folder, model_type, dtype=dtype, initializer_range=0.2, **shape)
    chance = torch.Generator().manual_seed(5)
    tensors = files_of(folder)
    for key in sorted(key for key in tensors if key.endswith("bias")):
        tensors[key] += 0.1 * torch.randn(tensors[key].shape, generator=chance)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(base: Path, tokens: int | None = None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if tokens:
        model.resize_token_embeddings(tokens)
    return model


def make_adapter(base: Path, folder: Path, config: Any, tokens: int | None = None, seed: int = 1) -> Path:
    """An adapter as PEFT saves it, with every trained number moved away from its start."""
    torch.manual_seed(3)
    moved(get_peft_model(load(base, tokens), config), seed).save_pretrained(folder)
    return folder


def moved(model: Any, seed: int = 1) -> Any:
    """The model with every trained number moved away from its start."""
    chance = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=chance)
    return model


def laid_over(base: Path, adapter: Path, tokens: int | None = None) -> Any:
    """Base and adapter as anybody loads them."""
    return PeftModel.from_pretrained(load(base, tokens), str(adapter)).eval()


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def merge(base: Path, adapter: Path, out: Path, dtype: str = "auto", **more: Any) -> Path:
    out.mkdir()
    write_merged(Source(base, adapter, dtype, lambda text, done, total: None, **more), out)
    return out


def files_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    return found
