"""How many rows a run learns from and how many steps it takes: the same answer for the form and for the worker.

In: a config and a number of rows. Out: counts. Knows no files and no tokens: packing, which depends on them, is aside.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from studio.core.config import DatasetSection, RunConfig
from studio.core.fitting import SHAPES
from studio.core.sections.reinforcement import rows_a_question


class Split(NamedTuple):
    """Rows to learn from, to validate on, and set aside for testing."""

    train: int
    validation: int
    test: int


def split_sizes(section: DatasetSection, rows: int) -> Split:
    """How `rows` usable rows are shared out: below 1 by share, from 1 on by count, leaving at least one to learn from.

    A part that is asked for is at least one row, if one can be spared. Where validation rows have a dataset of their
    own, none are taken from this one. Groups and categories that are kept together may make parts smaller.
    """

    def size(part: float, of: int) -> int:
        wanted = round(part * of) if part < 1 else int(part)
        return min(max(wanted, 1), of - 1) if part > 0 and of > 1 else 0

    test = size(section.test_split, rows)
    validation = 0 if section.validation_path else size(section.validation_split, rows - test)
    return Split(rows - test - validation, validation, test)


def optimizer_steps(config: RunConfig, rows: int) -> int:
    """Optimizer steps of a whole run over `rows` rows; as in transformers, `max_steps` overrules the epochs."""
    knobs = config.training
    if SHAPES[config.method.name] == "prompts":
        return knobs.max_steps or _answering_steps(config, rows, rows_a_question(config.method))
    batches = math.ceil(rows / knobs.per_device_train_batch_size)
    steps = math.ceil(math.ceil(batches / knobs.gradient_accumulation_steps) * knobs.num_train_epochs)
    return knobs.max_steps or max(steps, 1)


def _answering_steps(config: RunConfig, rows: int, answers: int) -> int:
    """Where the model answers: a step takes as many questions as it has room for with all their answers; those that
    don't fill one are left out, as TRL's sampler does.
    """
    knobs = config.training
    questions = knobs.per_device_train_batch_size * knobs.gradient_accumulation_steps // answers
    uses = int(getattr(config.method, "num_iterations", 0) or getattr(config.method, "num_ppo_epochs", 1))
    return max(1, math.ceil((rows // max(questions, 1)) * uses * knobs.num_train_epochs))
