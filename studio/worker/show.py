"""A row as trained on: its messages, its tokens, and which of them carry loss.

In: a dataset, a row's position, a model's name. Out: plain values, computed by the very functions that training calls.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.example import Example, RowProblem
from studio.core.formats import to_example
from studio.core.inputs import DatasetInput, ModelInput
from studio.core.rows import Line
from studio.worker.data.source import Source, layouts, open_source
from studio.worker.encode import Encoded, Encoder
from studio.worker.models import fetch, load_tokenizer
from studio.worker.tokentext import token_texts


def show_row(request: dict[str, Any], part: Any = None) -> dict[str, Any]:
    """Answers as `show`.

    Fields of the request: `dataset` and `model` (inputs as dicts), `section` (the config's dataset section),
    `position` (from 0; blank lines don't count), `max_length`.
    """

    def report(text: str, done: int | None, total: int | None) -> None:
        if part:
            part({"text": text, "done": done, "total": total})

    folder = fetch(ModelInput(**request["model"]), report)
    return show(
        DatasetInput.from_dict(request["dataset"]),
        DatasetSection(**request["section"]),
        _tokenizer(folder),
        int(request["position"]),
        int(request["max_length"]),
    )


@lru_cache(maxsize=4)
def _tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


def show(
    dataset: DatasetInput, section: DatasetSection, tokenizer: Any, position: int, max_length: int
) -> dict[str, Any]:
    """One row, counted from 0, as the trainer gets it.

    `ids`, `tokens`, `loss` and `special` are the whole row's; training sees the first `cut` of them. For a preference
    they are the chosen answer's, and `rejected` has the other's. Raises DataError for a row that there isn't or that
    can't be used, TemplateError where its loss can't be told.
    """
    source = open_source(dataset)
    line = _line(source, position)
    if line.problem:
        raise _unusable(line, "", line.problem)
    layout = layouts(section, source)[line.part]
    try:
        example = to_example(line.row, layout, section.system_prompt)
    except RowProblem as problem:
        raise _unusable(line, f" as {layout.format.name}", str(problem)) from None
    encoder = Encoder(tokenizer, section.train_on)
    pair = encoder.encode_pair(example) if example.type == "preference" else (encoder.encode(example),)
    shown = [_shown(encoder, encoded, max_length) for encoded in pair]
    answers = (example.chosen, example.rejected) if len(pair) == 2 else (example.completion,)
    told = [{"messages": _messages(example, answer)} | each for answer, each in zip(answers, shown, strict=True)]
    return {
        "position": line.position,
        "line": line.number,
        "where": line.where,
        "format": layout.format.name,
        "type": example.type,
        "tools": list(example.tools),
        "label": example.label,
        **told[0],
        "rejected": told[1] if len(told) == 2 else None,
    }


def _line(source: Source, position: int) -> Line:
    if position >= 0:
        found = source.page(position, 1)
        if not found:  # beyond what can be reached without an index, or beyond the end
            try:
                found = list(source.rows([position]))
            except IndexError:
                found = []
        if found:
            return found[0]
    raise DataError(f"{source.name} has no row {position}.", "Rows are counted from 0.")


def _unusable(line: Line, how: str, problem: str) -> DataError:
    return DataError(f"Line {line.where} can't be used{how}: {problem}.", "Mend it, or leave it out.", line.number)


def _messages(example: Example, answer: Any) -> list[dict[str, Any]]:
    """The conversation that ends with this answer; none where the row is plain text."""
    parts = (example.messages, example.prompt, answer)
    return [message for part in parts if isinstance(part, tuple) for message in part]


def _shown(encoder: Encoder, encoded: Encoded, max_length: int) -> dict[str, Any]:
    return {
        "text": encoded.text,
        "tokens": token_texts(encoder.tokenizer, encoded.ids, encoded.text),
        "ids": encoded.ids,
        "loss": encoded.loss,
        "special": encoder.special(encoded),
        "neutralised": encoded.neutralised,
        "cut": min(len(encoded.ids), max_length),
    }
