"""Templates are somebody else's programs: rendered as transformers renders them, but never without an end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from studio.core.errors import TemplateError
from studio.worker import render as module
from studio.worker.render import marks_answers, render, render_marked, template_of
from tests.families import TOKENIZERS, family
from tests.tiny import CHATML, tiny_tokenizer
from tests.worker.test_encode import CASES, applied
from tests.written import CONVERSATIONS, TURNS

LOOPS = [
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set a = namespace(x=['a']) %}{% for i in range(60) %}{% set a.x = [a.x, a.x] %}{% endfor %}{{ a.x }}",
    "{% set a = namespace(x=['a']) %}{% for i in range(60) %}{% set a.x = [a.x, a.x] %}{% endfor %}{{ a.x | tojson }}",
    "{% set a = namespace(x=['a']) %}{% for i in range(60) %}{% set a.x = [a.x, a.x] %}{% endfor %}{{ 'a' ~ a.x }}",
]
BOMBS = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{{ 'a' * 10000000000 }}",
    "{{ 10000000000 * 'a' }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{% set a = namespace(x=3) %}{% for i in range(90000) %}{% set a.x = a.x * a.x %}{% endfor %}",
    "{% set a = namespace(x='a') %}{% for i in range(60) %}{% set a.x = a.x ~ a.x %}{% endfor %}",
    "{% set a = namespace(x='a') %}{% for i in range(60) %}{% set a.x = a.x + a.x %}{% endfor %}",
    "{% set a = namespace(x=['a']) %}{% for i in range(60) %}{% set a.x = a.x + a.x %}{% endfor %}",
    "{{ 'a'.center(10000000000) }}",
    "{{ 'a'.ljust(width=10000000000) }}",
    "{% set f = 'a'.center %}{{ f(10**9) }}",
    "{{ 'a' | center(10000000000) }}",
    "{{ ['a'] | map('center', 10000000000) | list }}",
    "{{ 'x' | indent(1000000000, true) }}",
    "{{ {'a': 1} | tojson(indent=1000000000) }}",
    "{{ [1] | batch(10000000000, 'x') | list }}",
    "{{ 1.5 | round(1000000000, 'ceil') }}",
    "{{ '%010000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{% set b = dict(a=1) %}{{ '%(a)0999999999d' % b }}",
    "{{ '%010000000000d' | format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, '1000000000') }}",
    "{% set a = 'a' * 1000000 %}{{ a.replace('a', a) }}",
    "{% set a = 'a' * 1000000 %}{{ a | replace('a', a) }}",
    "{% set a = 'a' * 1000000 %}{{ a.join(a) }}",
    "{% set a = 'a' * 1000000 %}{{ a | list | join(a) }}",
    "{% set a = 'a' * 9000000 %}{% for i in range(99999) %}{{ a }}{% endfor %}",
    "{% set a = 'a' * 9000000 %}{% set b %}{% for i in range(99999) %}{{ a }}{% endfor %}{% endset %}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.3)


@pytest.mark.parametrize(("name", "talk"), CASES)
@pytest.mark.parametrize("ask", [False, True])
def test_a_conversation_reads_as_transformers_writes_it(name: str, talk: str, ask: bool) -> None:
    tokenizer, (messages, tools) = family(name), CONVERSATIONS[talk]
    messages = messages[:-1] if ask else messages
    expected = applied(tokenizer, messages, tools, tokenize=False, add_generation_prompt=ask)
    if name == "deepseek" and talk == "tools":
        with pytest.raises(TemplateError):
            render(tokenizer, messages, tools=tools, ask=ask)
    else:
        assert render(tokenizer, messages, tools=tools, ask=ask) == expected


def test_fields_that_hold_nothing_and_thoughts_reach_the_template_as_transformers_hands_them() -> None:
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{{ m.role }} {{ m.name is defined }} {{ m.thinking }}"
        "{{ m.reasoning_content }};{% endfor %}"
        "{{ tools is none }} {{ documents is none }} {{ eos_token ~ 1 ~ [2, 'x'] ~ none }} {{ none }} {{ '%s' % 3 }}"
    )
    messages: list[Any] = [
        {"role": "user", "content": "a", "name": None},
        {"role": "assistant", "content": "b", "thinking": "c"},
    ]
    assert render(tokenizer, messages) == tokenizer.apply_chat_template(messages, tokenize=False)


def test_what_a_template_marks_is_told_in_characters() -> None:
    tokenizer = tiny_tokenizer(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}!{% endgeneration %}"
        "{% else %}{{ m.content }}?{% endif %}{% endfor %}"
    )
    text, spans = render_marked(tokenizer, TURNS)
    assert text == tokenizer.apply_chat_template(TURNS, tokenize=False)
    assert [text[start:end] for start, end in spans] == [m["content"] + "!" for m in TURNS if m["role"] == "assistant"]
    assert marks_answers(tokenizer.chat_template)
    assert not marks_answers(CHATML)


def test_of_several_templates_the_one_for_tools_is_taken_where_there_are_tools() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": "plain", "tool_use": "with tools"}
    assert template_of(tokenizer) == render(tokenizer, TURNS) == "plain"
    assert render(tokenizer, TURNS, tools=[{"type": "function"}]) == "with tools"


@pytest.mark.parametrize("template", LOOPS)
def test_S14_an_endless_template_ends_in_time(template: str, impatient: None) -> None:
    with pytest.raises(TemplateError, match="takes more than"):
        render(tiny_tokenizer(template), TURNS)


@pytest.mark.parametrize("template", BOMBS)
def test_S14_a_template_makes_nothing_that_fills_the_memory(template: str) -> None:
    for call in (render, render_marked):
        with pytest.raises(TemplateError, match="can't write this conversation") as refused:
            call(tiny_tokenizer(template), TURNS)
        assert "takes more than" not in str(refused.value)  # it was told at once
        assert "memory" not in str(refused.value)


@pytest.mark.parametrize(
    "attack",
    ["{{''.__class__.__mro__}}", "{{''.__class__.__mro__[1].__subclasses__()}}", "{{messages.__init__.__globals__}}"],
)
def test_S14_a_template_that_reaches_for_python_is_refused(attack: str) -> None:
    with pytest.raises(TemplateError) as refused:
        render(tiny_tokenizer(CHATML + attack), TURNS)
    assert "<class" not in str(refused.value)
    assert "subprocess" not in str(refused.value)


def test_S14_in_another_thread_too(impatient: None) -> None:
    found: list[Any] = []

    def run() -> None:
        try:
            render(tiny_tokenizer(LOOPS[0]), TURNS)
        except TemplateError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert len(found) == 1


@pytest.mark.parametrize("name", ["smollm2", "qwen3", "llama3.1"])
def test_long_conversations_and_numbers_in_them_are_no_attack(name: str) -> None:
    assert name in TOKENIZERS
    tokenizer = family(name)
    said = "%s {} {:>10} 123456789 %(a)s " * 5000
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": said}] * 50
    assert render(tokenizer, messages) == tokenizer.apply_chat_template(messages, tokenize=False)


def test_formats_and_filters_that_templates_use_work_as_ever() -> None:
    tokenizer = tiny_tokenizer(
        "{{ '%s and %s' % (messages[0].content, 1700000000) }}{{ '{} {:>5}'.format(messages[0].content, 3) }}"
        "{{ [1, 2] | sum }}{{ 2.345 | round(2) }}{{ messages | map(attribute='content') | join(', ') }}"
        "{{ {'a': 1700000000} | tojson(indent=4) }}{{ 'x\ny' | indent(4) }}{{ ' ' * 4 }}{{ 3 * 4 }}{{ 2 ** 10 }}"
        "{{ 'a%b' | replace('%', messages[0].content) }}{{ [1] + [2] }}{{ 'abc'.replace('b', '') }}"
        "{{ ','.join(['a']) }}"
    )
    messages = [{"role": "user", "content": "{x} 100000000 %d"}]
    assert render(tokenizer, messages) == tokenizer.apply_chat_template(messages, tokenize=False)
