"""Lengths in tokens, exactly as training has them.

In: Examples and a tokenizer. Out: what Encoder.encode makes of them, in figures: lengths by part, what cutting costs,
how many tokens carry loss. Knows no files.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from studio.core.errors import TemplateError
from studio.core.example import Example
from studio.worker.data.lengths import Cuts, Lengths
from studio.worker.encode import Encoded, Encoder

_FAR = 1 << 40  # beyond any row


class TokenCounts:
    """Sums over all rows, in memory that doesn't grow with them."""

    def __init__(self, tokenizer: Any, train_on: str, max_length: int) -> None:
        self.encoder = Encoder(tokenizer, train_on)
        # Where the loss isn't on all answers and nothing else, the answers' tokens are told apart by a second look.
        self.answers = Encoder(tokenizer, "assistant") if train_on != "assistant" else self.encoder
        self.limit = min(int(tokenizer.model_max_length), _FAR)
        self.lengths = {name: Lengths() for name in ("prompt", "answer", "rejected", "whole")}
        self.cuts = Cuts(max_length)
        self.total = self.loss = self.kept = self.kept_loss = 0

    def add(self, example: Example) -> bool:
        """False where the model's template can't say the row; it is then not counted."""
        try:
            encoded = encoded_by(self.encoder, example)
        except TemplateError:
            return False
        answered = [sum(one.loss) for one in encoded]
        if self.answers is not self.encoder:
            with suppress(TemplateError):
                answered = [sum(one.loss) for one in encoded_by(self.answers, example)]
        present = self.cuts.present
        lengths = tuple(len(one.ids) for one in encoded)
        self.lengths["whole"].add(max(lengths))
        if example.text is None:  # which has no prompt
            self.lengths["prompt"].add(lengths[0] - answered[0])
        for name, tokens in zip(("answer", "rejected"), answered, strict=False):
            if example.type != "prompt_only":
                self.lengths[name].add(tokens)
        self.total += sum(lengths)
        self.loss += sum(sum(one.loss) for one in encoded)
        # As in prepare: rows without a token to learn are left out.
        reach = None if example.type == "prompt_only" else max(first_loss(one.loss) for one in encoded)
        self.cuts.add(lengths, reach)
        if reach is None or reach < present:
            self.kept += sum(min(length, present) for length in lengths)
            self.kept_loss += sum(sum(one.loss[:present]) for one in encoded)
        return True

    def result(self) -> dict[str, Any]:
        return {
            "parts": {name: lengths.summary() for name, lengths in self.lengths.items() if lengths.count},
            "total": self.total,
            "loss": self.loss,
            "loss_share": round(self.loss / self.total, 6) if self.total else 0.0,
            "cuts": self.cuts.table(),
            "suggested": self.cuts.suggested(),
            "model_max_length": self.limit if self.limit < _FAR else None,
        }


def encoded_by(encoder: Encoder, example: Example) -> tuple[Encoded, ...]:
    """The row's sequences: two for a preference pair (chosen, rejected), else one. Raises TemplateError."""
    return encoder.encode_pair(example) if example.type == "preference" else (encoder.encode(example),)


def token_lengths(encoder: Encoder, example: Example) -> dict[str, int]:
    """`whole` (the longer one of a pair), `answer` (what carries loss), `prompt` (the rest). Raises TemplateError."""
    encoded = encoded_by(encoder, example)
    answer = sum(encoded[0].loss)
    return {
        "whole": max(len(one.ids) for one in encoded),
        "answer": answer,
        "prompt": len(encoded[0].ids) - answer,
    }


def first_loss(loss: list[bool]) -> int:
    """The first position that teaches anything: the very first token is never predicted. Far off where none does."""
    try:
        return loss.index(True, 1)
    except ValueError:
        return _FAR
