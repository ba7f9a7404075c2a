"""What stands behind a finished answer: the token that ends it, and what the chat template still writes after that.

In: a tokenizer with its template. Out: token ids. A model whose tokenizer ends texts with one token may end its turns
with another (Qwen's base models do, once they were taught to converse). Knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.core.errors import TemplateError
from studio.core.example import Example
from studio.worker.encode import Encoder


class Closing:
    """`end`: the special token that ends an answer in a conversation; None where the template has none."""

    def __init__(self, tokenizer: Any) -> None:
        self.end: int | None = None
        self._after: list[int] = []
        self._opening: list[int] = []
        if not tokenizer.chat_template:
            return
        encoder = Encoder(tokenizer)
        try:
            answered = encoder.encode(Example(messages=(_says("user", "one"), _says("assistant", "two"))))
            asked = [encoder.encode(Example(prompt=(_says("user", word),))).ids for word in ("one", "two")]
        except TemplateError:  # whoever needs the template is told so where it is used
            return
        last = max(place for place, carries in enumerate(answered.loss) if carries)
        if encoder.special(answered)[last]:
            self.end, self._after = answered.ids[last], answered.ids[last + 1 :]
            self._opening = _shared_end(*asked)

    def behind(self, prompt: Sequence[int], answer: Sequence[int]) -> list[int]:
        """Nothing behind an answer that was cut, or one to a prompt that isn't a conversation's."""
        ended = self.end is not None and list(answer[-1:]) == [self.end]
        asked = bool(self._opening) and list(prompt)[-len(self._opening) :] == self._opening
        return self._after if asked and ended else []


def _says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _shared_end(one: list[int], other: list[int]) -> list[int]:
    shared = 0
    while shared < min(len(one), len(other)) and one[-1 - shared] == other[-1 - shared]:
        shared += 1
    return one[len(one) - shared :]


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the model's own, the tokenizer's, the template's."""
    own = model.generation_config.eos_token_id
    found = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id, Closing(tokenizer).end}
    return sorted(token for token in found if token is not None)
