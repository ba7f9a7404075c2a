"""Which rows a method can learn from.

In: a method's name, a dataset's type in TRL's terms. Out: whether they fit, and in plain words why they don't.
"""

from __future__ import annotations

from studio.core.errors import DataError

_ANSWERS = ("language_modeling", "prompt_completion")
FITTING: dict[str, tuple[str, ...]] = {"sft": _ANSWERS}

_WHAT = {
    "language_modeling": "texts or whole conversations",
    "prompt_completion": "questions with one answer each",
    "preference": "pairs of a better and a worse answer",
    "unpaired_preference": "answers that are labelled good or bad",
    "prompt_only": "questions without answers",
}


def check_fit(type: str, method: str) -> None:
    """Raises DataError where `method` can't learn from rows of this dataset type."""
    fitting = FITTING[method]
    if type in fitting:
        return
    wanted = " or ".join(_WHAT[name] for name in fitting)
    hint = "Choose another dataset."
    if fitting == _ANSWERS and type in ("preference", "unpaired_preference"):
        hint = "Keep the good answers: `studio data convert DATASET --to messages`, or Shape on the Data tab."
    raise DataError(f"These rows hold {_WHAT[type]}; {method} learns from {wanted}.", hint)
