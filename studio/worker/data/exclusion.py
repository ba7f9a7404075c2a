"""Rows that could be used and are left out, as the config asks: by kind of problem, or one by one.

In: the dataset section, what a pass over the rows found. Out: which of the usable rows, and for a report how many of
each kind. What is left out is never more than what is counted here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from studio.core.config import DatasetSection
from studio.core.problems import PROBLEMS
from studio.worker.data.examine import Examined
from studio.worker.data.problems import TOLD

ROWS = "exclude_rows"  # stands beside the kinds for rows that were named one by one
NEED_MODEL = {"special_tokens", "too_long"}  # told only under a model's tokenizer


def excluded_kinds(section: DatasetSection) -> list[str]:
    """The kinds of problems whose rows are left out besides those that can't be used, in the table's order."""
    return [kind for kind in PROBLEMS if kind in (section.exclude or ()) and PROBLEMS[kind].severity == "warning"]


def excluded(found: Examined, section: DatasetSection, kinds: list[str]) -> np.ndarray:
    """Which of the usable rows are left out (a mask)."""
    positions = found.usable.positions
    return _named(found, section) | np.isin(positions, found.findings.union(kinds))


def told_excluded(found: Examined, section: DatasetSection, kinds: list[str]) -> dict[str, dict[str, Any]]:
    """Kind -> how many rows are left out for it, and the first line numbers; ROWS are those named one by one."""
    counted = {kind: found.findings.told(kind) for kind in kinds if found.findings.count(kind)}
    named = found.usable.positions[_named(found, section)]
    if len(named):
        lines = [found.usable.where(int(position)) for position in named[:TOLD]]
        counted[ROWS] = {"count": len(named), "lines": lines}
    return counted


def _named(found: Examined, section: DatasetSection) -> np.ndarray:
    return np.isin(found.usable.positions, np.array(section.exclude_rows, np.uint64))
