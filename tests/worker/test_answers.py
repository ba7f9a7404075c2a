"""Which characters are the assistant's: by a skeleton, by marks or by prefixes, always the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.worker.answers import Answers
from studio.worker.plaintokens import PlainTokens
from studio.worker.render import render
from tests.families import TOKENIZERS, family
from tests.tiny import tiny_tokenizer
from tests.written import SYSTEM, TURNS, WRITTEN


def found(tokenizer: Any, messages: Any, *, slow: bool = False) -> list[str]:
    answers = Answers(tokenizer, PlainTokens(tokenizer).special)
    if slow:
        answers._skeleton = lambda roles: None  # type: ignore[method-assign]
    text = render(tokenizer, messages)
    wanted = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return [text[start:end] for start, end in answers.spans(messages, (), text, wanted)]


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("space", ["", " ", "\n", "  \n"])
def test_the_quick_way_and_the_slow_one_find_the_same(name: str, space: str) -> None:
    tokenizer = family(name)
    messages = [{**message, "content": space + message["content"] + space} for message in TURNS]
    quick = found(tokenizer, messages)
    assert quick == found(tokenizer, messages, slow=True)
    expected = [text for text, carries in WRITTEN[name]["turns"] if carries]
    assert ["".join(each.split()) for each in quick] == ["".join(text.split()) for text in expected]


@given(
    st.sampled_from(["smollm2", "qwen3", "llama3", "mistral3", "gemma3", "phi3", "deepseek"]),
    st.lists(st.text("ab \n</think>{}|", min_size=1, max_size=12).filter(str.strip), min_size=4, max_size=4),
)
def test_so_they_do_whatever_is_said(name: str, said: list[str]) -> None:
    tokenizer = family(name)
    messages = [{**message, "content": text} for message, text in zip(TURNS, said, strict=True)]
    assert found(tokenizer, messages) == found(tokenizer, messages, slow=True)


def test_thoughts_that_a_template_leaves_out_of_histories_leave_the_answer() -> None:
    tokenizer = family("deepseek")
    messages = [TURNS[0], {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nYes."}]
    assert found(tokenizer, messages) == ["\n\nYes.<｜end▁of▁sentence｜>"]


def test_what_closes_a_whole_conversation_is_no_part_of_an_answer() -> None:
    """Phi-3 generates up to <|end|>; it never gets to write the <|endoftext|> behind it."""
    text = render(family("phi3"), TURNS)
    assert text.endswith("<|end|>\n<|endoftext|>")
    assert [each[-7:] for each in found(family("phi3"), TURNS)] == ["<|end|>"] * 2


def test_characters_of_the_private_planes_in_a_row_do_no_harm() -> None:
    said = "a\U000f0000b\U000f0001\U0010fffd"
    messages = [{**message, "content": said} for message in TURNS]
    assert found(family("smollm2"), messages, slow=True) == [f"{said}<|im_end|>"] * 2
    messages = [{**message, "content": said + "\U00100000"} for message in TURNS]  # of both planes: by prefixes
    assert found(family("smollm2"), messages, slow=True) == [f"{said}\U00100000<|im_end|>"] * 2


def test_a_template_that_looks_at_how_a_text_begins_is_told_by_prefixes() -> None:
    """Marks would make it write something else."""
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{{ '(code)' if m.content.startswith('def') else '' }}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    messages = [{"role": "user", "content": "def?"}, {"role": "assistant", "content": "def f(): pass"}]
    assert found(tokenizer, messages) == ["(code)def f(): pass<|im_end|>"]


def test_a_template_without_tokens_of_its_own_ends_answers_as_it_does() -> None:
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ '### ' + m.role + ': ' + m.content + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant:' }}{% endif %}"
    )
    assert found(tokenizer, TURNS[:2]) == [f" {TURNS[1]['content']}\n\n"]


def test_a_system_message_within_a_later_question_moves_no_answer() -> None:
    tokenizer = family("mistral3")
    assert found(tokenizer, [SYSTEM, *TURNS]) == [text for text, carries in WRITTEN["mistral3"]["system"] if carries]


def test_no_wanted_answer_no_span() -> None:
    answers = Answers(family("smollm2"), re.compile("(?!)"))
    assert answers.spans(TURNS, (), render(family("smollm2"), TURNS), []) == []
