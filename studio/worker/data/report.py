"""What became of a dataset's rows in a run, kept beside it as data.json.

In: counts, as the preparation finds them. Out: sentences for a person, and the refusal to resume on other data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio.core.errors import DataError
from studio.core.problems import PROBLEMS
from studio.worker.data.exclusion import ROWS

FILE = "data.json"


@dataclass
class DataReport:
    """What became of the rows.

    `usable` rows have no error; of these, `excluded_rows` were left out as the config asks, and the others went to
    train, validation and test (whose positions are in split.npz). `unusable` and `excluded` map a kind of problem to
    its count, its first line numbers and, for errors, the reason; a row may be excluded for several. `cut` and
    `tokens_lost` are of the rows that are used; `tokens` and `loss_tokens` of train. `pairs_parted` pairs of answers
    became two rows each, which train, validation and test count.
    """

    format: str = ""
    sha256: str = ""
    rows: int = 0
    usable: int = 0
    excluded_rows: int = 0
    train: int = 0
    validation: int = 0
    test: int = 0
    cut: int = 0
    tokens_lost: int = 0
    without_loss: int = 0
    tokens: int = 0
    loss_tokens: int = 0
    longest: int = 0
    leaks: int = 0
    pairs_parted: int = 0
    validation_sha256: str = ""
    unusable: dict[str, dict[str, Any]] = field(default_factory=dict)
    excluded: dict[str, dict[str, Any]] = field(default_factory=dict)
    validation_unusable: dict[str, dict[str, Any]] = field(default_factory=dict)

    def notes(self, max_length: int) -> Iterator[str]:
        """A sentence for everything that a person should know."""
        for kind, entry in self.unusable.items():
            yield f"{_rows(entry['count'])} left out ({_title(kind)}; {_lines(entry)}): {entry['reason']}."
        for kind, entry in self.excluded.items():
            what = "named in dataset.exclude_rows" if kind == ROWS else f"{_title(kind)}, as dataset.exclude asks"
            yield f"{_rows(entry['count'])} left out ({what}; {_lines(entry)})."
        for kind, entry in self.validation_unusable.items():
            what = f"{_title(kind)}; {_lines(entry)}"
            yield f"{_rows(entry['count'])} left out of the validation rows ({what}): {entry['reason']}."
        if self.cut:
            have = "row has" if self.cut == 1 else "rows have"
            was = "was" if self.cut == 1 else "were"
            yield f"{self.cut} {have} over {max_length} tokens and {was} cut; {self.tokens_lost} tokens are lost."
        if self.pairs_parted:
            each = "1 pair of answers" if self.pairs_parted == 1 else f"{self.pairs_parted} pairs of answers"
            yield f"{each} became two rows each: the better answer a good one, the worse a bad one."
        if self.leaks and "leak" not in self.excluded:
            stand = "row stands" if self.leaks == 1 else "rows stand"
            yield f"{self.leaks} {stand} in the validation rows too, so the validation loss flatters."


def _rows(count: int) -> str:
    return "1 row was" if count == 1 else f"{count} rows were"


def _title(kind: str) -> str:
    title = PROBLEMS[kind].title
    return title[0].lower() + title[1:]


def _lines(entry: dict[str, Any]) -> str:
    lines = ", ".join(map(str, entry["lines"]))
    return f"line {lines}{'…' if entry['count'] > len(entry['lines']) else ''}"


def check_same_data(folder: Path, report: DataReport) -> None:
    """Keep the report beside the run; a resumed run must find the data it began with. Raises DataError."""
    path = folder / FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        now = asdict(report)
        names = ("sha256", "validation_sha256", "format", "train", "validation", "tokens")
        differing = [name for name in names if before.get(name, now[name]) != now[name]]
        if differing:
            what = "; ".join(f"{name} was {before.get(name)}, is {now[name]}" for name in differing)
            raise DataError(
                f"The dataset has changed since this run began ({what}).", "Put it back as it was, or start a new run."
            )
        return
    path.write_text(json.dumps(asdict(report), ensure_ascii=False, indent=1), encoding="utf-8")
