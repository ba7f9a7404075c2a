"""Ends of answers: the token, and what the template writes behind it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.core.example import Example
from studio.worker.closing import Closing, ends_of
from studio.worker.encode import Encoder
from studio.worker.models import load_tokenizer
from tests.tiny import CHATML_TOKENS, tiny_tokenizer

PLAIN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


def test_nothing_is_put_behind_what_was_cut_or_is_no_conversation(tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model)
    closing, end = Closing(tokenizer), tokenizer.eos_token_id
    asked = Encoder(tokenizer).encode(Example(prompt=({"role": "user", "content": "say"},))).ids
    assert closing.behind(asked, [5, end]) == tokenizer("\n")["input_ids"]
    assert closing.behind(asked, [5, 6]) == []
    assert closing.behind(tokenizer("say")["input_ids"], [5, end]) == []
    assert Closing(tiny_tokenizer(template=None)).behind([1], [end]) == []


def model(ends: Any) -> Any:
    return SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ends))


@pytest.mark.parametrize("own", [None, 0, [0]])
def test_a_turn_ends_where_the_template_ends_it_whatever_the_tokenizer_says(own: Any) -> None:
    """As in Qwen's base models: <|endoftext|> ends texts, <|im_end|> turns."""
    tokenizer = tiny_tokenizer(eos="<|endoftext|>")
    text, turn = (CHATML_TOKENS.index(name) for name in ("<|endoftext|>", "<|im_end|>"))
    assert ends_of(model(own), tokenizer) == [text, turn]
    assert ends_of(model([text, 7]), tokenizer) == [text, turn, 7]


def test_words_never_end_an_answer() -> None:
    tokenizer = tiny_tokenizer(template=PLAIN)
    assert Closing(tokenizer).end is None
    assert ends_of(model(None), tokenizer) == [tokenizer.eos_token_id]
