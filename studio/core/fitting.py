"""Which rows a method can learn from, and what becomes of them.

In: a method's name, a dataset's type in TRL's terms. Out: whether they fit, and in plain words why they don't; the
shape that the method's rows have once they are tokens. Knows no files and no tokens.
"""

from __future__ import annotations

from typing import Literal

from studio.core.config import RunConfig
from studio.core.errors import DataError

# tokens: one text, with loss on some of it. pairs: a prompt and two answers. scored: the same, with all that the chat
# template writes behind an answer, as a reward is read at the text's end. labelled: a prompt, an answer, good or bad.
# prompts: a prompt that the model is to answer itself, and the answer that the row holds, if any.
RowShape = Literal["tokens", "pairs", "scored", "labelled", "prompts"]

_ANSWERS = ("language_modeling", "prompt_completion")
_PAIRS = ("preference",)
_ASKED = ("prompt_only", "prompt_completion", "language_modeling")
FITTING: dict[str, tuple[str, ...]] = {
    "sft": _ANSWERS,
    "pretrain": _ANSWERS,
    "distill": _ANSWERS,
    "dpo": _PAIRS,
    "orpo": _PAIRS,
    "cpo": _PAIRS,
    "reward": _PAIRS,
    "kto": ("unpaired_preference", "preference"),
    "grpo": _ASKED,
    "rloo": _ASKED,
    "online_dpo": _ASKED,
    "ppo": _ASKED,
}
SHAPES: dict[str, RowShape] = {
    **dict.fromkeys(("sft", "pretrain", "distill"), "tokens"),
    **dict.fromkeys(("dpo", "orpo", "cpo"), "pairs"),
    "reward": "scored",
    "kto": "labelled",
    **dict.fromkeys(("grpo", "rloo", "online_dpo", "ppo"), "prompts"),
}

_WHAT = {
    "language_modeling": "texts or whole conversations",
    "prompt_completion": "questions with one answer each",
    "preference": "pairs of a better and a worse answer",
    "unpaired_preference": "answers that are labelled good or bad",
    "prompt_only": "questions without answers",
}
_KEEP_GOOD = "Keep the good answers: `studio data convert DATASET --to messages`, or Shape on the Data tab."
# What to do with rows of a type that a method can't learn from, where there is something better than other rows.
_HINTS = {
    ("pairs", "language_modeling"): "Choose supervised fine-tuning (sft), or a dataset with chosen and rejected.",
    ("pairs", "prompt_completion"): "Choose supervised fine-tuning (sft), or a dataset with chosen and rejected.",
    ("pairs", "unpaired_preference"): "Choose kto, which learns from labelled answers.",
    ("labelled", "language_modeling"): "Choose supervised fine-tuning (sft), or a dataset with a label.",
    ("labelled", "prompt_completion"): "Choose supervised fine-tuning (sft), or a dataset with a label.",
    ("tokens", "preference"): _KEEP_GOOD,
    ("tokens", "unpaired_preference"): _KEEP_GOOD,
    ("tokens", "prompt_only"): "Choose grpo, whose answers come from the model, or a dataset with answers.",
    ("prompts", "preference"): "Choose dpo, which learns from pairs.",
    ("prompts", "unpaired_preference"): "Choose kto, which learns from labelled answers.",
}

WHOLE = 2**31 - 1  # longer than any row


def check_fit(type: str, method: str) -> None:
    """Raises DataError where `method` can't learn from rows of this dataset type."""
    fitting = FITTING[method]
    if type in fitting:
        return
    wanted = " or ".join(_WHAT[name] for name in fitting)
    shape = "pairs" if SHAPES[method] == "scored" else SHAPES[method]
    hint = _HINTS.get((shape, type), "Choose another dataset.")
    raise DataError(f"These rows hold {_WHAT[type]}; {method} learns from {wanted}.", hint)


def longest_row(config: RunConfig) -> int:
    """Tokens at which a row is cut: training.max_length, or nowhere where packing itself splits what is too long."""
    knobs = config.training
    splits = knobs.packing and knobs.packing_strategy in ("bfd_split", "wrapped")
    return WHOLE if splits and config.method.name in ("sft", "pretrain") else knobs.max_length
