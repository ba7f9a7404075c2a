"""Where transformers' GGUF loader leaves out what a file says, for the comparison after an export.

In: a file. Out: a config with the file's vocabulary and ties; a tokenizer that splits as the file names it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
from tokenizers import pre_tokenizers


@lru_cache(maxsize=1)
def _reader(path: Path) -> gguf.GGUFReader:
    """Kept for the next question: reading the words of a large vocabulary takes seconds."""
    return gguf.GGUFReader(path)


def fitted(config: Any, path: Path) -> Any:
    """A base's config as the file has it: as many tokens, head and embedding tied or not."""
    tensors = {tensor.name: tensor for tensor in _reader(path).tensors}
    config.vocab_size = int(tensors["token_embd.weight"].shape[-1])
    config.tie_word_embeddings = "output.weight" not in tensors
    return config


def split_as_named(tokenizer: Any, path: Path) -> None:
    """transformers' loader knows some of the names for ways of splitting; this adds SmolLM's."""
    field = _reader(path).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
