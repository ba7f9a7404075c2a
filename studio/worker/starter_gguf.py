"""Child program: `python -m studio.worker.starter_gguf GGUF FOLDER` converts the starter model for transformers.

In: the checked GGUF of SmolLM2-135M-Instruct. Out: config.json, generation_config.json, model.safetensors (bfloat16),
tokenizer.json, tokenizer_config.json and chat_template.jinja, saying what the model's publisher says of it: a GGUF
carries only part of that. Does not know: where the GGUF came from, or any other model.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, GenerationConfig, GgufConfig, LlamaConfig, LlamaForCausalLM

_BOS, _EOS, _UNKNOWN = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
_ROPE_THETA = 100_000.0
_CONTEXT = 8192


def convert(gguf: Path, folder: Path) -> None:
    """Fill `folder` from `gguf`. About 20 s and 1 GB of memory."""
    model = LlamaForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        config=_config(),
        # Without it the weights stay in GGUF blocks, which save_pretrained refuses. The loader also undoes the
        # reordering of the query and key rows that GGUF files of Llama models have.
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.generation_config = GenerationConfig(**_IDS)
    model.save_pretrained(folder)
    # Programs that know only the older names of these two would fall back to 10,000 and float32.
    _amend(folder / "config.json", rope_theta=_ROPE_THETA, torch_dtype="bfloat16")
    _save_tokenizer(gguf, folder)


def _config() -> LlamaConfig:
    """The published configuration. Handing it over also saves a second reading of the GGUF's metadata."""
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=_CONTEXT,
        rms_norm_eps=1e-5,
        initializer_range=1 / 24,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
        tie_word_embeddings=True,
        **_IDS,
    )


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    backend = tokenizer.backend_tokenizer
    # The GGUF names its pre-tokenizer ("smollm") without describing it, and the loader leaves out the first step.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")
    _amend(
        folder / "tokenizer_config.json",
        # Not GPT2Tokenizer, which the publisher names: transformers 5 would rebuild the pre-tokenizer and lose Digits.
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_EOS,
        unk_token=_UNKNOWN,
        additional_special_tokens=[_BOS, _EOS],
        add_prefix_space=False,
        clean_up_tokenization_spaces=False,
        model_max_length=_CONTEXT,
    )


def _amend(path: Path, **values: Any) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**known, **values}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
