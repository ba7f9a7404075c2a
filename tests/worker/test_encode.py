"""What a conversation becomes: the chat template's own tokens, with loss on the assistant's turns alone.

What is expected was put down by hand (`tests.written`), or comes from transformers, or from the messages themselves.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import trl
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.core.errors import TemplateError
from studio.core.example import Example, Message
from studio.worker.encode import Encoded, Encoder
from tests.families import PUBLISHED, TOKENIZERS, family
from tests.tiny import CHATML, tiny_tokenizer
from tests.written import CONVERSATIONS, SYSTEM, TURNS, USES_TOOL, WRITTEN, Pieces

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
CASES = [pytest.param(name, talk, id=f"{name}-{talk}") for name, written in WRITTEN.items() for talk in written]
ONE_TURN = TURNS[:2]


def encode(tokenizer: Any, messages: list[Message], train_on: str = "assistant", tools: Any = ()) -> Encoded:
    return Encoder(tokenizer, train_on).encode(Example(messages=tuple(messages), tools=tuple(tools)))


def applied(tokenizer: Any, messages: list[Message], tools: Any = (), **options: Any) -> Any:
    """What transformers itself makes of it; where a template wants arguments as text, it gets them so."""
    try:
        return tokenizer.apply_chat_template(messages, tools=list(tools) or None, **options)
    except TypeError:
        spelled = [dict(message) for message in messages]
        for message in spelled:
            if "tool_calls" in message:
                message["tool_calls"] = [
                    {**call, "function": {**call["function"], "arguments": '{"city": "Rome"}'}}
                    for call in message["tool_calls"]
                ]
        return tokenizer.apply_chat_template(spelled, tools=list(tools) or None, **options)


def carrying(tokenizer: Any, pieces: Pieces) -> tuple[list[int], list[bool]]:
    """The tokens of hand-written pieces, tokenized as one text, and the loss of the piece that each stands in."""
    text = "".join(piece for piece, _ in pieces)
    learnt = [carries for piece, carries in pieces for _ in piece]
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    inside = [set(learnt[start:end]) for start, end in tokens["offset_mapping"]]
    assert all(len(found) == 1 for found in inside), "a token stands in two pieces"
    return tokens["input_ids"], [found.pop() for found in inside]


def stretches(tokenizer: Any, encoded: Encoded) -> list[str]:
    """The text of each run of tokens that carry loss."""
    runs = groupby(zip(encoded.ids, encoded.loss, strict=True), key=lambda pair: pair[1])
    return [tokenizer.decode([token for token, _ in run]) for carries, run in runs if carries]


@pytest.mark.parametrize(("name", "talk"), CASES)
def test_the_tokens_are_the_templates_and_loss_lies_where_it_was_put_by_hand(name: str, talk: str) -> None:
    tokenizer, (messages, tools) = family(name), CONVERSATIONS[talk]
    encoded = encode(tokenizer, messages, tools=tools)
    assert encoded.text == "".join(piece for piece, _ in WRITTEN[name][talk])
    assert encoded.ids == applied(tokenizer, messages, tools, tokenize=True)["input_ids"]
    assert (encoded.ids, encoded.loss) == carrying(tokenizer, WRITTEN[name][talk])
    assert encoded.neutralised == 0


@pytest.mark.parametrize(("name", "talk"), [case for case in CASES if case.values[0] in PUBLISHED])
@pytest.mark.parametrize("ask", [False, True])
def test_the_families_write_what_the_published_templates_write(name: str, talk: str, ask: bool) -> None:
    tokenizer, (messages, tools) = family(name), CONVERSATIONS[talk]
    if ask:
        messages = messages[:-1]
    template = (TEMPLATES / f"{PUBLISHED[name]}.jinja").read_text(encoding="utf-8")
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": ask}
    theirs = applied(tokenizer, messages, tools, chat_template=template, **options)
    assert applied(tokenizer, messages, tools, **options) == theirs


@pytest.mark.parametrize(("name", "talk"), CASES)
def test_the_last_answer_alone_can_be_trained_on(name: str, talk: str) -> None:
    tokenizer, (messages, tools) = family(name), CONVERSATIONS[talk]
    pieces = list(WRITTEN[name][talk])
    last = max(i for i, (_, carries) in enumerate(pieces) if carries)
    pieces = [(text, carries and i == last) for i, (text, carries) in enumerate(pieces)]
    encoded = encode(tokenizer, messages, "last_assistant", tools)
    assert (encoded.ids, encoded.loss) == carrying(tokenizer, pieces)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_train_on_all_puts_loss_on_every_token(name: str) -> None:
    encoded = encode(family(name), TURNS, "all")
    assert all(encoded.loss)
    assert encoded.labels == encoded.ids == family(name).apply_chat_template(TURNS)["input_ids"]


@pytest.mark.parametrize("name", ["qwen2.5", "llama3", "gemma", "phi3", "qwen3"])
def test_a_templates_own_marks_are_obeyed(name: str) -> None:
    """TRL's training templates carry {% generation %} marks; some leave out the end or take in a newline before."""
    tokenizer = TOKENIZERS[name]()
    tokenizer.chat_template = (TEMPLATES / f"{PUBLISHED[name]}_training.jinja").read_text(encoding="utf-8")
    encoded = encode(tokenizer, TURNS)
    assert encoded.ids == tokenizer.apply_chat_template(TURNS)["input_ids"]
    expected = [text for text, carries in WRITTEN[name]["turns"] if carries]
    if name == "qwen3":  # TRL's keeps a place for thoughts in every answer
        expected[0] = f"<think>\n\n</think>\n\n{expected[0]}"
    assert [text.lstrip("\n") for text in stretches(tokenizer, encoded)] == expected
    last = stretches(tokenizer, encode(tokenizer, TURNS, "last_assistant"))
    assert [text.lstrip("\n") for text in last] == expected[-1:]


def test_an_end_of_turn_that_a_template_leaves_unmarked_is_learnt_all_the_same() -> None:
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{% endgeneration %}"
        "{% else %}{{ m['content'] }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    )
    encoded = encode(tokenizer, TURNS)
    assert stretches(tokenizer, encoded) == [m["content"] + "<|im_end|>" for m in TURNS if m["role"] != "user"]


def test_a_message_that_a_template_marks_apart_carries_no_loss() -> None:
    """Marks are an author's word: here the first answer of a conversation is not to be learnt."""
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
        "{% if m['role'] == 'assistant' and loop.index0 > 1 %}"
        "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
        "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    )
    assert stretches(tokenizer, encode(tokenizer, TURNS)) == [TURNS[3]["content"] + "<|im_end|>"]


@settings(max_examples=80)
@given(
    st.sampled_from(["smollm2", "llama3", "gemma3", "qwen3", "phi3"]),
    st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=4, max_size=4),
)
def test_any_text_gives_the_templates_tokens_and_the_answers_loss(name: str, said: list[str]) -> None:
    tokenizer = family(name)
    roles = ("user", "assistant", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    encoded = encode(tokenizer, messages)
    assert encoded.ids == tokenizer.apply_chat_template(messages)["input_ids"]
    learnt = tokenizer.decode([token for token, carries in zip(encoded.ids, encoded.loss, strict=True) if carries])
    end = {"llama3": "<|eot_id|>", "gemma3": "<end_of_turn>", "phi3": "<|end|>"}.get(name, "<|im_end|>")
    first, last, rest = learnt.split(end)
    assert rest == ""
    assert first.strip() == said[1].strip()
    assert last.removeprefix("<think>\n\n</think>\n\n").strip() == said[3].strip()


def test_a_long_conversation_of_new_length_is_told_like_a_short_one() -> None:
    tokenizer = family("gemma3")
    messages = [SYSTEM, *(TURNS * 20)]
    encoded = encode(tokenizer, messages)
    assert encoded.ids == tokenizer.apply_chat_template(messages)["input_ids"]
    assert stretches(tokenizer, encoded) == [
        m["content"] + "<end_of_turn>" for m in messages if m["role"] == "assistant"
    ]


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_template_that_rewrites_what_is_said_is_refused_with_the_way_out() -> None:
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ m['content'] | upper + '|' + messages | length | string }}{% endfor %}"
    )
    messages = [{"role": "user", "content": "straße"}, {"role": "assistant", "content": "ﬁne"}, *ONE_TURN]
    with pytest.raises(TemplateError, match="rewrites what is said") as refused:
        encode(tokenizer, messages)
    assert "last_assistant" in refused.value.hint


def test_F43_a_model_without_a_template_is_refused() -> None:
    with pytest.raises(TemplateError, match="no chat template"):
        encode(tiny_tokenizer(None), ONE_TURN)


@pytest.mark.parametrize(
    "broken", ["{% for m in messages %}{{ m['content'] }}", "{{ messages | nothing }}", "{{ 1 / 0 }}", "{{ 9 ** 'a' }}"]
)
def test_F43_a_broken_template_is_refused(broken: str) -> None:
    with pytest.raises(TemplateError, match="can't write this conversation"):
        encode(tiny_tokenizer(broken), ONE_TURN)


def test_a_template_that_knows_no_system_message_says_so() -> None:
    with pytest.raises(TemplateError, match="System role not supported"):
        encode(family("gemma"), [SYSTEM, *ONE_TURN])


def test_a_token_half_in_the_question_is_refused_not_guessed() -> None:
    # The question ends with a space, which the tokenizer joins to the answer's first word.
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "the answer"}]
    with pytest.raises(TemplateError, match="half in the question"):
        encode(tokenizer, messages)
    assert all(encode(tokenizer, messages, "all").loss)


def test_white_space_that_a_token_shares_with_the_template_costs_no_row() -> None:
    """The model is asked with a line break of its own, so one token for both breaks is none that it would write."""
    tokenizer = tiny_tokenizer(CHATML)
    broken = tokenizer.backend_tokenizer
    broken.add_tokens(["\n\n"])
    messages = [ONE_TURN[0], {"role": "assistant", "content": "\nthe answer"}]
    encoded = encode(tokenizer, messages)
    assert encoded.ids == tokenizer.apply_chat_template(messages)["input_ids"]
    assert tokenizer.convert_tokens_to_ids("\n\n") in encoded.ids
    assert stretches(tokenizer, encoded) == ["the answer<|im_end|>"]


def test_F42_where_padding_is_the_end_token_or_missing_the_end_is_still_learnt() -> None:
    for pad in ("<|im_end|>", None):
        tokenizer = tiny_tokenizer(pad=pad)
        encoded = encode(tokenizer, TURNS)
        assert encoded.labels.count(tokenizer.eos_token_id) == 2  # one an answer; the questions' are not learnt
        assert encoded.ids.count(tokenizer.eos_token_id) == 5


def test_a_row_is_cut_from_its_end() -> None:
    whole = encode(family("smollm2"), TURNS)
    cut = whole.cut(len(whole.ids) - 3)
    assert (cut.ids, cut.loss) == (whole.ids[:-3], whole.loss[:-3])
    assert cut.text == whole.text
    assert whole.cut(10_000) == whole


# -- many at once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOKENIZERS)
def test_many_rows_are_encoded_as_each_alone(name: str) -> None:
    encoder = Encoder(family(name))
    rows = [
        Example(messages=tuple(TURNS[: 2 + 2 * (i % 2)]))
        if i % 3
        else Example(prompt=f"number {i}", completion=" yes")
        if i % 2
        else Example(text=f"text {i}")
        for i in range(150)
    ]
    assert list(encoder.encode_many(rows)) == [encoder.encode(row) for row in rows]


def test_among_many_rows_one_that_cant_be_encoded_stands_as_its_error() -> None:
    encoder = Encoder(family("gemma"))
    good, bad = Example(messages=tuple(TURNS)), Example(messages=(SYSTEM, *TURNS))
    found = list(encoder.encode_many([good, bad, good]))
    assert [isinstance(each, TemplateError) for each in found] == [False, True, False]
    assert found[0] == found[2] == encoder.encode(good)


def test_among_many_rows_one_whose_loss_cant_be_placed_stands_as_its_error() -> None:
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    rows = [
        Example(text="fine"),
        Example(messages=({"role": "user", "content": "a"}, {"role": "assistant", "content": "the"})),
    ]
    first, second = Encoder(tokenizer).encode_many(rows)
    assert isinstance(first, Encoded)
    assert isinstance(second, TemplateError)


def test_a_tool_that_answers_nothing_and_a_call_without_words_keep_their_turns() -> None:
    tokenizer = family("qwen2.5")
    call = {**USES_TOOL[1], "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": {"n": 1}}}]}
    messages = [USES_TOOL[0], call, {"role": "tool", "content": ""}, USES_TOOL[3]]
    encoded = encode(tokenizer, messages)
    assert encoded.ids == tokenizer.apply_chat_template(messages)["input_ids"]
    assert stretches(tokenizer, encoded) == [
        '<tool_call>\n{"name": "now", "arguments": {"n": 1}}\n</tool_call><|im_end|>',
        f"{USES_TOOL[3]['content']}<|im_end|>",
    ]
