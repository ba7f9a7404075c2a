"""A row, as the model learns from it: its text, its tokens, and which of them carry loss.

In: an Example and a tokenizer. Out: an Encoded. `studio data show`, the Data tab and training all call
`Encoder.encode`, so what is shown is what is trained on. Where the assistant's tokens can't be told exactly, it
refuses; it never guesses.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from studio.core.errors import TemplateError
from studio.core.formats import Example, Message

Span = tuple[int, int]  # characters [start, end) of the rendered text


@dataclass(frozen=True)
class Encoded:
    """`ids[i]` carries loss where `loss[i]`; `text` is what was tokenized."""

    ids: list[int]
    loss: list[bool]
    text: str

    def cut(self, max_length: int) -> Encoded:
        """What is left within `max_length` tokens; `text` stays whole."""
        return Encoded(self.ids[:max_length], self.loss[:max_length], self.text)

    @property
    def labels(self) -> list[int]:
        """Token ids where there is loss, -100 elsewhere (what PyTorch's cross entropy ignores)."""
        return [token if carries else -100 for token, carries in zip(self.ids, self.loss, strict=True)]


class Encoder:
    """Encodes rows for one tokenizer. `train_on` as in `dataset.train_on`."""

    def __init__(self, tokenizer: Any, train_on: str = "assistant") -> None:
        self.tokenizer = tokenizer
        self.train_on = train_on
        self._special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        self._training_template: str | None = None
        self._looked_for_template = False

    def encode(self, example: Example) -> Encoded:
        """The whole row, not cut to any length. Raises TemplateError."""
        if example.text is not None:
            ids = self._with_end(self.tokenizer(example.text)["input_ids"])
            return Encoded(ids, [True] * len(ids), example.text)
        if example.completion is not None:
            return self._prompt_completion(example.prompt or "", example.completion)
        return self._conversation(list(example.messages))

    def _prompt_completion(self, prompt: str, completion: str) -> Encoded:
        # Apart, as in use: the model is given the prompt's own tokens and has to go on from there.
        asked = self.tokenizer(prompt)["input_ids"]
        answer = self._with_end(self.tokenizer(completion, add_special_tokens=False)["input_ids"])
        whole = self.train_on == "all"
        return Encoded(asked + answer, [whole] * len(asked) + [True] * len(answer), prompt + completion)

    def _with_end(self, ids: list[int]) -> list[int]:
        end = self.tokenizer.eos_token_id
        return ids if end is None or (ids and ids[-1] == end) else [*ids, end]

    def _conversation(self, messages: list[Message]) -> Encoded:
        text = self._render(messages)
        tokens = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = tokens["input_ids"], tokens["offset_mapping"]
        if self.train_on == "all":
            return Encoded(ids, [True] * len(ids), text)
        loss = self._marked(messages, text, ids) or self._from_prefixes(messages, text, ids, offsets)
        if self.train_on == "last_assistant":
            loss = _only_last_block(loss, len(ids))
        return Encoded(ids, loss, text)

    # -- which tokens are the assistant's -----------------------------------------------------------------------------

    def _marked(self, messages: list[Message], text: str, ids: list[int]) -> list[bool] | None:
        """By the template's own {% generation %} marks; None if it has none."""
        if "{% generation" not in self._template() and "{%- generation" not in self._template():
            return None
        return self._by_marks(messages, text, ids, None)

    def _by_marks(self, messages: list[Message], text: str, ids: list[int], template: str | None) -> list[bool] | None:
        try:
            marked = self.tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
        except Exception:  # noqa: BLE001 - a template is somebody else's program and may raise anything
            return None
        mask = marked.get("assistant_masks")
        if marked["input_ids"] != ids or not mask or not any(mask):
            return None
        return self._tidy([bool(bit) for bit in mask], ids)

    def _from_prefixes(self, messages: list[Message], text: str, ids: list[int], offsets: list[Span]) -> list[bool]:
        """By rendering the conversation up to each answer, without it and with it."""
        loss = [False] * len(ids)
        last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
        for i, message in enumerate(messages):
            if message["role"] != "assistant" or (self.train_on == "last_assistant" and i != last):
                continue
            before = self._render(messages[:i], ask=True)
            after = self._render(messages[: i + 1])
            if not (after.startswith(before) and text.startswith(after)):
                return self._from_training_template(messages, text, ids)
            self._mark_span(loss, offsets, (len(before), len(after)))
        return self._tidy(loss, ids)

    @staticmethod
    def _mark_span(loss: list[bool], offsets: list[Span], span: Span) -> None:
        start, end = span
        for position, (first, beyond) in enumerate(offsets):
            if first == beyond or beyond <= start or first >= end:
                continue
            if first < start or beyond > end:
                raise TemplateError(
                    "A token stands half in the question and half in the answer, so its loss can't be told.",
                    "Train on all tokens (dataset.train_on: all), or choose another model.",
                )
            loss[position] = True

    def _from_training_template(self, messages: list[Message], text: str, ids: list[int]) -> list[bool]:
        """By TRL's marked copy of the template, where it has one that renders the very same text."""
        if not self._looked_for_template:
            from trl.chat_template_utils import get_training_chat_template

            self._looked_for_template = True
            try:
                self._training_template = get_training_chat_template(self.tokenizer)
            except ValueError:
                self._training_template = None
        loss = self._by_marks(messages, text, ids, self._training_template) if self._training_template else None
        if loss is None:
            raise TemplateError(
                "The model's chat template rewrites earlier turns, so the assistant's tokens can't be told exactly.",
                "Train on the last answer only (dataset.train_on: last_assistant) or on all tokens (all).",
            )
        return loss

    def _tidy(self, loss: list[bool], ids: list[int]) -> list[bool]:
        """Each block ends with the end-of-turn token: what stands between turns after it carries no loss, and an
        end-of-turn token that stands right behind a block is learnt with it, or the model would never stop."""
        loss = list(loss)
        for first, beyond in _blocks(loss):
            end = beyond
            while end > first and ids[end - 1] not in self._special and not self._visible(ids[end - 1]):
                end -= 1
            if end > first and ids[end - 1] in self._special:
                for position in range(end, beyond):
                    loss[position] = False
            elif beyond < len(ids) and ids[beyond] in self._special:
                loss[beyond] = True
        return loss

    def _visible(self, token: int) -> bool:
        return bool(self.tokenizer.decode([token]).strip())

    # -- rendering ----------------------------------------------------------------------------------------------------

    def _template(self) -> str:
        template = self.tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        if not template:
            raise TemplateError(
                "This model has no chat template, so a conversation can't be written the way it expects.",
                "Choose an instruct or chat model, or give rows of plain text or of prompt and completion.",
            )
        return str(template)

    def _render(self, messages: list[Message], ask: bool = False) -> str:
        self._template()
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        except Exception as error:  # noqa: BLE001 - a template is somebody else's program and may raise anything
            raise TemplateError(
                f"The model's chat template can't write this conversation ({' '.join(str(error).split())[:160]}).",
                "Leave the row out, or change its roles to what the model knows.",
            ) from None
        return str(text)


def _blocks(loss: list[bool]) -> list[Span]:
    """The runs of True in a mask, as [first, beyond) positions."""
    edges = [i for i in range(1, len(loss)) if loss[i] != loss[i - 1]]
    bounds = [0, *edges, len(loss)]
    return [(a, b) for a, b in pairwise(bounds) if a < b and loss[a]]


def _only_last_block(loss: list[bool], length: int) -> list[bool]:
    blocks = _blocks(loss)
    first, beyond = blocks[-1] if blocks else (0, 0)
    return [first <= i < beyond for i in range(length)]
