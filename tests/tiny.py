"""Tiny models, tokenizers and rows, made on the spot: no download, under a megabyte, the same on every machine.

In: a folder. Out: a transformers model folder, as a person would point the studio at (safetensors, a fast tokenizer
with a chat template, a generation config); files of rows. Their answers are nonsense; everything else is real.
"""

from __future__ import annotations

import json
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

# As SmolLM2 has it: a default system message, then plain ChatML.
CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a tiny model.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

_TEXT = (
    "the quick brown fox jumps over a lazy dog while seven small boats cross some water in the light of early morning "
    "what is your name and where do you come from tell me about it please thank you very much good night answer "
    "question system user assistant model You are a helpful tiny numbers one two three four five six eight nine ten"
)


@lru_cache(maxsize=8)
def _vocabulary(size: int, special: tuple[str, ...]) -> str:
    """A byte-level BPE over the text above, as tokenizer.json; any text has tokens and comes back whole."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT] * 4, trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(
    template: str | None = CHATML,
    *,
    special: tuple[str, ...] = CHATML_TOKENS,
    eos: str | None = "<|im_end|>",
    pad: str | None = "<|endoftext|>",
    bos: str | None = None,
    size: int = 400,
) -> Any:
    """A fast tokenizer of `size` tokens that knows the `special` ones and carries the template."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    named = {name: token for name, token in (("eos_token", eos), ("pad_token", pad), ("bos_token", bos)) if token}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_vocabulary(size, special)), **named)
    tokenizer.chat_template = template
    return tokenizer


def make_tiny_llama(folder: Path, *, seed: int = 0, tied: bool = True, tokenizer: Any = None, **shape: Any) -> Path:
    """A random Llama of two layers in float32. `shape`: fields of LlamaConfig that should be others."""
    shape = {"num_key_value_heads": 2, "initializer_range": 0.2, "tie_word_embeddings": tied, **shape}
    return make_tiny_model(folder, "llama", seed=seed, tokenizer=tokenizer, **shape)


def make_tiny_gpt2(folder: Path, *, seed: int = 0, tokenizer: Any = None) -> Path:
    """A random GPT-2 of two layers: its linear layers are stored transposed (Conv1D)."""
    return make_tiny_model(folder, "gpt2", seed=seed, tokenizer=tokenizer, initializer_range=0.2)


def make_tiny_model(
    folder: Path, model_type: str, *, seed: int = 0, dtype: str = "float32", tokenizer: Any = None, **shape: Any
) -> Path:
    """A random causal language model of any architecture that transformers knows, with a tokenizer that fits it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = tokenizer or tiny_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,  # bitsandbytes wants multiples of its block of 64
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 1024,
        **ids,
        **shape,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings))
    model.generation_config = GenerationConfig(**ids)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sentence(chance: random.Random, least: int, most: int) -> str:
    words = _TEXT.split()
    return " ".join(chance.choice(words) for _ in range(chance.randint(least, most)))


def tiny_rows(count: int, *, seed: int = 0, turns: int = 1, longest: int = 12) -> list[dict[str, Any]]:
    """Chat rows with questions and answers of 1 to `longest` words; every other one has a system message."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        messages = [{"role": "system", "content": sentence(chance, 2, 4)}] if number % 2 else []
        for _ in range(turns):
            messages.append({"role": "user", "content": sentence(chance, 1, longest)})
            messages.append({"role": "assistant", "content": sentence(chance, 1, longest)})
        rows.append({"messages": messages})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as jsonl."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
