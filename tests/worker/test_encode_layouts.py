"""Rows that are no plain conversation: texts, prompts with completions, preferences, prompts alone."""

from __future__ import annotations

from typing import Any

import pytest

from studio.core.errors import TemplateError
from studio.core.example import Example
from studio.worker.encode import Encoder
from tests.families import TOKENIZERS, family
from tests.tiny import tiny_tokenizer
from tests.worker.test_encode import applied, carrying
from tests.written import CONVERSATIONS, TURNS, WRITTEN

PLAIN = ["smollm2", "llama3", "mistral1"]


@pytest.mark.parametrize("name", PLAIN)
def test_a_prompt_gets_its_own_tokens_and_the_completion_the_loss(name: str) -> None:
    tokenizer = family(name)
    prompt, completion = "What is your name?", " I am tiny"
    encoded = Encoder(tokenizer).encode(Example(prompt=prompt, completion=completion))
    asked = tokenizer(prompt)["input_ids"]  # with whatever the tokenizer opens a text with
    said = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert encoded.ids == asked + said
    assert encoded.labels == [-100] * len(asked) + said
    assert all(Encoder(tokenizer, "all").encode(Example(prompt=prompt, completion=completion)).loss)
    assert Encoder(tokenizer).encode(Example(prompt=prompt, completion=completion, label=False)) == encoded


@pytest.mark.parametrize("name", PLAIN)
def test_a_text_is_learnt_whole_and_ends(name: str) -> None:
    tokenizer = family(name)
    encoded = Encoder(tokenizer).encode(Example(text="Some plain text."))
    assert encoded.ids == [*tokenizer("Some plain text.")["input_ids"], tokenizer.eos_token_id]
    assert encoded.labels == encoded.ids


def test_a_text_that_ends_already_isnt_ended_twice() -> None:
    tokenizer = family("smollm2")
    encoded = Encoder(tokenizer).encode(Example(text="Done.<|im_end|>"))
    assert encoded.ids.count(tokenizer.eos_token_id) == 1


def test_a_text_without_an_end_token_is_learnt_as_it_is() -> None:
    tokenizer = tiny_tokenizer(None, eos=None)
    assert Encoder(tokenizer).encode(Example(text="plain")).ids == tokenizer("plain")["input_ids"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_answers_within_a_conversational_prompt_carry_no_loss(name: str) -> None:
    tokenizer = family(name)
    pieces = [(text, carries and i > 1) for i, (text, carries) in enumerate(WRITTEN[name]["turns"])]
    example = Example(prompt=tuple(TURNS[:3]), completion=tuple(TURNS[3:]))
    encoded = Encoder(tokenizer).encode(example)
    assert (encoded.ids, encoded.loss) == carrying(tokenizer, pieces)
    assert Encoder(tokenizer, "last_assistant").encode(example) == encoded
    assert all(Encoder(tokenizer, "all").encode(example).loss)


@pytest.mark.parametrize("name", ["qwen2.5", "llama3.1", "mistral3"])
def test_a_completion_may_call_tools(name: str) -> None:
    messages, tools = CONVERSATIONS["tools"]
    example = Example(prompt=tuple(messages[:1]), completion=tuple(messages[1:]), tools=tuple(tools))
    encoded = Encoder(family(name)).encode(example)
    assert (encoded.ids, encoded.loss) == carrying(family(name), WRITTEN[name]["tools"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_alone_ends_where_the_model_is_asked_and_carries_no_loss(name: str) -> None:
    tokenizer = family(name)
    encoded = Encoder(tokenizer, "all").encode(Example(prompt=tuple(TURNS[:3])))
    assert encoded.ids == applied(tokenizer, TURNS[:3], add_generation_prompt=True)["input_ids"]
    assert encoded.text == applied(tokenizer, TURNS[:3], add_generation_prompt=True, tokenize=False)
    assert not any(encoded.loss)


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_prompt_alone_is_not_ended(name: str) -> None:
    encoded = Encoder(family(name)).encode(Example(prompt="Once upon"))
    assert encoded.ids == family(name)("Once upon")["input_ids"]
    assert not any(encoded.loss)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_chosen_and_rejected_stand_behind_the_same_prompt(name: str, train_on: str) -> None:
    tokenizer = family(name)
    rejected = {"role": "assistant", "content": "No."}
    chosen, other = Encoder(tokenizer, train_on).encode_pair(
        Example(prompt=tuple(TURNS[:3]), chosen=tuple(TURNS[3:]), rejected=(rejected,))
    )
    pieces = [(text, carries and i > 1) for i, (text, carries) in enumerate(WRITTEN[name]["turns"])]
    assert (chosen.ids, chosen.loss) == carrying(tokenizer, pieces)
    pieces = [(text.replace(TURNS[3]["content"], "No.") if i == 3 else text, c) for i, (text, c) in enumerate(pieces)]
    assert (other.ids, other.loss) == carrying(tokenizer, pieces)
    prompt = chosen.loss.index(True)
    assert other.loss.index(True) == prompt
    assert chosen.ids[:prompt] == other.ids[:prompt]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_preferences_share_the_prompts_own_tokens(name: str) -> None:
    tokenizer = family(name)
    pair = Encoder(tokenizer).encode_pair(Example(prompt="Say it:", chosen=" yes please", rejected=" no"))
    asked = tokenizer("Say it:")["input_ids"]
    for encoded, answer in zip(pair, (" yes please", " no"), strict=True):
        said = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        assert encoded.ids == asked + said
        assert encoded.labels == [-100] * len(asked) + said


def test_answers_that_change_their_prompt_are_refused() -> None:
    counting = (
        "{% for m in messages %}{{ '<|im_start|>' + messages[-1]['content'][:1] }}"
        "{{ m['content'] + '<|im_end|>' }}{% endfor %}"
    )
    answers: Any = [({"role": "assistant", "content": text},) for text in ("yes", "no")]
    example = Example(prompt=tuple(TURNS[:1]), chosen=answers[0], rejected=answers[1])
    with pytest.raises(TemplateError):
        Encoder(tiny_tokenizer(counting)).encode_pair(example)
