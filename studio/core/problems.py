"""Every kind of problem a row can have: its name, its title, how grave it is, and what to do.

In: nothing. Out: one table. An error means that the row can't be used: it is left out, counted and shown. A warning
means that it can be; `dataset.exclude` leaves such rows out. Knows no rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Problem:
    """One kind of problem; `title` and `help` are for people, `help` is one sentence."""

    kind: str
    title: str
    severity: Literal["error", "warning"]
    help: str


def _table(severity: Literal["error", "warning"], *kinds: tuple[str, str, str]) -> dict[str, Problem]:
    return {kind: Problem(kind, title, severity, help) for kind, title, help in kinds}


PROBLEMS: dict[str, Problem] = _table(
    "error",
    ("unreadable", "Line can't be read", "The line is not what its file type says: mend it in an editor."),
    ("encoding", "Not UTF-8", "The line holds bytes that are not UTF-8 text: save the file as UTF-8."),
    ("too_big", "Row too big", "The row is far beyond what a model can learn at once: split it into several."),
    ("not_an_object", "Not an object", "A row has to be an object with named columns."),
    ("missing_column", "Column missing", "The row lacks a column that its layout needs: name it by dataset.columns."),
    ("null", "Column is null", "The column stands in the row but holds nothing: fill it or leave the row out."),
    ("wrong_type", "Wrong type", "A column holds something other than its layout expects, such as a number for text."),
    ("mixed_layout", "Mixed layouts", "The row is laid out differently from the first ones: keep one layout a file."),
    ("empty_prompt", "Empty prompt", "There is nothing for the model to answer."),
    ("empty_answer", "Empty answer", "There is no answer for the model to learn."),
    ("unknown_role", "Unknown role", "A message is by a role that is not known: name it by dataset.tags."),
    ("role_order", "Roles out of order", "User and assistant have to take turns, after at most one system message."),
    ("no_assistant", "No assistant turn", "The conversation has no answer by the assistant to learn from."),
    ("chosen_equals_rejected", "Chosen equals rejected", "Two equal answers, or equal scores, tell no preference."),
    ("label_not_boolean", "Label is not true or false", "The label has to be true for a good answer, false for a bad."),
    ("bad_tool_call", "Tool call is no JSON", "A tool call, or the list of tools, can't be read as JSON of its shape."),
    ("template", "Template can't say it", "The model's chat template refuses the row, or can't show what it answers."),
    ("prompt_fills_length", "No room for the answer", "The prompt fills the whole length: raise max_length."),
) | _table(
    "warning",
    ("answer_equals_prompt", "Answer equals prompt", "The answer repeats the prompt: the model would learn to echo."),
    ("special_tokens", "Special tokens in text", "The text spells the model's special tokens: it is trained as text."),
    ("too_long", "Longer than max_length", "The row's end is cut off in training: raise max_length or leave it out."),
    ("duplicate", "Duplicate", "The same row stands there more than once: repeats are learned by heart."),
    ("near_duplicate", "Near duplicate", "The row is almost the same as an earlier one."),
    ("leak", "Also in validation", "The row stands in training and validation: the validation loss would flatter."),
    ("pii_email", "E-mail address", "The row seems to hold an e-mail address, which the model may repeat."),
    ("pii_phone", "Phone number", "The row seems to hold a phone number, which the model may repeat."),
    ("pii_card", "Card number", "The row seems to hold a payment card's number, which the model may repeat."),
    ("pii_key", "Key or password", "The row seems to hold a secret key, which the model may repeat."),
)
