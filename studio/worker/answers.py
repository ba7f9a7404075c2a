"""Which characters of a written conversation are an assistant's turn.

That is what it has to say after the generation prompt, up to and with the token that ends its turn.

In: messages and the text that the chat template made of them. Out: spans of that text, or TemplateError; never a
guess. What stands behind the end of a turn is never generated, so it carries no loss (Phi-3 closes conversations with
another token). A template's own {% generation %} marks are obeyed. Knows no token ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from studio.core.errors import TemplateError
from studio.core.example import Message
from studio.worker.marks import Mark, around, free_plane, taken_out
from studio.worker.render import Span, marks_answers, render, render_marked, template_of
from studio.worker.skeleton import Skeleton

_KEPT = 1000  # shapes of conversations whose skeletons are kept


class Answers:
    """Finds them for one tokenizer's template; what it learns of it, it keeps."""

    def __init__(self, tokenizer: Any, special: re.Pattern[str]) -> None:
        self.tokenizer = tokenizer
        self._ending = re.compile(rf"\s*(?:{special.pattern})")
        self._special = special
        self._skeletons: dict[tuple[str, ...], Skeleton | None] = {}
        self._tails: dict[Any, str] = {}
        self._ends: re.Pattern[str] | None = None

    def spans(self, messages: Sequence[Message], tools: Sequence[Any], text: str, wanted: Sequence[int]) -> list[Span]:
        """Where in `text` the turns of the `wanted` messages stand. Raises TemplateError."""
        if not wanted:
            return []
        plain = not tools and all(len(m) == 2 and isinstance(m["content"], str) for m in messages)
        if plain and (skeleton := self._skeleton(tuple(m["role"] for m in messages))):
            found = skeleton.spans(text, [m["content"] for m in messages], wanted)
            if found is not None:
                return found
        turns = self._by_marks(messages, tools, text, wanted)
        return self._by_prefixes(messages, tools, text, wanted) if turns is None else list(turns.values())

    def _skeleton(self, roles: tuple[str, ...]) -> Skeleton | None:
        if roles not in self._skeletons:
            if len(self._skeletons) >= _KEPT:
                self._skeletons.clear()
            self._skeletons[roles] = self._made_skeleton(roles)
        return self._skeletons[roles]

    def _made_skeleton(self, roles: tuple[str, ...]) -> Skeleton | None:
        """What the template writes around any words in this order of roles; None if that can't be told."""
        messages = [{"role": role, "content": "word"} for role in roles]
        spoken = [i for i, role in enumerate(roles) if role == "assistant"]
        try:
            text = render(self.tokenizer, messages)
            turns = self._by_marks(messages, (), text, spoken)
            marked = taken_out(render(self.tokenizer, around(messages, _plane(text))), _plane(text))
        except TemplateError:
            return None
        return Skeleton.made(*marked, len(roles), turns) if turns else None

    # -- by marks around each message's words -------------------------------------------------------------------------

    def _by_marks(
        self, messages: Sequence[Message], tools: Sequence[Any], text: str, wanted: Sequence[int]
    ) -> dict[int, Span] | None:
        """Each wanted message's turn; one that the template itself marks as not to be learnt has none.

        None where the template writes something else once there are marks, or doesn't say which words are whose.
        """
        plane = free_plane(text)
        if plane is None:
            return None
        marked = around(messages, plane)
        tagged: list[Span] = []
        try:
            if marks_answers(template_of(self.tokenizer, tools)):
                written, tagged = render_marked(self.tokenizer, marked, tools)
            else:
                written = render(self.tokenizer, marked, tools=tools)
        except TemplateError:
            return None
        plain, marks = taken_out(written, plane)
        if plain != text:
            return None
        if tagged:
            tagged = [tuple(len(taken_out(written[:edge], plane)[0]) for edge in span) for span in tagged]  # type: ignore[misc]
            return self._tagged(text, marks, tagged, wanted)
        found = {i: self._turn(messages, tools, text, marks, i, plane) for i in wanted}
        told = {i: turn for i, turn in found.items() if turn is not None}
        return told if len(told) == len(found) else None

    def _tagged(
        self, text: str, marks: list[Mark], tagged: list[Span], wanted: Sequence[int]
    ) -> dict[int, Span] | None:
        found = {}
        for i in wanted:
            places = [mark.place for mark in marks if mark.message == i]
            own = [(a, b) for a, b in tagged if any(a <= place <= b for place in places)]
            if own:
                start, end = min(own)[0], max(b for _, b in own)
                end = start + len(text[start:end].rstrip())
                closing = self._ending.match(text, end)
                ended = any(each.end() == end for each in self._special.finditer(text, start, end))
                found[i] = (start, closing.end() if closing and not ended else end)
        return found or None

    def _turn(
        self, messages: Sequence[Message], tools: Sequence[Any], text: str, marks: list[Mark], i: int, plane: int
    ) -> Span | None:
        own = [mark for mark in marks if mark.message == i]
        if not own:
            return None
        first, last = own[0].place, own[-1].place
        before = marks[: marks.index(own[0])]
        behind = marks[len(marks) - 1 - marks[::-1].index(own[-1]) + 1 :]
        if len(before) + len(own) + len(behind) != len(marks):
            return None  # another message's words stand among this one's
        since = before[-1].place if before else 0
        start = self._start(messages, tools, text[since:first], i, plane, own[0].opens)
        end = self._end(messages, tools, text, (last, behind[0].place if behind else len(text)), i, plane)
        return None if start is None or end is None else (since + start, end)

    def _start(
        self, messages: Sequence[Message], tools: Sequence[Any], gap: str, i: int, plane: int, opens: bool
    ) -> int | None:
        """How far into the gap behind the words before it the generation prompt reaches."""
        key = (bool(tools), i == 0, *((m["role"], bool(m.get("tool_calls"))) for m in messages[max(0, i - 2) : i]))
        tail = self._tails.get(key)
        if tail is None or not gap.startswith(tail):
            try:
                tail = self._after_words(messages[:i], tools, plane, ask=True)
            except TemplateError:
                return len(gap) if opens else None
            self._tails[key] = tail
        if gap.startswith(tail):
            return len(tail)
        # Asked, the model gets more than stands in histories (DeepSeek-R1 opens its thoughts): from its words on, then,
        # and what opens a call.
        shared = 0
        for found in self._special.finditer(gap):
            if tail.startswith(gap[: found.end()]):
                shared = found.end()
        if shared and (messages[i].get("tool_calls") or not gap[shared:].strip()):
            return shared
        return len(gap) if opens else None

    def _after_words(self, messages: Sequence[Message], tools: Sequence[Any], plane: int, ask: bool) -> str:
        text, marks = taken_out(render(self.tokenizer, around(messages, plane), tools=tools, ask=ask), plane)
        return text[marks[-1].place :] if marks else text

    def _end(
        self, messages: Sequence[Message], tools: Sequence[Any], text: str, region: Span, i: int, plane: int
    ) -> int | None:
        """Where the turn ends whose last words end with the region's beginning; the next one's begin with its end."""
        calls = bool(messages[i].get("tool_calls"))
        if not calls and (found := self._ending.match(text, *region)):
            return found.end()
        if found := self._end_tokens().search(text, *region):
            return found.end()
        try:
            closing = self._after_words(messages[: i + 1], tools, plane, ask=False)
        except TemplateError:
            closing = ""
        ends = [found.end() for found in self._special.finditer(closing)]
        closing = closing[: ends[-1]] if ends else closing
        if not text.startswith(closing, region[0]) or (calls and not ends):
            return None
        return region[0] + len(closing)

    def _end_tokens(self) -> re.Pattern[str]:
        """The tokens that end plain answers with this template: the last one's, and an earlier one's."""
        if self._ends is None:
            found = {self.tokenizer.eos_token} - {None}
            asked, said = {"role": "user", "content": "word"}, {"role": "assistant", "content": "word"}
            for messages in ([asked, said], [asked, said, asked]):
                try:
                    text = render(self.tokenizer, messages)
                    plane = _plane(text)
                    plain, marks = taken_out(render(self.tokenizer, around(messages, plane)), plane)
                except TemplateError:
                    continue
                spoken = [mark.place for mark in marks if mark.message == 1]
                if plain == text and spoken and (closing := self._ending.match(text, spoken[-1])):
                    found = (found - {self.tokenizer.eos_token}) | {closing[0].strip()}
            self._ends = re.compile("|".join(map(re.escape, sorted(found))) or "(?!)")
        return self._ends

    # -- by writing the conversation up to each answer, without it and with it ----------------------------------------

    def _by_prefixes(
        self, messages: Sequence[Message], tools: Sequence[Any], text: str, wanted: Sequence[int]
    ) -> list[Span]:
        found = []
        for i in wanted:
            before = render(self.tokenizer, messages[:i], tools=tools, ask=True)
            after = render(self.tokenizer, messages[: i + 1], tools=tools)
            if not (after.startswith(before) and text.startswith(after)):
                raise TemplateError(
                    "The model's chat template rewrites what is said, so the assistant's tokens can't be told exactly.",
                    "Train on the last answer only (dataset.train_on: last_assistant) or on all tokens (all).",
                )
            found.append((len(before), len(before) + len(after[len(before) :].rstrip())))
        return found


def _plane(text: str) -> int:
    plane = free_plane(text)
    if plane is None:
        raise TemplateError("The model's chat template uses all private characters.", "Choose another model.")
    return plane
