"""The check of a dataset: one pass over everything, every kind of problem counted, with its first lines and an example.

In: a Source, the config's dataset section, a tokenizer where one is known. Out: a CheckReport; the positions of the
rows with each kind of problem go to the cache, for the preview to filter by. Nothing is changed: what is left out of
a run is the config's to say.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.core.config import DatasetSection
from studio.core.errors import DataError
from studio.core.inputs import DatasetInput, ModelInput
from studio.worker.data.examine import COMPARED, Examined, examine, layouts_of, no_rows
from studio.worker.data.judge import Judge, Wanted
from studio.worker.data.source import Progress, Source, Stopped, never, open_source, quiet, reporting


@dataclass(frozen=True)
class CheckReport:
    """What the check found. `findings`: the folder of `<kind>.npy` files of positions (uint64)."""

    format: str
    type: str
    conversational: bool
    found: Examined
    counted: bool  # whether there was a tokenizer to count tokens by
    max_length: int
    sha256: str
    seconds: float
    findings: Path

    @property
    def usable(self) -> int:
        """Rows without an error; those with a warning are among them."""
        return len(self.found.usable)

    def to_dict(self) -> dict[str, Any]:
        """As `studio data check --json` prints it."""
        found, tokens = self.found, self.found.tokens
        return {
            "format": self.format,
            "type": self.type,
            "conversational": self.conversational,
            "rows": found.rows,
            "usable": self.usable,
            "problems": found.findings.to_list(),
            "tokens": {
                "counted": self.counted,
                "total": tokens.total,
                "loss": tokens.loss,
                "longest": tokens.longest,
                "max_length": self.max_length,
                "rows_cut": tokens.cut_rows,
                "tokens_lost": tokens.lost,
                "rows_without_loss": found.findings.count("prompt_fills_length"),
            },
            "sha256": self.sha256,
            "seconds": round(self.seconds, 3),
        }


def check(
    source: Source,
    section: DatasetSection,
    *,
    tokenizer: Any = None,
    max_length: int = 1024,
    near: bool = True,
    validation: Source | None = None,
    progress: Progress = quiet,
    stopped: Stopped = never,
) -> CheckReport:
    """Look at every row (of the first `section.max_samples`). Without a tokenizer nothing about tokens is found.

    Raises DataError where there are no rows or no layout can be chosen, Cancelled.
    """
    began = time.monotonic()
    state = source.fingerprint()
    encoder = None
    if tokenizer is not None:
        from studio.worker.encode import Encoder

        encoder = Encoder(tokenizer, section.train_on)
    hashes = None
    if validation is not None:
        plain = Wanted(section.system_prompt, kinds=())
        judge = Judge(layouts_of(section, validation), None, plain)
        text = "Reading the validation rows"
        held = examine(validation, judge, compare=(), text=text, progress=progress, stopped=stopped)
        hashes = held.usable.hashes
    judge = Judge(layouts_of(section, source), encoder, Wanted(section.system_prompt, max_length, shingles=near))
    found = examine(
        source,
        judge,
        limit=section.max_samples,
        compare=COMPARED,
        validation=hashes,
        progress=progress,
        stopped=stopped,
    )
    if not found.rows:
        raise no_rows(source)
    sha256 = source.sha256(progress)
    if source.fingerprint() != state:
        raise DataError("The dataset changed while it was being read.", "Check it again once nothing writes to it.")
    folder = source.cache / "findings" / _key(section, tokenizer, max_length, near, validation)
    found.findings.save(folder)
    return CheckReport(
        format=judge.format,
        type=found.type or " + ".join(dict.fromkeys(layout.format.type for layout in judge.layouts)),
        conversational=found.conversational,
        found=found,
        counted=encoder is not None,
        max_length=max_length,
        sha256=sha256,
        seconds=time.monotonic() - began,
        findings=folder,
    )


def check_op(request: dict[str, Any], part: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Answers as `check`, with `findings`, the folder of positions.

    Fields of the request: `dataset`, `section`, `max_length`, and maybe `model` (null: no tokens), `near`,
    `validation` (a dataset).
    """

    report = reporting(part)
    held = request.get("validation")
    found = check(
        open_source(DatasetInput.from_dict(request["dataset"])),
        DatasetSection(**request["section"]),
        tokenizer=tokenizer_of(request.get("model"), report),
        max_length=int(request.get("max_length") or 1024),
        near=bool(request.get("near", True)),
        validation=open_source(DatasetInput.from_dict(held)) if held else None,
        progress=report,
    )
    return {**found.to_dict(), "findings": str(found.findings)}


def tokenizer_of(model: dict[str, Any] | None, report: Progress) -> Any:
    """The tokenizer of a model as requests name it; None for none. Raises ModelError."""
    if not model:
        return None
    from studio.worker.models import fetch, load_tokenizer

    return load_tokenizer(fetch(ModelInput(**model), report))


def _key(section: DatasetSection, tokenizer: Any, max_length: int, near: bool, validation: Source | None) -> str:
    """Names the findings: the same question has the same answer as long as the files are the same."""
    names = {"format", "columns", "tags", "system_prompt", "max_samples", "train_on"}
    asked = {
        **section.model_dump(mode="json", include=names),
        "model": [str(tokenizer.name_or_path), len(tokenizer), str(tokenizer.chat_template)] if tokenizer else None,
        "max_length": max_length if tokenizer else None,
        "near": near,
        "validation": validation.fingerprint() if validation else None,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:24]
