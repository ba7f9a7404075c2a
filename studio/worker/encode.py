"""A row, as the model learns from it: its text, its tokens, and which of them carry loss.

In: an Example and a tokenizer. Out: an Encoded, or two for a preference. `studio data show`, the Data tab, the check
and training all call the Encoder, so what is shown is what is trained on. Where the assistant's tokens can't be told
exactly, it refuses; it never guesses.

A conversation's special tokens are its template's: those that its messages only spell are tokenized as text. A plain
text, prompt or completion is written as the model reads it, and its special tokens are meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from studio.core.errors import TemplateError
from studio.core.example import Example, Message
from studio.worker.answers import Answers
from studio.worker.marks import at_specials, free_plane, strings, taken_out
from studio.worker.plaintokens import PlainTokens
from studio.worker.render import Span, render
from studio.worker.toolspelling import as_text

_BATCH = 64  # rows whose texts are tokenized in one call


@dataclass(frozen=True)
class Encoded:
    """`ids[i]` carries loss where `loss[i]`; `text` is what was tokenized.

    `neutralised` special tokens of the model only stood in the row's words and were tokenized as plain text.
    """

    ids: list[int]
    loss: list[bool]
    text: str
    neutralised: int = 0

    def cut(self, max_length: int) -> Encoded:
        """What is left within `max_length` tokens; `text` stays whole."""
        return Encoded(self.ids[:max_length], self.loss[:max_length], self.text, self.neutralised)

    @property
    def labels(self) -> list[int]:
        """Token ids where there is loss, -100 elsewhere (what PyTorch's cross entropy ignores)."""
        return [token if carries else -100 for token, carries in zip(self.ids, self.loss, strict=True)]


@dataclass(frozen=True)
class _Piece:
    """A text to be tokenized: `spans` of it carry loss (None: all of it); at `spelled` characters a special token only
    seems to begin. `opens`: it gets what the tokenizer opens texts with."""

    text: str
    spans: Sequence[Span] | None
    opens: bool = False
    spelled: Sequence[int] = ()


@dataclass(frozen=True)
class _Draft:
    """A row before it is tokenized; `ends` with the end-of-text token."""

    pieces: tuple[_Piece, ...]
    ends: bool = False


@dataclass
class _Tokens:
    """What is put together of a row's pieces."""

    ids: list[int] = field(default_factory=list)
    loss: list[bool] = field(default_factory=list)
    neutralised: int = 0


class Encoder:
    """Encodes rows for one tokenizer. `train_on` as in `dataset.train_on`; preferences have loss on answers only.

    `documents`: rows are read one after the other, so a conversation too ends with the end-of-text token.
    """

    def __init__(self, tokenizer: Any, train_on: str = "assistant", documents: bool = False) -> None:
        self.tokenizer = tokenizer
        self.train_on = train_on
        self.documents = documents
        self._plain = PlainTokens(tokenizer)
        self._answers = Answers(tokenizer, self._plain.special)

    def encode(self, example: Example) -> Encoded:
        """The whole row, not cut to any length; preferences by `encode_pair`. Raises TemplateError."""
        return self._tokenized([self._draft(example)])[0]

    def encode_pair(self, example: Example) -> tuple[Encoded, Encoded]:
        """A preference's chosen and rejected answer, each behind the same prompt, which carries no loss.

        Raises TemplateError.
        """
        prompt = example.prompt if example.prompt is not None else ""
        drafts = [self._answer(prompt, answer or "", example.tools) for answer in (example.chosen, example.rejected)]
        chosen, rejected = self._tokenized(drafts)
        asked = [next((i for i, carries in enumerate(each.loss) if carries), -1) for each in (chosen, rejected)]
        if asked[0] != asked[1] or chosen.ids[: asked[0]] != rejected.ids[: asked[0]]:
            raise TemplateError(
                "The two answers of this row change how its prompt is written, so they can't be compared.",
                "Leave the row out, or begin both answers alike.",
            )
        return chosen, rejected

    def encode_many(self, examples: Iterable[Example]) -> Iterator[Encoded | TemplateError]:
        """`encode` for each, in order and in bounded memory; the error itself where one can't be encoded."""
        rest = iter(examples)
        while batch := list(islice(rest, _BATCH)):
            drafts = [self._tried(example) for example in batch]
            try:
                encoded = iter(self._tokenized([draft for draft in drafts if isinstance(draft, _Draft)]))
                yield from [next(encoded) if isinstance(draft, _Draft) else draft for draft in drafts]
            except TemplateError:
                yield from (self._alone(draft) for draft in drafts)

    def special(self, encoded: Encoded) -> list[bool]:
        """Of each token, whether it is one of the model's special tokens."""
        return [token in self._plain.ids for token in encoded.ids]

    def special_in(self, example: Example) -> list[str]:
        """The special tokens that a conversation's words and tools spell, which are trained as text."""
        if not example.conversational:
            return []
        parts = (example.messages, example.prompt, example.completion, example.chosen, example.rejected, example.tools)
        return self._plain.spelled(strings(parts))

    # -- what a row says ----------------------------------------------------------------------------------------------

    def _tried(self, example: Example) -> _Draft | TemplateError:
        try:
            return self._draft(example)
        except TemplateError as error:
            return error

    def _alone(self, draft: _Draft | TemplateError) -> Encoded | TemplateError:
        if isinstance(draft, TemplateError):
            return draft
        try:
            return self._tokenized([draft])[0]
        except TemplateError as error:
            return error

    def _draft(self, example: Example) -> _Draft:
        assert example.chosen is None, "a preference has two answers: encode_pair"
        if example.text is not None:
            return _Draft((_Piece(example.text, None, opens=True),), ends=True)
        if example.messages:
            return self._conversation(example.messages, example.tools, 0, self.train_on)
        prompt = example.prompt if example.prompt is not None else ""
        if example.completion is not None:
            return self._answer(prompt, example.completion, example.tools, self.train_on)
        if isinstance(prompt, str):
            return _Draft((_Piece(prompt, (), opens=True),))
        return self._conversation(prompt, example.tools, len(prompt), "assistant", ask=True)

    def _answer(self, prompt: Any, answer: Any, tools: Sequence[Any], train_on: str = "assistant") -> _Draft:
        if isinstance(prompt, tuple) or isinstance(answer, tuple):
            prompt, answer = (() if isinstance(part, str) else part for part in (prompt, answer))
            return self._conversation((*prompt, *answer), tools, len(prompt), train_on)
        # Apart, as in use: the model is given the prompt's own tokens and has to go on from there.
        asked = _Piece(prompt, None if train_on == "all" else (), opens=True)
        return _Draft((asked, _Piece(answer, None)), ends=True)

    def _conversation(
        self, messages: Sequence[Message], tools: Sequence[Any], since: int, train_on: str, ask: bool = False
    ) -> _Draft:
        """Loss on what the assistant says from message `since` on."""
        messages, text = self._written(messages, tools, ask)
        spoken = [i for i, message in enumerate(messages) if message["role"] == "assistant" and i >= since]
        wanted = spoken[-1:] if train_on == "last_assistant" else spoken
        spans = None if train_on == "all" else self._answers.spans(messages, tools, text, wanted)
        return _Draft((_Piece(text, spans, spelled=self._spelled(messages, tools, text, ask)),), self.documents)

    def _written(self, messages: Sequence[Message], tools: Sequence[Any], ask: bool) -> tuple[Sequence[Message], str]:
        try:
            return messages, render(self.tokenizer, messages, tools=tools, ask=ask)
        except TemplateError:
            spelled = as_text(messages)  # some templates read a call's arguments as text only (DeepSeek)
            if spelled is None:
                raise
            return spelled, render(self.tokenizer, spelled, tools=tools, ask=ask)

    def _spelled(self, messages: Sequence[Message], tools: Sequence[Any], text: str, ask: bool) -> list[int]:
        """Where in the text a special token begins that is only the row's words."""
        special = self._plain.special
        plain = not tools and all(len(message) == 2 for message in messages)  # role and content
        if not any(map(special.search, (m["content"] for m in messages) if plain else strings((messages, tools)))):
            return []
        plane = free_plane(text)
        if plane is not None:
            marked = at_specials([list(messages), list(tools)], special, plane)
            written, marks = taken_out(render(self.tokenizer, marked[0], tools=marked[1], ask=ask), plane)
            if written == text:
                return [mark.place - 1 for mark in marks]
        raise TemplateError(
            "The row spells a special token of the model, and its chat template changes it, so the two can't be told "
            "apart.",
            "Leave the row out, or write the token otherwise.",
        )

    # -- tokens -------------------------------------------------------------------------------------------------------

    def _tokenized(self, drafts: Sequence[_Draft]) -> list[Encoded]:
        pieces = [piece for draft in drafts for piece in draft.pieces]
        found: dict[int, Any] = {}
        for opens in (False, True):
            numbers = [i for i, piece in enumerate(pieces) if piece.opens is opens]
            if numbers:
                texts = [pieces[i].text for i in numbers]
                batch = self.tokenizer(texts, add_special_tokens=opens, return_attention_mask=False)
                found.update(zip(numbers, batch.encodings or batch["input_ids"], strict=True))
        done = iter(found[i] for i in range(len(pieces)))
        return [self._encoded(draft, done) for draft in drafts]

    def _encoded(self, draft: _Draft, encodings: Iterator[Any]) -> Encoded:
        tokens = _Tokens()
        for piece, encoding in zip(draft.pieces, encodings):  # noqa: B905 - the iterator goes on with the next draft
            self._add(tokens, piece, encoding)
        end = self.tokenizer.eos_token_id
        # Templates close a conversation with the token, and may write a line break behind it.
        closing = tokens.ids[-1:] if draft.pieces[0].opens else tokens.ids[-2:]
        if draft.ends and end is not None and end not in closing:
            tokens.ids.append(end)
            tokens.loss.append(True)
        return Encoded(tokens.ids, tokens.loss, "".join(p.text for p in draft.pieces), tokens.neutralised)

    def _add(self, tokens: _Tokens, piece: _Piece, encoding: Any) -> None:
        ids = list(encoding if isinstance(encoding, list) else encoding.ids)
        loss = [piece.spans is None] * len(ids)
        if isinstance(encoding, list) and (piece.spans or piece.spelled):
            raise TemplateError(
                "This model's tokenizer can't say which characters its tokens stand for, so the loss can't be placed.",
                "Train on all tokens (dataset.train_on: all), or choose a model with a fast tokenizer.",
            )
        for span in piece.spans or ():
            first, beyond = self._tokens_of(piece.text, encoding, ids, span)
            loss[first:beyond] = [True] * (beyond - first)
        places = {encoding.char_to_token(character) for character in piece.spelled} - {None}
        for place in sorted((p for p in places if ids[p] in self._plain.ids), reverse=True):
            start, end = encoding.token_to_chars(place)
            plain = self._plain.encode(piece.text[start:end])
            ids[place : place + 1] = plain
            loss[place : place + 1] = [loss[place]] * len(plain)
            tokens.neutralised += 1
        tokens.ids += ids
        tokens.loss += loss

    def _tokens_of(self, text: str, encoding: Any, ids: list[int], span: Span) -> Span:
        """The tokens [first, beyond) that stand within the span of characters. Raises TemplateError."""
        start, end = span
        inside = (token for token in map(encoding.char_to_token, range(start, end)) if token is not None)
        first = next(inside, None)
        if first is None:
            return 0, 0
        last = next(t for t in map(encoding.char_to_token, range(end - 1, start - 1, -1)) if t is not None)
        while last + 1 < len(ids) and (chars := encoding.token_to_chars(last + 1)) and chars[0] < end:
            last += 1  # the last character may be several tokens
        while first <= last and (begins := encoding.token_to_chars(first)[0]) < start:
            if ids[first] in self._plain.ids:
                break  # it takes in the white space before it
            self._only_space(text[start : encoding.token_to_chars(first)[1]], text[begins:start])
            first += 1
        while first <= last and (ends := encoding.token_to_chars(last)[1]) > end:
            if ids[last] in self._plain.ids:
                break
            self._only_space(text[encoding.token_to_chars(last)[0] : end], text[end:ends])
            last -= 1
        return first, last + 1

    @staticmethod
    def _only_space(inside: str, outside: str) -> None:
        # A token of white space that is half the template's is none that the model would write: it carries no loss.
        if inside.strip():
            raise TemplateError(
                "A token stands half in the question and half in the answer, so its loss can't be told.",
                "Train on all tokens (dataset.train_on: all), or choose another model.",
            )
