"""Each token of a row as text that can be shown: put together, they are the row's text.

In: a tokenizer and ids. Out: a string a token. Where a character is spread over several tokens, each shows its bytes,
such as ⟨E2⟩, so that nothing looks damaged that isn't. Knows no rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_DAMAGED = "\ufffd"  # what half a character decodes to
_LONGEST = 8  # tokens that one character may be spread over
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def token_texts(tokenizer: Any, ids: Sequence[int], text: str) -> list[str]:
    """One string for each of the ids, which `text` was tokenized into."""
    alone: list[str] = tokenizer.batch_decode([[token] for token in ids], clean_up_tokenization_spaces=False)
    joined = "".join(alone)
    if _DAMAGED not in joined and joined.startswith(text):
        return alone
    return _in_context(tokenizer, ids, text)


def _in_context(tokenizer: Any, ids: Sequence[int], text: str) -> list[str]:
    """As `token_texts`, each token decoded behind its neighbours: alone, some lose the space they begin with."""
    shown: list[str] = []
    since = place = 0  # where the neighbours begin, and how much of the text has been shown
    while len(shown) < len(ids):
        first = len(shown)
        before = _decoded(tokenizer, ids[since:first])
        for beyond in range(first + 1, min(first + _LONGEST, len(ids)) + 1):
            now = _decoded(tokenizer, ids[since:beyond])
            if not now.endswith(_DAMAGED):
                break
        new = now[len(before) :] if now.startswith(before) else _decoded(tokenizer, ids[first:beyond])
        if new.startswith(" ") and not text.startswith(new, place) and text.startswith(new[1:], place):
            new = new[1:]  # put there by the tokenizer, as SentencePiece's do
        place += len(new)
        shown += _spread(tokenizer, ids[first:beyond], new)
        since = first
    return shown


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)) if len(ids) else ""


def _spread(tokenizer: Any, ids: Sequence[int], text: str) -> list[str]:
    """The text over its tokens: whole characters as they are, those that are in several tokens as bytes."""
    if len(ids) == 1 and _DAMAGED not in text:
        return [text]
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    sizes = [1 if _BYTE.fullmatch(piece) else len(piece) for piece in pieces]  # a byte-level piece has a letter a byte
    raw = text.encode("utf-8", "surrogatepass")
    if sum(sizes) != len(raw):
        if len(ids) == 1:
            return [text]
        return [text, *("" for _ in ids[1:])]
    edges, place = [], 0
    for size in sizes:
        edges.append((place, place + size))
        place += size
    shown = ["" for _ in ids]
    place = 0
    for letter in text:
        end = place + len(letter.encode("utf-8", "surrogatepass"))
        for number, (start, beyond) in enumerate(edges):
            if start <= place and end <= beyond:
                shown[number] += letter
                break
            part = raw[max(start, place) : min(beyond, end)]
            shown[number] += "".join(f"⟨{byte:02X}⟩" for byte in part)
        place = end
    return shown
