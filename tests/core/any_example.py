"""Conversations to test with: written by hand, and any that hypothesis can think of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from studio.core.example import Example, Message

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def turns(*contents: str) -> tuple[Message, ...]:
    """User and assistant in turn; a first `system:` opens them."""
    messages: list[Message] = []
    if contents and contents[0].startswith("system:"):
        messages.append({"role": "system", "content": contents[0].removeprefix("system:")})
        contents = contents[1:]
    for number, content in enumerate(contents):
        messages.append({"role": ("user", "assistant")[number % 2], "content": content})
    return tuple(messages)


def said(content: str) -> tuple[Message, ...]:
    return ({"role": "assistant", "content": content},)


def openai(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in pairs]


def messages(*pairs: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    return {"messages": openai(*pairs), **more}


def sharegpt(*pairs: tuple[Any, Any], **more: Any) -> dict[str, Any]:
    return {"conversations": [{"from": role, "value": content} for role, content in pairs], **more}


def call(name: str, arguments: dict[str, Any], **more: str) -> dict[str, Any]:
    return {**more, "type": "function", "function": {"name": name, "arguments": arguments}}


# -- any ---------------------------------------------------------------------------------------------------------------

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
CALLS = st.lists(
    st.builds(call, WORDS, st.dictionaries(WORDS, JSON, max_size=2))
    | st.builds(lambda known: call("f", {}, id=known), WORDS),
    min_size=1,
    max_size=2,
)
EXTRA = st.fixed_dictionaries({}, optional={"reasoning_content": WORDS})
TOOLS = st.just(()) | st.just((WEATHER,))


def message(role: str, content: str, extra: dict[str, Any] | None = None) -> Message:
    return {"role": role, "content": content, **(extra or {})}


@st.composite
def rounds(draw: st.DrawFn, plain: bool = False) -> tuple[Message, ...]:
    """What the user says and the assistant answers, tools in between unless `plain`."""
    round = [message("user", draw(WORDS))]
    while not plain and draw(st.integers(0, 3)) == 3:
        round.append({"role": "assistant", "content": draw(st.just("") | WORDS), "tool_calls": draw(CALLS)})
        round.append(message("tool", draw(st.just("") | WORDS)))
    round.append(message("assistant", draw(WORDS), {} if plain else draw(EXTRA)))
    return tuple(round)


@st.composite
def conversations(draw: st.DrawFn, plain: bool = False) -> tuple[Message, ...]:
    opening = [message("system", draw(WORDS))] if draw(st.booleans()) else []
    return (*opening, *(turn for round in draw(st.lists(rounds(plain), min_size=1, max_size=3)) for turn in round))


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Any good example of any type."""
    plain = draw(st.booleans())
    whole = draw(conversations(plain))
    tools = () if plain else draw(TOOLS)
    one, other = draw(WORDS), draw(WORDS)
    if draw(st.booleans()):
        prompt, good, bad = draw(WORDS), one, one + other
    else:
        prompt, good, bad = whole[:-1], said(one), said(one + other)
    return draw(
        st.sampled_from(
            [
                Example(text=one),
                Example(messages=whole, tools=tools),
                Example(prompt=prompt, tools=tools),
                Example(prompt=prompt, completion=good, tools=tools),
                Example(prompt=prompt, completion=good, label=draw(st.booleans()), tools=tools),
                Example(prompt=prompt, chosen=good, rejected=bad, tools=tools),
            ]
        )
    )
