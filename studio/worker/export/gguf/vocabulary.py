"""A tokenizer as GGUF metadata: tokens, their kinds, merges or scores, the way text is split, the special ones.

In: a fast tokenizer. Out: metadata, or a ModelError for one that llama.cpp would split otherwise. llama.cpp knows ways
of splitting by name, not by rule, so only those that are recognised to the letter are written.
"""

from __future__ import annotations

import json
import re
from typing import Any

import gguf
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from studio.core.errors import ModelError

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_NAMED = ("llama-bpe", "qwen2", "gpt-4o", "tekken")
Kind = gguf.TokenType


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, size: int) -> None:
    """Write the tokenizer; `size` is how many rows the model's embedding has. Raises ModelError."""
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    model = description["model"]
    if model["type"] != "BPE":
        raise ModelError(
            f"Tokenizers of kind {model['type']} aren't written as GGUF here.", "Export it merged instead."
        )
    tokens, kinds = _tokens(tokenizer, size)
    byte_level = not model.get("byte_fallback")
    if byte_level:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(splitting(description))
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges([_merge(each) for each in model["merges"]])
    else:
        ranks = _ranks(model["merges"])
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores([-float(ranks.get(token, len(ranks))) for token in tokens])
        writer.add_token_types([Kind.BYTE if _BYTE.fullmatch(t) else k for t, k in zip(tokens, kinds, strict=True)])
        writer.add_add_space_prefix(_prepends_space(description))
    _add_special(writer, tokenizer)


def _tokens(tokenizer: Any, size: int) -> tuple[list[str], list[int]]:
    known = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    if max(known, default=-1) >= size:
        raise ModelError(
            f"The tokenizer knows {max(known) + 1} tokens, and the model {size}.", "Export the adapter alone."
        )
    tokens, kinds = [], []
    for number in range(size):
        token = known.get(number)
        if token is None:
            tokens.append(f"[PAD{number}]")
            kinds.append(Kind.UNUSED)
            continue
        tokens.append(token)
        if number in added:
            kinds.append(Kind.CONTROL if added[number].special else Kind.USER_DEFINED)
        else:
            kinds.append(Kind.UNKNOWN if token == tokenizer.unk_token else Kind.NORMAL)
    return tokens, kinds


def _merge(entry: Any) -> str:
    return entry if isinstance(entry, str) else " ".join(entry)


def _ranks(merges: list[Any]) -> dict[str, int]:
    """What a merge makes -> how early it is made: llama.cpp makes what scores highest first."""
    ranks: dict[str, int] = {}
    for rank, entry in enumerate(merges):
        ranks.setdefault(_merge(entry).replace(" ", "", 1), rank)
    return ranks


def splitting(description: dict[str, Any]) -> str:
    """The name that llama.cpp has for the way a byte-level tokenizer splits text. Raises ModelError."""
    steps = description["pre_tokenizer"] or {}
    parts = steps.get("pretokenizers", [steps])
    kinds = [part.get("type") for part in parts]
    last = parts[-1]
    if last.get("type") == "ByteLevel" and not last.get("add_prefix_space"):
        if kinds == ["ByteLevel"] and last.get("use_regex"):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and parts[0]["individual_digits"] and last.get("use_regex"):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last.get("use_regex") and parts[0].get("behavior") == "Isolated":
            rule = parts[0]["pattern"].get("Regex")
            for name in _NAMED:
                if GGUF_PRE_TOKENIZER_SPLITS[name] == rule:
                    return name
    raise ModelError(
        "llama.cpp has no name for the way this tokenizer splits text, and would split it otherwise.",
        "Export it merged instead.",
    )


def _prepends_space(description: dict[str, Any]) -> bool:
    text = json.dumps([description.get("normalizer"), description.get("pre_tokenizer")])
    return '"Prepend"' in text or '"prepend_scheme": "first"' in text or '"prepend_scheme": "always"' in text


def _add_special(writer: gguf.GGUFWriter, tokenizer: Any) -> None:
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("pad", writer.add_pad_token_id),
        ("unk", writer.add_unk_token_id),
    ):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            add(number)
    ids = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(ids) and ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(bool(ids) and ids[-1] == tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
