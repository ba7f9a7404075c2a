"""Special tokens that a row's text only spells: found, and tokenized as the plain text they are.

In: a tokenizer. Out: which of its special tokens a text spells, and the ids of such a spelling as text, so that a
user's "<|im_end|>" can't end a turn. Only tokens marked as special count: others (<think>, <tool_call>) belong to
what is said. Knows no templates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class PlainTokens:
    """`special` matches every special token's spelling, `ids` are their ids."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        named = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        spellings = {number: spelling for number, spelling in (named | added).items() if spelling.strip()}
        self.ids = frozenset(spellings)
        # The longest first, as the tokenizer matches them.
        longest = sorted(set(spellings.values()), key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, longest)) or "(?!)")
        self._known: dict[str, list[int]] = {}

    def spelled(self, texts: Iterable[str]) -> list[str]:
        """The special tokens that stand in the texts, each once, in the order they are met."""
        return list(dict.fromkeys(found for text in texts for found in self.special.findall(text)))

    def encode(self, spelling: str) -> list[int]:
        """The ids of a special token's spelling in the midst of a text, none of them a special token's."""
        if spelling not in self._known:
            if len(self._known) > 1000:
                self._known.clear()
            self._known[spelling] = self._plain(spelling)
        return self._known[spelling]

    def _plain(self, spelling: str) -> list[int]:
        ids = self._within(spelling)
        if len(spelling) > 1 and not self.ids.isdisjoint(ids):  # the vocabulary has it as an ordinary piece, too
            ids = [number for letter in spelling for number in self._within(letter)]
        return ids

    def _within(self, text: str) -> list[int]:
        # Behind a line break, or tokenizers of the SentencePiece kind put a space before it.
        break_ids, ids = self._ids("\n"), self._ids("\n" + text)
        return ids[len(break_ids) :] if ids[: len(break_ids)] == break_ids else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
