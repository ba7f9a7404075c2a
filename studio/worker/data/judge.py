"""One row's way from the file to the model, and everything that is found on it.

In: Lines. Out: a Verdict each: the problems, the hash by which duplicates are found, the tokens and their loss. The
check and the preparation of a run both ask this judge, so that what is shown is what is trained on. What can be told
of a row only beside others (duplicates, leaks) is not known here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from studio.core.errors import TemplateError
from studio.core.example import Example, RowProblem, asked
from studio.core.fitting import RowShape
from studio.core.formats import Layout, to_example
from studio.core.problems import PROBLEMS
from studio.core.rows import Line
from studio.worker.data import pii, wording
from studio.worker.data.problems import LONGEST_EXAMPLE, Where, shorten
from studio.worker.encode import Encoded

# What a row's text may hold; found without a model. `special_tokens` is found only with one.
CONTENT_KINDS = ("answer_equals_prompt", *pii.KINDS)


@dataclass(frozen=True)
class Wanted:
    """What is to be found out of every row. `kinds`: of warnings; errors are always found."""

    system_prompt: str | None = None
    max_length: int = 1024
    kinds: tuple[str, ...] = (*CONTENT_KINDS, "special_tokens", "too_long")
    shingles: bool = False  # for near duplicates
    tokens: bool = False  # keep the row's tokens and labels, not only their number
    shape: RowShape | None = None  # what the method learns from; None: as the row is
    stratum: str | None = None  # keep this column's value


@dataclass
class Verdict:
    """What was found of one row. The numbers of tokens are those of a usable row, where there is a tokenizer."""

    position: int
    number: int
    file: str
    part: int
    problems: list[tuple[str, str]] = field(default_factory=list)  # kind, the value at fault
    reason: str = ""  # in words, why the row can't be used
    hint: str = ""
    usable: bool = False
    type: str = ""
    conversational: bool = False
    digest: int = 0
    shingles: np.ndarray | None = None
    length: int = 0  # tokens of the whole row; of both answers together, where there are two
    longest: int = 0  # of the longer of the two
    lost: int = 0  # of them beyond max_length
    loss: int = 0  # of those within, how many are learnt from
    ids: list[np.ndarray] = field(default_factory=list)  # of each answer, behind its prompt: int32, within max_length
    carries: list[np.ndarray] = field(default_factory=list)  # bool, as long as ids
    label: bool | None = None  # whether the answer is a good one, where the row says so
    words: tuple[str, str] = ("", "")  # the prompt as the model reads it and the row's answer, where it has to answer
    stratum: str | None = None

    @property
    def where(self) -> Where:
        return f"{self.file}:{self.number}" if self.file else self.number

    def refuse(self, kind: str, reason: str, value: str) -> Verdict:
        self.problems, self.reason, self.usable = [(kind, value)], reason, False
        return self


class Judge:
    """Judges rows one at a time. `encoder` None: nothing about tokens is found out."""

    def __init__(self, layouts: Sequence[Layout], encoder: Any | None, wanted: Wanted) -> None:
        self.layouts = list(layouts)
        self.encoder = encoder
        self.wanted = wanted
        self._special = _special_tokens(encoder.tokenizer) if encoder else None
        if "special_tokens" not in wanted.kinds:
            self._special = None

    def __reduce__(self) -> Any:
        """For another process: what an encoder remembers stays here."""
        its = self.encoder
        parts = (type(its), its.tokenizer, its.train_on, its.documents) if its else None
        return _rebuild, (self.layouts, parts, self.wanted)

    @property
    def format(self) -> str:
        """The layout's name; of a mix, those of all parts."""
        return " + ".join(dict.fromkeys(layout.format.name for layout in self.layouts))

    def verdict(self, line: Line) -> Verdict:
        found = Verdict(line.position, line.number, line.file, line.part)
        if line.problem:
            return found.refuse(line.kind or "unreadable", line.problem, line.problem)
        if not self.layouts:
            kind, why = "mixed_layout", "its layout can't be told, as none of the first rows can be read"
            if not isinstance(line.row, Mapping):
                kind, why = "not_an_object", "the row should be an object with named columns"
            return found.refuse(kind, why, f"{why}: {told(line.row)}")
        try:
            example = to_example(line.row, self.layouts[line.part], self.wanted.system_prompt)
        except RowProblem as problem:
            return found.refuse(problem.kind, str(problem), f"{problem}: {told(line.row)}")
        try:
            return self._judge_example(found, example, line)
        except UnicodeEncodeError:
            why = "it holds half a character (a lone surrogate), which is no text"
            return found.refuse("encoding", why, f"{why}: {told(line.row)}")

    def _judge_example(self, found: Verdict, example: Example, line: Line) -> Verdict:
        wanted = self.wanted
        found.usable, found.type, found.conversational = True, example.type, example.conversational
        found.digest = wording.digest(example)  # first: it refuses text that a tokenizer would stumble over
        if self.encoder is not None and not self._encode(found, example):
            return found
        if wanted.shingles:
            found.shingles = wording.shingles(example)
        if wanted.stratum is not None:
            found.stratum = _stratum(line.row, wanted.stratum)
        found.problems += [problem for problem in self._content(example) if problem[0] in wanted.kinds]
        return found

    def _content(self, example: Example) -> list[tuple[str, str]]:
        found = []
        echo = wording.echo(example) if "answer_equals_prompt" in self.wanted.kinds else None
        if echo is not None:
            found.append(("answer_equals_prompt", echo))
        if self._special is None and not set(self.wanted.kinds) & set(pii.KINDS):
            return found
        text = "\n".join(wording.texts(example))
        special = self._special.search(text) if self._special else None
        if special:
            found.append(("special_tokens", special[0]))
        return [*found, *pii.find(text)]

    # -- tokens -------------------------------------------------------------------------------------------------------

    def _encode(self, found: Verdict, example: Example) -> bool:
        """Fill in what the row comes to as tokens; False where it can't be trained on."""
        assert self.encoder is not None
        answers: tuple[Encoded, ...]
        try:
            if self.wanted.shape == "prompts":
                example, answer = asked(example)
                answers = (self.encoder.encode(example),)
                found.words = (answers[0].text, answer)
            elif example.type == "preference":
                answers = self.encoder.encode_pair(example)
            else:
                answers = (self.encoder.encode(example),)
        except TemplateError as error:
            found.hint = error.hint
            found.refuse("template", error.message.rstrip("."), error.message)
            return False
        except RowProblem as problem:
            found.refuse(problem.kind, str(problem), str(problem))
            return False
        found.label = example.label
        if not all(self._take(found, encoded, example.type) for encoded in answers):
            return False
        limit = self.wanted.max_length
        if found.lost and self.wanted.shape == "scored":
            why = f"an answer ends beyond {limit} tokens (training.max_length), and it is judged by its end"
            found.refuse("too_long", why, f"{found.longest} tokens: {shorten(answers[0].text)}")
            return False
        if len(answers) == 2 and answers[0].ids[:limit] == answers[1].ids[:limit]:
            why = f"within {limit} tokens (training.max_length) both answers are the same"
            found.refuse("chosen_equals_rejected", why, f"{found.longest} tokens: {shorten(answers[0].text)}")
            return False
        if found.lost and "too_long" in self.wanted.kinds:
            longest = max(answers, key=lambda encoded: len(encoded.ids))
            found.problems.append(("too_long", f"{len(longest.ids)} tokens: {shorten(longest.text)}"))
        return True

    def _take(self, found: Verdict, encoded: Encoded, type: str) -> bool:
        """Count one answer's tokens, and keep them where they are wanted; False where nothing of it can be learnt."""
        limit, length = self.wanted.max_length, len(encoded.ids)
        carries = np.fromiter(encoded.loss, np.bool_, length)[:limit]
        if type == "prompt_only":
            if self.wanted.shape == "prompts" and length > limit:
                why = f"the question has over {limit} tokens (training.max_length)"
                found.refuse("prompt_fills_length", why, f"{length} tokens: {shorten(encoded.text)}")
                return False
        elif not carries[1:].any():  # the first token is never predicted, so loss on it alone teaches nothing
            why = f"the question fills all {limit} tokens (training.max_length)"
            if length <= limit:
                why = "none of its tokens carries loss"
            found.refuse("prompt_fills_length", why, f"{length} tokens: {shorten(encoded.text)}")
            return False
        found.length += length
        found.longest = max(found.longest, length)
        found.lost += max(0, length - limit)
        found.loss += int(carries.sum())
        if self.wanted.tokens:
            found.ids.append(np.fromiter(encoded.ids[:limit], np.int32, len(carries)))
            found.carries.append(carries)
        return True


def _rebuild(layouts: list[Layout], parts: tuple[Any, Any, str, bool] | None, wanted: Wanted) -> Judge:
    return Judge(layouts, parts[0](*parts[1:]) if parts else None, wanted)


def told(row: Any) -> str:
    """The beginning of a row, as JSON."""
    try:
        return json.dumps(row, ensure_ascii=False, default=str)[: 2 * LONGEST_EXAMPLE]
    except (ValueError, RecursionError):
        return str(type(row).__name__)


def _stratum(row: Any, column: str) -> str | None:
    value = row.get(column)
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str, sort_keys=True)


def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """What spells one of the model's special tokens."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = sorted({*tokenizer.all_special_tokens, *added} - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, names))) if names else None


assert set(CONTENT_KINDS) <= set(PROBLEMS)
