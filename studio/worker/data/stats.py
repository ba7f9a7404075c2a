"""What a dataset holds, in figures: lengths by part, what a cut costs, turns, languages, openings, an epoch's size.

In: a Source and the config's dataset section; a tokenizer, where lengths in tokens are wanted. Out: plain values,
ready for JSON and for pictures. One pass, in memory that doesn't grow with the rows: lengths are binned, openings are
counted while they are frequent, languages are told from rows drawn evenly. Tokens are those of the Encoder, which
training calls. Rows that can't be used are counted by kind of problem.
"""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from studio.core.config import DatasetSection, RunConfig, TrainingSection
from studio.core.example import Example, RowProblem
from studio.core.formats import to_example
from studio.core.inputs import DatasetInput, ModelInput
from studio.core.problems import PROBLEMS
from studio.core.schedule import optimizer_steps, split_sizes
from studio.worker.data.findings import Found, find
from studio.worker.data.languages import UNSPACED, language_of, main_script, scripts_of
from studio.worker.data.lengths import Lengths
from studio.worker.data.parts import answers_of, messages_of, parts_of
from studio.worker.data.source import (
    Cancelled,
    Progress,
    Source,
    Stopped,
    layouts,
    never,
    open_source,
    quiet,
    reporting,
)
from studio.worker.data.tokens import TokenCounts

_WORD_EVERY = 500  # rows between two words of progress
_SAMPLED = 10_000  # rows whose languages are told (4 s); a share of them is right to a percent
_READ = 600  # characters of each
_OPENINGS = 20
_REMEMBERED = 50_000  # different openings at a time
_ERRORS = {kind for kind, problem in PROBLEMS.items() if problem.severity == "error"}
_TURNS = 50  # longer conversations share a bar


def stats_op(request: dict[str, Any], part: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Answers as `stats`. Fields of the request: `dataset`, `section`, `model` (or null), `max_length`, `training`."""

    report = reporting(part)
    tokenizer = None
    if request.get("model"):
        from studio.worker.models import fetch, load_tokenizer

        tokenizer = load_tokenizer(fetch(ModelInput(**request["model"]), report))
    training = TrainingSection(**(request.get("training") or {}))
    max_length = int(request.get("max_length") or training.max_length)
    section = DatasetSection(**request["section"])
    source = open_source(DatasetInput.from_dict(request["dataset"]))
    found = None
    if section.exclude:
        found = find(source, section, section.exclude, tokenizer=tokenizer, max_length=max_length, progress=report)
    return stats(
        source,
        section,
        tokenizer=tokenizer,
        max_length=max_length,
        training=training,
        found=found,
        progress=report,
    )


def stats(
    source: Source,
    section: DatasetSection,
    *,
    tokenizer: Any = None,
    max_length: int = 1024,
    training: TrainingSection | None = None,
    found: Found | None = None,
    progress: Progress = quiet,
    stopped: Stopped = never,
) -> dict[str, Any]:
    """The whole dataset's figures, as JSON has them; `tokens` is null without a tokenizer.

    They are those of the `counted` rows: all but `left_out`, which are those that can't be used or that the section
    leaves out, by kind of problem.
    `found`: where the kinds in `section.exclude` were found. Raises DataError, Cancelled.
    """
    began = time.monotonic()
    words = _Words()
    tokens = TokenCounts(tokenizer, section.train_on, max_length) if tokenizer is not None else None
    left_out: Counter[str] = Counter()
    rows = 0
    for rows, example in enumerate(_examples(source, section, found), start=1):
        if rows % _WORD_EVERY == 0:
            progress("Rows counted", rows, source.total)
            if stopped():
                raise Cancelled()
        if isinstance(example, str):
            left_out[example] += 1
        elif tokens is None or tokens.add(example):
            words.add(example)
        else:
            left_out["template"] += 1
    progress("Telling the languages", rows, rows)
    return {
        "format": ", ".join(dict.fromkeys(layout.format.name for layout in layouts(section, source))),
        "rows": rows,
        "usable": rows - sum(left_out[kind] for kind in left_out if kind in _ERRORS),
        "counted": words.rows,
        "left_out": dict(left_out.most_common()),
        **words.result(),
        "tokens": tokens.result() if tokens else None,
        "epoch": _epoch(section, training or TrainingSection(), max_length, words.rows, tokens),
        "seconds": round(time.monotonic() - began, 3),
    }


def _examples(source: Source, section: DatasetSection, found: Found | None) -> Iterator[Example | str]:
    """Each row as an Example, or the kind of problem for which it is left out."""
    chosen = layouts(section, source)
    excluded = set(section.exclude_rows)
    for line in islice(source.iterate(), section.max_samples):
        if line.position in excluded:
            yield "exclude_rows"
        elif line.problem:
            yield line.kind
        elif found is not None and (kind := found.kind_of(line.position, section.exclude or ())):
            yield kind
        else:
            try:
                yield to_example(line.row, chosen[line.part], section.system_prompt)
            except RowProblem as problem:
                yield problem.kind


class _Words:
    """What can be told without a tokenizer."""

    def __init__(self) -> None:
        self.rows = 0
        self.types: Counter[str] = Counter()
        self.characters = {name: Lengths() for name in ("prompt", "answer", "rejected", "whole")}
        self.turns: Counter[int] = Counter()
        self.roles: Counter[str] = Counter()
        self.labels: Counter[bool] = Counter()
        self.openings = _Frequent()
        self.sample = _Sample()

    def add(self, example: Example) -> None:
        self.rows += 1
        self.types[example.type] += 1
        parts = parts_of(example)
        for name, text in (("prompt", parts.prompt), ("answer", parts.answer), ("rejected", parts.rejected)):
            if text:
                self.characters[name].add(len(text))
        self.characters["whole"].add(len(parts.prompt) + len(parts.answer) + len(parts.rejected))
        roles = [str(message["role"]) for message in messages_of(example)]
        self.roles.update(roles)
        self.turns[min(len(roles) - roles.count("system"), _TURNS) if roles else _plain_turns(example)] += 1
        if example.label is not None:
            self.labels[example.label] += 1
        for answer in answers_of(example):
            self.openings.add(_opening(answer))
        self.sample.add((parts.answer or parts.prompt)[:_READ])

    def result(self) -> dict[str, Any]:
        languages = Counter(language_of(text) for text in self.sample.texts)
        scripts: Counter[str] = Counter()
        for text in self.sample.texts:
            scripts.update(scripts_of(text))
        return {
            "type": ", ".join(name for name, _ in self.types.most_common()),
            "characters": {name: lengths.summary() for name, lengths in self.characters.items() if lengths.count},
            "turns": {str(turns): rows for turns, rows in sorted(self.turns.items())},
            "roles": dict(self.roles.most_common()),
            "labels": {str(key).lower(): count for key, count in self.labels.items()} if self.labels else None,
            "openings": self.openings.shares(_OPENINGS),
            "languages": _shares(languages),
            "scripts": _shares(scripts),
            "languages_told_from": len(self.sample.texts),
        }


def _plain_turns(example: Example) -> int:
    """A plain text is one turn; a prompt without an answer too."""
    return 2 if example.completion is not None or example.chosen is not None else 1


def _opening(answer: str) -> str:
    """Its first three words; its first eight characters where words aren't kept apart by spaces."""
    start = answer[:200].split(None, 3)[:3]
    if start and main_script(start[0]) in UNSPACED:
        return answer.strip()[:8]
    return " ".join(start)


class _Frequent:
    """Counts texts in bounded memory: when too many are different, the rarer half is forgotten, and that is said."""

    def __init__(self) -> None:
        self.all = 0
        self.exact = True
        self._counts: Counter[str] = Counter()

    def add(self, text: str) -> None:
        self.all += 1
        self._counts[text] += 1
        if len(self._counts) > _REMEMBERED:
            self.exact = False
            self._counts = Counter(dict(self._counts.most_common(_REMEMBERED // 2)))

    def shares(self, most: int) -> list[dict[str, Any]]:
        """The most frequent; `exact` is false where some of their counts may have been forgotten."""
        return [
            {"words": text, "count": count, "share": round(count / self.all, 6), "exact": self.exact}
            for text, count in self._counts.most_common(most)
        ]


class _Sample:
    """Texts drawn so that each is as likely as any other (Vitter 1985, algorithm R); the same each time."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._seen = 0
        self._chance = random.Random(0)

    def add(self, text: str) -> None:
        self._seen += 1
        if len(self.texts) < _SAMPLED:
            self.texts.append(text)
        elif (place := self._chance.randrange(self._seen)) < _SAMPLED:
            self.texts[place] = text


def _epoch(
    section: DatasetSection, training: TrainingSection, max_length: int, usable: int, tokens: TokenCounts | None
) -> dict[str, Any]:
    """Steps and tokens of an epoch and of the run. What packing saves is estimated: rows are taken to fill up."""
    if tokens is not None:
        usable -= tokens.cuts.at(max_length)["rows_without_loss"]
    apart = {"validation_split": 0.0} if section.validation_path else {}
    train = split_sizes(section.model_copy(update=apart), usable).train if usable > 0 else 0
    share = train / usable if usable > 0 else 0.0
    computed = train
    if training.packing and tokens is not None:
        computed = math.ceil(tokens.kept * share / max_length)
    config = RunConfig(training=training)
    once = RunConfig(training=training.model_copy(update={"num_train_epochs": 1.0, "max_steps": None}))
    return {
        "train_rows": train,
        "steps": optimizer_steps(once, computed) if train else 0,
        "run_steps": optimizer_steps(config, computed) if train else 0,
        "tokens": round(tokens.kept * share) if tokens else None,
        "loss_tokens": round(tokens.kept_loss * share) if tokens else None,
        "estimated": training.packing or (share < 1.0),
    }


def _shares(counts: Counter[str]) -> list[dict[str, Any]]:
    whole = counts.total()
    return [{"name": name, "count": n, "share": round(n / whole, 6)} for name, n in counts.most_common()]
