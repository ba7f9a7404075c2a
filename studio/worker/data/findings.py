"""Rows with certain kinds of problems, by position: what a recipe or a section leaves out.

In: a Source, a section, the kinds. Out: Found. The pass is the check's own, so that what is left out is what the check
shows. Without a tokenizer the kinds that only a model tells are not found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from studio.core.config import DatasetSection
from studio.core.inputs import DatasetInput
from studio.worker.data.examine import COMPARED, examine
from studio.worker.data.judge import Judge, Wanted
from studio.worker.data.source import Progress, Source, Stopped, layouts, never, open_source, quiet

# Kinds of problems that are told only under a model.
NEED_MODEL = frozenset({"template", "prompt_fills_length", "special_tokens", "too_long"})


class Found:
    """Which rows have which problem: 8 bytes a finding."""

    def __init__(self, positions: Mapping[str, np.ndarray]) -> None:
        self._positions = {kind: np.sort(np.asarray(found, np.uint64)) for kind, found in positions.items()}

    def kind_of(self, position: int, kinds: Sequence[str]) -> str:
        """The first of `kinds` that the row has; "" where it has none."""
        for kind in kinds:
            found = self._positions.get(kind)
            if found is not None:
                at = int(np.searchsorted(found, np.uint64(position)))
                if at < len(found) and int(found[at]) == position:
                    return kind
        return ""


def find(
    source: Source,
    section: DatasetSection,
    kinds: Sequence[str],
    *,
    tokenizer: Any = None,
    max_length: int = 1024,
    validation: DatasetInput | None = None,
    progress: Progress = quiet,
    stopped: Stopped = never,
) -> Found:
    """A pass over all rows for these kinds; `leak` compares with `validation`. Raises DataError, Cancelled."""
    encoder = None
    if tokenizer is not None:
        from studio.worker.encode import Encoder

        encoder = Encoder(tokenizer, section.train_on)
    wanted = Wanted(
        system_prompt=section.system_prompt,
        max_length=max_length,
        kinds=tuple(kinds),
        shingles="near_duplicate" in kinds,
    )
    hashes = None
    if validation is not None and "leak" in kinds:
        held = open_source(validation)
        judge = Judge(layouts(section, held), None, Wanted(system_prompt=section.system_prompt, kinds=()))
        hashes = examine(held, judge, compare=(), progress=progress, stopped=stopped).usable.hashes
    found = examine(
        source,
        Judge(layouts(section, source), encoder, wanted),
        limit=section.max_samples,
        compare=tuple(kind for kind in COMPARED if kind in kinds),
        validation=hashes,
        text="Looking for problems",
        progress=progress,
        stopped=stopped,
    )
    return Found({kind: found.findings.positions(kind) for kind in kinds})
