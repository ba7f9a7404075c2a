"""What an Example says: all its words, what makes it the same as another, and whether its answer repeats its prompt.

In: an Example. Out: strings, hashes. System messages count for sameness but not for likeness: one that stands before
every row would make all short rows alike. Knows no tokens and no files.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any
from zlib import crc32

import numpy as np

from studio.core.example import Example, Message

_FIELDS = ("messages", "prompt", "completion", "text", "chosen", "rejected")
_SHINGLE = 3  # words
# Scripts that put no spaces between words (kana, Han, Thai, Lao, Khmer): each letter counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


def texts(example: Example) -> Iterator[str]:
    """Every string of the row that a person wrote or a model answered, tool calls as JSON."""
    for name in _FIELDS:
        value = getattr(example, name)
        if isinstance(value, str):
            yield value
        elif value:
            for message in value:
                yield from _message_texts(message)


def _message_texts(message: Message) -> Iterator[str]:
    for key, value in message.items():
        if key == "role" or not value:
            continue
        yield value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def digest(example: Example) -> int:
    """The same 64 bits for rows of which the model sees the same, but for Unicode's spelling and outer white space.

    A conversation is the same whether it stands whole or as prompt and completion. Two different rows of ten million
    share a hash by chance in one dataset of 300,000. Raises UnicodeEncodeError for text that is none (lone
    surrogates).
    """
    pieces: list[str] = []
    for name in _FIELDS:
        value = getattr(example, name)
        if isinstance(value, str):
            pieces += [name, _normal(value)]
        elif value:
            whole = name == "messages" or (name in ("prompt", "completion") and example.type == "prompt_completion")
            pieces.append("messages" if whole and name != "completion" else "" if whole else name)
            for message in value:
                pieces += [f"{key}={_normal(part)}" for key, part in sorted(message.items()) if part]
    pieces += [_json(example.label), _json(example.tools) if example.tools else ""]
    text = unicodedata.normalize("NFC", "\x1e".join(piece for piece in pieces if piece))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _normal(value: Any) -> str:
    return value.replace("\r\n", "\n").strip() if isinstance(value, str) else _json(value)


def shingles(example: Example) -> np.ndarray:
    """Hashes (uint32, ascending, once each) of every three words in a row, by which two rows are compared.

    The chosen and the rejected answer, and answers labelled good and bad, are told apart.
    """
    hashes = []
    for name, salt in (("messages", 0), ("prompt", 0), ("text", 0), ("completion", 0), ("chosen", 1), ("rejected", 2)):
        value = getattr(example, name)
        if not value:
            continue
        if name == "completion" and example.label is False:
            salt = 3
        hashes.append(_shingles(value if isinstance(value, str) else _spoken(value), salt))
    return np.unique(np.concatenate(hashes)) if hashes else np.empty(0, np.uint32)


def _spoken(messages: Sequence[Message]) -> str:
    return "\n".join(text for m in messages if m["role"] != "system" for text in _message_texts(m))


def _shingles(text: str, salt: int) -> np.ndarray:
    words = _WORD.findall(text.lower())
    if not words:
        return np.empty(0, np.uint32)
    codes = np.fromiter(map(crc32, "\n".join(words).encode("utf-8", "replace").split(b"\n")), np.uint32, len(words))
    size = min(_SHINGLE, len(words))
    found = np.full(len(words) - size + 1, salt, np.uint32)
    for i in range(size):  # multiplying by an odd number loses nothing, and makes the order of words count
        found = found * np.uint32(0x9E3779B1) + codes[i : len(words) - size + 1 + i]
    return found


def echo(example: Example) -> str | None:
    """The answer that repeats its prompt word for word; None where none does."""
    if isinstance(example.prompt, str) and isinstance(example.completion, str):
        return example.completion if _same(example.prompt, example.completion) else None
    turns = example.messages
    if isinstance(example.prompt, tuple) and isinstance(example.completion, tuple):
        turns = example.prompt + example.completion
    asked = ""
    for message in turns:
        if message["role"] == "user":
            asked = message["content"]
        elif message["role"] == "assistant" and _same(asked, message["content"]):
            return str(message["content"])
    return None


def _same(prompt: str, answer: str) -> bool:
    return bool(answer.strip()) and prompt.split() == answer.split()
