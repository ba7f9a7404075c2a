"""A dataset, read, encoded and split: what goes into the trainer, and the count of everything that doesn't.

In: a DatasetInput, the config's dataset section, an Encoder, a method. Out: `datasets.Dataset`s in the columns that the
method's trainer looks for, mapped from files in the run's folder, and a DataReport. No row is dropped, cut or masked
without being counted. What is read and refused is the check's own doing (`examine`), so that a check says what a run
will find.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.config import DatasetSection
from studio.core.errors import DataError, TemplateError
from studio.core.fitting import SHAPES, check_fit
from studio.core.inputs import DatasetInput
from studio.worker.data.encoded import EncodedRows
from studio.worker.data.examine import COMPARED, Examined, examine, layouts_of
from studio.worker.data.exclusion import excluded, excluded_kinds, told_excluded
from studio.worker.data.judge import Judge, Wanted
from studio.worker.data.partition import TEST, TRAIN, VALIDATION
from studio.worker.data.report import DataReport
from studio.worker.data.source import Progress, Source, open_source, quiet
from studio.worker.data.split import Membership, split
from studio.worker.encode import Encoder

# Words of progress that count rows.
READING, READING_HELD = "Reading the dataset", "Reading the validation rows"


@dataclass
class Prepared:
    """The rows to train on and to validate on (None: none), in the columns of `encoded.SCHEMAS`.

    `state` names the files as they were when they were read.
    """

    train: Any
    validation: Any | None
    report: DataReport
    membership: Membership
    state: str = ""


def prepare(
    section: DatasetSection,
    dataset: DatasetInput,
    encoder: Encoder,
    *,
    max_length: int,
    seed: int,
    progress: Progress = quiet,
    validation: DatasetInput | None = None,
    folder: Path | None = None,
    method: str = "sft",
) -> Prepared:
    """Read, encode, cut and split a dataset; the encoded rows go to `folder` (None: to memory).

    `progress` may raise to end it. Raises DataError when no row is left to train on, TemplateError where that is the
    fault of the model's template.
    """
    kinds = excluded_kinds(section)
    report = DataReport()
    held, hashes = None, None
    if validation is not None:
        held, hashes = _validation(section, validation, encoder, report, max_length, progress, folder, method)
    source, state = _opened(dataset, method, section)
    report.sha256 = source.sha256(progress)
    wanted = _wanted(section, kinds, max_length, method)
    judge = Judge(layouts_of(section, source), encoder, wanted)
    report.format = judge.format
    compare = tuple(kind for kind in COMPARED if kind in kinds or (kind == "leak" and validation))
    with EncodedRows(folder, SHAPES[method]) as rows:
        found = examine(
            source,
            judge,
            limit=section.max_samples,
            compare=compare,
            validation=hashes,
            sink=rows.add,
            text=READING,
            progress=progress,
        )
        _check_unchanged(dataset, state)
        _tell(report, found)
        used = ~excluded(found, section, kinds)
        report.excluded, report.excluded_rows = told_excluded(found, section, kinds), int((~used).sum())
        if not used.any():
            raise _nothing_left(found, report, max_length)
        membership = split(section, found, used, seed)
        _tell_tokens(report, rows, used, membership)
        parts = np.full(len(used), 255, np.uint8)
        parts[used] = membership.part
        train = rows.choose(parts == TRAIN, "train")
        if held is None and report.validation:
            held = rows.choose(parts == VALIDATION, "validation")
    return Prepared(train, held, report, membership, state)


def has_changed(dataset: DatasetInput, state: str) -> bool:
    """Whether the dataset's files are others than when they were read as `state`."""
    try:
        return open_source(dataset).fingerprint() != state
    except DataError:
        return True


def _wanted(section: DatasetSection, kinds: list[str], max_length: int, method: str) -> Wanted:
    near = "near_duplicate" in kinds or section.group_duplicates == "near"
    return Wanted(
        system_prompt=section.system_prompt,
        max_length=max_length,
        kinds=tuple(kinds),
        shingles=near,
        tokens=True,
        shape=SHAPES[method],
        stratum=section.stratify_by,
    )


def _opened(dataset: DatasetInput, method: str, section: DatasetSection) -> tuple[Source, str]:
    source = open_source(dataset)
    for layout in layouts_of(section, source):
        check_fit(layout.format.type, method)
    return source, source.fingerprint()


def _check_unchanged(dataset: DatasetInput, state: str) -> None:
    if has_changed(dataset, state):
        raise DataError("The dataset changed while it was being read.", "Start again once nothing writes to it.")


def _validation(
    section: DatasetSection,
    dataset: DatasetInput,
    encoder: Encoder,
    report: DataReport,
    max_length: int,
    progress: Progress,
    folder: Path | None,
    method: str,
) -> tuple[Any, np.ndarray]:
    """The rows of a validation dataset of its own, and their hashes."""
    source, state = _opened(dataset, method, section)
    report.validation_sha256 = source.sha256(progress)
    shape = SHAPES[method]
    wanted = Wanted(section.system_prompt, max_length, (), tokens=True, shape=shape)
    judge = Judge(layouts_of(section, source), encoder, wanted)
    with EncodedRows(folder / "held" if folder else None, shape) as rows:
        found = examine(source, judge, compare=(), sink=rows.add, text=READING_HELD, progress=progress)
        _check_unchanged(dataset, state)
        report.validation_unusable = _unusable(found)
        report.validation = len(found.usable)
        if not report.validation:
            raise DataError(f"The validation dataset has 0 usable rows of {found.rows}.", "Look at it in the Data tab.")
        every = np.ones(report.validation, np.bool_)
        report.validation = int(rows.each.sum())
        return rows.choose(every, "validation"), found.usable.hashes


def _unusable(found: Examined) -> dict[str, dict[str, Any]]:
    return {kind: {**found.findings.told(kind), "reason": reason} for kind, reason in found.reasons.items()}


def _tell(report: DataReport, found: Examined) -> None:
    report.rows, report.usable = found.rows, len(found.usable)
    report.unusable = _unusable(found)
    report.without_loss = found.findings.count("prompt_fills_length")
    report.leaks = found.findings.count("leak")


def _tell_tokens(report: DataReport, rows: EncodedRows, used: np.ndarray, membership: Membership) -> None:
    part = np.full(len(used), 255, np.uint8)
    part[used] = membership.part
    sizes = [int(rows.each[part == each].sum()) for each in range(3)]
    report.train, report.test = sizes[TRAIN], sizes[TEST]
    report.validation = sizes[VALIDATION] or report.validation
    report.pairs_parted = int(np.count_nonzero(rows.each[used] == 2))
    trained = part == TRAIN
    report.cut = int(np.count_nonzero(rows.lost[used]))
    report.tokens_lost = int(rows.lost[used].sum())
    report.tokens = int(rows.lengths[trained].sum())
    report.loss_tokens = int(rows.loss[trained].sum())
    report.longest = int(rows.longest[used].max())


def _nothing_left(found: Examined, report: DataReport, max_length: int) -> Exception:
    if set(report.unusable) == {"template"} and not report.usable:
        return TemplateError(report.unusable["template"]["reason"] + ".", found.hint)
    why = ""
    if report.unusable:
        entry = next(iter(report.unusable.values()))
        why = f" Line {entry['lines'][0]}: {entry['reason']}."
    if report.excluded_rows:
        why += f" {report.excluded_rows} of {report.usable} are left out as dataset.exclude and exclude_rows ask."
    return DataError(f"The dataset has 0 usable rows of {found.rows}.{why}", "Look at it in the Data tab.")
