"""A row as trained on: its messages, its tokens, and which of them carry loss.

In: a dataset, a row's number, a model's name. Out: plain values, computed by the very functions that training calls.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.formats import RowProblem, to_example
from studio.core.inputs import DatasetInput, ModelInput
from studio.worker.data import choose_format, open_rows
from studio.worker.encode import Encoder
from studio.worker.models import fetch, load_tokenizer


def show_row(request: dict[str, Any], part: Any = None) -> dict[str, Any]:
    """Answers as `show`.

    Fields of the request: `dataset` and `model` (inputs as dicts), `section` (the config's dataset section), `row`
    (from 0; blank lines don't count), `max_length`.
    """

    def report(text: str, done: int | None, total: int | None) -> None:
        if part:
            part({"text": text, "done": done, "total": total})

    folder = fetch(ModelInput(**request["model"]), report)
    return show(
        DatasetInput(**request["dataset"]),
        DatasetSection(**request["section"]),
        _tokenizer(folder),
        int(request["row"]),
        int(request["max_length"]),
    )


@lru_cache(maxsize=4)
def _tokenizer(folder: Path) -> Any:
    return load_tokenizer(folder)


def show(dataset: DatasetInput, section: DatasetSection, tokenizer: Any, row: int, max_length: int) -> dict[str, Any]:
    """One row, `row` counted from 0, as the trainer gets it.

    `ids`, `tokens` and `loss` are the whole row's; training sees the first `cut` of them. Raises DataError for a row
    that there isn't or that can't be used, TemplateError where its loss can't be told.
    """
    line = next(islice(open_rows(dataset), row, None), None) if row >= 0 else None
    if line is None:
        raise DataError(f"{Path(dataset.path).name} has no row {row}.", "Rows are counted from 0.")
    if line.problem:
        raise DataError(f"Line {line.number} can't be used: {line.problem}.", "Mend it, or leave it out.", line.number)
    layout, columns = choose_format(section, dataset, line.row)
    try:
        example = to_example(line.row, layout, columns, section.system_prompt)
    except RowProblem as problem:
        raise DataError(
            f"Line {line.number} can't be used as {layout.name}: {problem}.", "Mend it, or leave it out.", line.number
        ) from None
    encoded = Encoder(tokenizer, section.train_on).encode(example)
    return {
        "line": line.number,
        "format": layout.name,
        "messages": list(example.messages),
        "text": encoded.text,
        "tokens": [tokenizer.decode([token]) for token in encoded.ids],
        "ids": encoded.ids,
        "loss": encoded.loss,
        "cut": min(len(encoded.ids), max_length),
    }
