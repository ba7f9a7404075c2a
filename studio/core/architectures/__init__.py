"""config.json -> every tensor of the published checkpoint, by architecture.

In: a config.json as a mapping. Out: (name, shape) pairs under the names that safetensors files use; `None` where the
architecture isn't known. A new one is a row in a table: `decoder` holds those laid out like Llama, `others` the rest,
`vision` the eyes that some have.
Knows no dtype, no file, no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from studio.core.architectures import decoder, others

Named = tuple[str, tuple[int, ...]]
Config = Mapping[str, Any]

TENSORS: dict[str, Callable[[Config], Iterator[Named]]] = {
    **dict.fromkeys(decoder.TRAITS, decoder.tensors),
    **others.TENSORS,
}

# Whether the head shares the embedding's weights where config.json doesn't say: the defaults of the config classes.
TIED = {"gemma", "gemma2", "gemma3_text", "gpt2", "gpt_bigcode", "smollm3", "falcon"}

# What a config class fills in where config.json is silent, as Gemma 3's are: transformers' Gemma3TextConfig.
DEFAULTS: dict[str, Config] = {
    "gemma3_text": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
    },
}  # fmt: skip


def tied(config: Config) -> bool:
    """Whether head and embedding are one tensor, which checkpoints hold once."""
    return bool(config.get("tie_word_embeddings", config.get("model_type") in TIED))


def tensors_of(config: Config) -> list[Named] | None:
    """Every tensor a model of this config has, or None for an architecture that isn't in the table."""
    build = TENSORS.get(str(config.get("model_type")))
    if build is None:
        return None
    head = tied(config)
    return [(name, shape) for name, shape in build(config) if not (head and _is_head(name))]


def _is_head(name: str) -> bool:
    return name.split(".")[0] in ("lm_head", "embed_out")


def head_dim(config: Config) -> int:
    """Numbers in one attention head."""
    if "n_embd" in config:
        return int(config["n_embd"] // config["n_head"])
    if "kv_channels" in config:
        return int(config["kv_channels"])
    return decoder.head_dim(config)
