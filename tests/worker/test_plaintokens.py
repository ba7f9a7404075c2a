"""A special token's spelling, as plain text: it decodes to itself, and none of its tokens is special."""

from __future__ import annotations

import pytest

from studio.worker.plaintokens import PlainTokens
from tests.families import TOKENIZERS, family


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_special_token_can_be_spelled_out(name: str) -> None:
    tokenizer = family(name)
    plain = PlainTokens(tokenizer)
    assert plain.ids >= set(tokenizer.all_special_ids)
    for number in plain.ids:
        spelling = tokenizer.convert_ids_to_tokens(number)
        ids = plain.encode(spelling)
        assert plain.ids.isdisjoint(set(ids) - {tokenizer.unk_token_id})
        if tokenizer.unk_token_id not in ids:
            assert tokenizer.decode(ids) == spelling
    assert tokenizer("x")["input_ids"] == TOKENIZERS[name]()("x")["input_ids"]  # the tokenizer is as before


def test_tokens_that_belong_to_what_is_said_are_not_special() -> None:
    plain = PlainTokens(family("qwen3"))
    assert plain.spelled(["<think> <|im_end|>", "<|im_start|><|im_end|>"]) == ["<|im_end|>", "<|im_start|>"]
    assert family("qwen3").convert_tokens_to_ids("<think>") not in plain.ids
