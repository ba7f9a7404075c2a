"""An Example as a row of another layout, to save a dataset anew.

In: an Example, a layout's name. Out: a row under that layout's own column names, which reads back as the same Example
where the type is the same; or a RowProblem where the layout can't say it. What a type of example can become at all is
`targets`. Tool calls and tools are written as JSON text, which every file type keeps as it is. Knows no files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from studio.core.conversation import KEPT
from studio.core.errors import DataError
from studio.core.example import Example, Message, RowProblem, Type, Words
from studio.core.formats import FORMATS

Row = dict[str, Any]

# What a type of example can become: itself, or something that says less. Nothing is made up, such as a label.
_LESS: Mapping[Type, tuple[Type, ...]] = {
    "language_modeling": ("language_modeling", "prompt_completion", "prompt_only"),
    "prompt_completion": ("prompt_completion", "language_modeling", "prompt_only"),
    "prompt_only": ("prompt_only",),
    "preference": ("preference", "language_modeling", "prompt_completion", "prompt_only"),
    "unpaired_preference": ("unpaired_preference", "language_modeling", "prompt_completion", "prompt_only"),
}
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def targets(type: Type) -> tuple[str, ...]:
    """The names of the layouts that examples of a type can be written as; single rows may still refuse."""
    return tuple(name for name in _ROWS if FORMATS[name].type in _LESS[type])


def to_row(example: Example, format_name: str) -> Row:
    """The example as a row. Of two judged answers the chosen one is kept, of a conversation the last answer.

    Raises RowProblem where the layout can't say it, DataError where nothing can be written as that layout.
    """
    if format_name not in _ROWS:
        raise DataError(f"No rows can be written as {format_name!r}.", f"Layouts to write are {', '.join(_ROWS)}.")
    if format_name not in targets(example.type):
        raise _unsaid(f"an example of the type {example.type} can't be said as {format_name}")
    row = _ROWS[format_name](example)
    return row | {"tools": _json(example.tools)} if example.tools else row


def _unsaid(why: str) -> RowProblem:
    return RowProblem("mixed_layout", why)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# -- an example as one of another type --------------------------------------------------------------------------------


def _shown(example: Example) -> tuple[Words, Words]:
    """The prompt and the one good answer to it."""
    if example.messages:
        return _split(example.messages)
    if example.label is False:
        raise RowProblem("empty_answer", "the only answer is labelled false, so there is none to learn")
    answer = example.completion if example.chosen is None else example.chosen
    if example.prompt is None or answer is None:
        raise _unsaid("plain text has no prompt and answer")
    return example.prompt, answer


def _split(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """The conversation up to its last answer, and that answer."""
    if messages[-1]["role"] != "assistant":
        raise RowProblem("role_order", f"the conversation ends with the {messages[-1]['role']}'s turn, not an answer")
    return messages[:-1], messages[-1:]


def _messages(example: Example) -> tuple[Message, ...]:
    """The example as one conversation; text that was a prompt becomes the user's, the answer the assistant's."""
    if example.messages:
        return example.messages
    prompt, answer = _shown(example)
    return (*_turns(prompt, "user"), *_turns(answer, "assistant"))


def _turns(words: Words, role: str) -> tuple[Message, ...]:
    return words if isinstance(words, tuple) else ({"role": role, "content": words},)


def _prompt(example: Example) -> Words:
    if example.messages:
        return _split(example.messages)[0]
    if example.prompt is None:
        raise _unsaid("plain text has no prompt")
    return example.prompt


# -- how layouts spell conversations ----------------------------------------------------------------------------------


def _openai(words: Words) -> str | list[Row]:
    """Text, or messages whose calls' arguments are JSON text, as OpenAI has them."""
    return words if isinstance(words, str) else [_openai_message(message) for message in words]


def _openai_message(message: Message) -> Row:
    calls = [
        call | {"function": call["function"] | {"arguments": _json(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return message | {"tool_calls": calls} if calls else dict(message)


def _sharegpt(messages: Sequence[Message]) -> list[Row]:
    return [_sharegpt_message(message) for message in messages]


def _sharegpt_message(message: Message) -> Row:
    extra = {key: message[key] for key in KEPT if key in message}
    calls = message.get("tool_calls")
    if not calls:
        return {"from": _SHAREGPT[message["role"]], "value": message["content"], **extra}
    if message["content"]:
        raise _unsaid("a message that speaks and calls a tool can't be said in ShareGPT")
    bare = [{key: call[key] for key in ("id",) if key in call} | call["function"] for call in calls]
    return {"from": "function_call", "value": _json(bare[0] if len(bare) == 1 else bare), **extra}


def _instruction(prompt: Words) -> Row:
    """A prompt as instruction, system and history."""
    turns = _turns(prompt, "user")
    if any(set(turn) - {"role", "content"} or turn["role"] == "tool" for turn in turns):
        raise _unsaid("tools, names and reasoning can't be said as instruction and answer")
    system = turns[0]["content"] if turns[0]["role"] == "system" else ""
    spoken = turns[1:] if system else turns
    if not spoken or spoken[-1]["role"] != "user":
        raise _unsaid("an instruction has to be the user's")
    pairs = zip(spoken[:-1:2], spoken[1:-1:2], strict=True)
    history = [[question["content"], answer["content"]] for question, answer in pairs]
    row: Row = {"instruction": spoken[-1]["content"], "input": ""}
    return row | ({"system": system} if system else {}) | ({"history": history} if history else {})


def _said(answer: Words) -> str:
    """An answer as text."""
    if isinstance(answer, str):
        return answer
    if len(answer) != 1 or set(answer[0]) != {"role", "content"}:
        raise _unsaid("an answer of several messages, or with tools or reasoning, can't be said as text")
    return str(answer[0]["content"])


# -- the rows ---------------------------------------------------------------------------------------------------------


def _text_row(example: Example) -> Row:
    if example.text is not None:
        return {"text": example.text}
    prompt, answer = (None, None) if example.messages else _shown(example)
    if not isinstance(prompt, str) or not isinstance(answer, str):
        raise _unsaid("a conversation is no text without a model's chat template")
    return {"text": prompt + answer}


def _prompt_completion_row(example: Example) -> Row:
    prompt, answer = _shown(example)
    return {"prompt": _openai(prompt), "completion": _openai(answer)}


def _judged(example: Example) -> tuple[Words, Words, Words]:
    assert example.prompt is not None and example.chosen is not None and example.rejected is not None
    return example.prompt, example.chosen, example.rejected


def _preference_row(example: Example) -> Row:
    return dict(zip(("prompt", "chosen", "rejected"), map(_openai, _judged(example)), strict=True))


def _sharegpt_preference_row(example: Example) -> Row:
    prompt, chosen, rejected = _judged(example)
    answers = _turns(chosen, "assistant"), _turns(rejected, "assistant")
    if any(len(answer) > 1 for answer in answers):
        raise _unsaid("an answer of several messages can't be said as one")
    better, worse = (_sharegpt(answer)[0] for answer in answers)
    return {"conversations": _sharegpt(_turns(prompt, "user")), "chosen": better, "rejected": worse}


def _alpaca_preference_row(example: Example) -> Row:
    prompt, chosen, rejected = _judged(example)
    return _instruction(prompt) | {"chosen": _said(chosen), "rejected": _said(rejected)}


def _labelled(example: Example) -> tuple[Words, Words, bool]:
    assert example.prompt is not None and example.completion is not None and example.label is not None
    return example.prompt, example.completion, example.label


def _unpaired_row(example: Example) -> Row:
    prompt, completion, label = _labelled(example)
    return {"prompt": _openai(prompt), "completion": _openai(completion), "label": label}


def _alpaca_unpaired_row(example: Example) -> Row:
    prompt, completion, label = _labelled(example)
    return _instruction(prompt) | {"output": _said(completion), "kto_tag": label}


def _sharegpt_unpaired_row(example: Example) -> Row:
    prompt, completion, label = _labelled(example)
    answer = _turns(completion, "assistant")
    if len(answer) > 1:
        raise _unsaid("an answer of several messages can't be said as one")
    return {"conversations": _sharegpt([*_turns(prompt, "user"), *answer]), "kto_tag": label}


def _alpaca_row(example: Example) -> Row:
    prompt, answer = _split(_messages(example))
    return _instruction(prompt) | {"output": _said(answer)}


_ROWS: dict[str, Callable[[Example], Row]] = {
    "messages": lambda example: {"messages": _openai(_messages(example))},
    "sharegpt": lambda example: {"conversations": _sharegpt(_messages(example))},
    "alpaca": _alpaca_row,
    "prompt_completion": _prompt_completion_row,
    "prompt_only": lambda example: {"prompt": _openai(_prompt(example))},
    "text": _text_row,
    "preference": _preference_row,
    "alpaca_preference": _alpaca_preference_row,
    "sharegpt_preference": _sharegpt_preference_row,
    "unpaired_preference": _unpaired_row,
    "alpaca_unpaired": _alpaca_unpaired_row,
    "sharegpt_unpaired": _sharegpt_unpaired_row,
}
