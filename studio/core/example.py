"""One row of a dataset as training sees it: an Example in TRL's terms, or a RowProblem.

In: what a layout of `formats` read from a row. Out: inert data. Knows no columns, no files, no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from studio.core.problems import PROBLEMS

# role ("system", "user", "assistant", "tool") and content (always text; "" where only tools are called), and where the
# row has them: tool_calls ({"type": "function", "function": {"name", "arguments": object}, maybe "id"}), tool_call_id,
# name, reasoning_content, thinking
Message = dict[str, Any]
Words = str | tuple[Message, ...]

Type = Literal["language_modeling", "prompt_completion", "prompt_only", "preference", "unpaired_preference"]


class RowProblem(Exception):
    """A row can't be used: `kind` is one of PROBLEMS, the message says why, without the row's number."""

    def __init__(self, kind: str, message: str) -> None:
        assert kind in PROBLEMS, kind
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Example:
    """One row. What is there tells its type, as TRL's dataset types do.

    `text`, or `messages`: language modelling. `prompt` alone: prompt only; with `completion`: prompt and completion;
    with `completion` and `label` (good or bad): unpaired preference; with `chosen` and `rejected`: preference.
    All of prompt, completion, chosen and rejected that are there are text, or all are messages (conversational);
    prompt and answer then stand apart, and a prompt that chosen and rejected shared is taken out of them.
    `tools` are the functions that the model may call, as `{"type": "function", "function": {...}}`.
    """

    messages: tuple[Message, ...] = ()
    prompt: Words | None = None
    completion: Words | None = None
    text: str | None = None
    chosen: Words | None = None
    rejected: Words | None = None
    label: bool | None = None
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def type(self) -> Type:
        if self.messages or self.text is not None:
            return "language_modeling"
        if self.chosen is not None:
            return "preference"
        if self.completion is None:
            return "prompt_only"
        return "prompt_completion" if self.label is None else "unpaired_preference"

    @property
    def conversational(self) -> bool:
        """Whether the model's chat template is to be applied."""
        return bool(self.messages) or isinstance(self.prompt, tuple)


def asked(example: Example) -> tuple[Example, str]:
    """A row as a question for the model to answer itself, and the answer that the row holds ("": none).

    Of a conversation the last answer is the one asked for. Raises RowProblem for a plain text, which asks nothing.
    """
    if example.messages:
        last = max(i for i, message in enumerate(example.messages) if message["role"] == "assistant")
        if not last:
            raise RowProblem("empty_prompt", "the conversation opens with the assistant, so nothing is asked")
        return Example(prompt=example.messages[:last], tools=example.tools), example.messages[last]["content"]
    if example.prompt is None:
        raise RowProblem("empty_prompt", "a plain text asks nothing")
    answer = example.completion if example.completion is not None else ""
    told = answer if isinstance(answer, str) else "\n".join(message["content"] for message in answer)
    return Example(prompt=example.prompt, tools=example.tools), told
