"""Tokens as they are shown: together they are the text, and half a character is its bytes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.worker.tokentext import token_texts
from tests.families import TOKENIZERS, family

BYTES = re.compile("(?:⟨([0-9A-F]{2})⟩)+")


def together(shown: list[str]) -> str:
    """The text again: runs of bytes are characters."""
    return BYTES.sub(lambda run: bytes.fromhex(re.sub("[⟨⟩]", "", run[0])).decode(), "".join(shown))


def shown(tokenizer: Any, text: str) -> list[str]:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = token_texts(tokenizer, ids, text)
    assert len(found) == len(ids)
    return found


@pytest.mark.parametrize("name", TOKENIZERS)
@given(text=st.text(st.characters(exclude_characters="⟨⟩\ufffd▁", exclude_categories=["Cs"]), min_size=1, max_size=30))
def test_the_tokens_together_are_the_text(name: str, text: str) -> None:
    tokenizer = family(name)
    found = shown(tokenizer, text)
    assert "\ufffd" not in "".join(found)
    assert together(found) == text


def test_half_a_character_is_shown_as_its_bytes() -> None:
    assert "".join(shown(family("smollm2"), "a✓b")) == "a⟨E2⟩⟨9C⟩⟨93⟩b"
    assert shown(family("smollm2"), "✓")[0] == "⟨E2⟩"


@pytest.mark.parametrize("name", ["smollm2", "mistral1"])
def test_a_text_that_holds_the_replacement_character_is_shown_as_it_is(name: str) -> None:
    assert together(shown(family(name), "a \ufffd b \ufffd\ufffd")).strip() == "a \ufffd b \ufffd\ufffd"


def test_a_row_that_was_cut_within_a_character_shows_the_bytes_it_has() -> None:
    tokenizer = family("smollm2")
    ids = tokenizer("ok 🦊")["input_ids"][:-1]
    assert "".join(token_texts(tokenizer, ids, "ok 🦊")).startswith("ok ")


def test_a_space_that_a_token_begins_with_isnt_lost() -> None:
    tokenizer = family("mistral1")
    text = "<s>[INST] what is your name [/INST] I am</s>"
    assert "".join(shown(tokenizer, text)) == text
