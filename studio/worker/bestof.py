"""Several answers to a question, and a reward model's word on which is best: in a chat, and to make preference data.

In: a loaded ChatModel, a reward model. Out: the answers with their scores; a new dataset of the best and the worst of
each question's answers. What a reward model is, isn't known here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection
from studio.core.configfile import to_yaml
from studio.core.errors import DataError, ModelError
from studio.core.example import Example, RowProblem, asked
from studio.core.formats import to_example
from studio.core.inputs import DatasetInput, ExtraModel, ModelInput
from studio.worker.chat import ChatModel
from studio.worker.data.newfolder import published
from studio.worker.data.rowfile import RowWriter
from studio.worker.data.source import layouts, open_source, reporting
from studio.worker.trainers.scoring import Scorer

_AT_ONCE = 32  # answers that are written at once


@dataclass(frozen=True)
class Sampled:
    """An answer, what the reward model gives it, its tokens."""

    text: str
    score: float
    tokens: int


class BestOf:
    """Draws answers from `chat`'s model and has them judged. The reward model stays loaded until another is asked."""

    def __init__(self, chat: ChatModel) -> None:
        self.chat = chat
        self._scorer: Scorer | None = None
        self._loaded: Any = None

    def load(self, reward: dict[str, Any], part: Any) -> None:
        """`reward`: an ExtraModel as a dict. Raises ModelError where it reads other tokens than the chat's model."""
        if self.chat.setup is None:
            raise ModelError("No model is loaded.", "Choose one first.")
        wanted = (reward, id(self.chat.tokenizer))
        if wanted != self._loaded:
            self._scorer = self._loaded = None
            extra = ExtraModel(ModelInput(**reward["model"]), reward.get("adapter"))
            part({"text": "Loading the reward model", "done": None, "total": None})
            self._scorer = Scorer(extra, self.chat.setup, self.chat.tokenizer, reporting(part))
            self._loaded = wanted

    def answer(self, request: dict[str, Any], part: Any) -> dict[str, Any]:
        """Fields: `conversation`, `reward`, `samples`, and those of generate. Gives `answers`, the best one first."""
        self.load(request["reward"], part)
        question = Example(prompt=tuple(request["conversation"]))
        (found,) = self.samples([question], int(request["samples"]), request)
        best = sorted(found, key=lambda one: -one.score)
        return {"answers": [{"text": one.text, "score": one.score, "tokens": one.tokens} for one in best]}

    def samples(self, questions: Sequence[Example], count: int, request: dict[str, Any]) -> list[list[Sampled]]:
        """`count` answers to each question, in the order in which they were drawn."""
        assert self._scorer is not None
        drawn = self.chat.sample([question for question in questions for _ in range(count)], request)
        scores = self._scorer(prompt_ids=[ids for ids, _ in drawn], completion_ids=[ids for _, ids in drawn])
        texts = [self.chat.tokenizer.decode(ids, skip_special_tokens=True).strip() for _, ids in drawn]
        found = [
            Sampled(text, float(score or 0.0), len(ids))
            for text, score, (_, ids) in zip(texts, scores, drawn, strict=True)
        ]
        return [found[start : start + count] for start in range(0, len(found), count)]

    def prefer(self, request: dict[str, Any], part: Any) -> dict[str, Any]:
        """Write a dataset of pairs: the best and the worst of several answers to each question of another.

        Fields: `dataset`, `section`, `reward`, `samples`, `out` (a new folder), `most` questions (None: all), and those
        of generate. Questions whose answers are all alike are left out and counted, as are rows that ask nothing.
        """
        self.load(request["reward"], part)
        source = open_source(DatasetInput.from_dict(request["dataset"]))
        counts = {"read": 0, "unusable": 0, "alike": 0}
        report, samples, out = reporting(part), int(request["samples"]), Path(request["out"])
        total = min(filter(None, (source.total, request.get("most"))), default=None)
        seed = request.get("seed")
        with published(out) as staging, RowWriter(staging / "rows.jsonl") as rows:
            questions = _questions(source, DatasetSection(**request["section"]), request.get("most"), counts)
            for number, group in enumerate(_groups(questions, max(1, _AT_ONCE // samples))):
                report("Writing and judging answers", counts["read"], total)
                drawn = {**request, "seed": None if seed is None else seed + number}
                for question, found in zip(group, self.samples(group, samples, drawn), strict=True):
                    pair = _pair(question, found)
                    counts["alike"] += pair is None
                    if pair is not None:
                        rows.write(pair)
            if not rows.count:
                raise DataError(
                    "No question got two answers of different worth.", "Raise the temperature or --samples."
                )
            told = {"rows": rows.count, **counts, "samples": samples}
            settings = {name: request.get(name) for name in ("temperature", "top_p", "max_new_tokens", "seed")}
            names = {name: request.get(f"{name}_name") for name in ("dataset", "model", "reward")}
            (staging / "prefer.yaml").write_text(to_yaml({**names, **settings, **told}), encoding="utf-8")
        return {"path": str(out), **told}


def _questions(source: Any, section: DatasetSection, most: int | None, counts: dict[str, int]) -> Iterator[Example]:
    each = layouts(section, source)
    for line in source.iterate():
        if most is not None and counts["read"] >= most:
            return
        counts["read"] += 1
        try:
            if line.problem:
                raise RowProblem(line.kind or "unreadable", line.problem)
            yield asked(to_example(line.row, each[line.part], section.system_prompt))[0]
        except RowProblem:
            counts["unusable"] += 1


def _groups(questions: Iterator[Example], size: int) -> Iterator[list[Example]]:
    group: list[Example] = []
    for question in questions:
        group.append(question)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _pair(question: Example, found: Sequence[Sampled]) -> dict[str, Any] | None:
    """The best and the worst answer in the layout `preference`; None where nothing tells them apart."""
    usable = [one for one in found if one.text and math.isfinite(one.score)]
    best = max(usable, key=lambda one: one.score, default=None)
    worst = min(usable, key=lambda one: one.score, default=None)
    if best is None or worst is None or best.score == worst.score or best.text == worst.text:
        return None

    def said(text: str) -> Any:
        return [{"role": "assistant", "content": text}] if question.conversational else text

    prompt = list(question.prompt) if isinstance(question.prompt, tuple) else question.prompt
    row = {"prompt": prompt, "chosen": said(best.text), "rejected": said(worst.text)}
    scores = {"score_chosen": round(best.score, 6), "score_rejected": round(worst.score, 6)}
    return {**row, **scores, **({"tools": list(question.tools)} if question.tools else {})}
