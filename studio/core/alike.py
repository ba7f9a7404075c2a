"""Other names that datasets give to the columns of our layouts.

In: a dataset's columns. Out: mappings (expected: yours) to propose to a person; never applied by themselves, since an
`answer` may be what the model is to say or what a reward compares with. Knows no layouts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

QUESTIONS = ("instruction", "question", "query", "problem", "prompt", "input")
ANSWERS = ("output", "answer", "response", "solution", "completion", "target")
_ALIKE = {
    "instruction": QUESTIONS,
    "output": ANSWERS,
    "messages": ("messages",),
    "conversations": ("conversations", "conversation", "dialogue", "dialog", "chat"),
    "text": ("text", "content", "document", "body"),
}
_BESIDE = {"input": ("context",), "system": ("system_prompt", "system_message")}  # what an instruction may have
_MEANT = (
    ("instruction", "chosen", "rejected"),
    ("instruction", "output"),
    ("messages",),
    ("conversations",),
    ("text",),
)


def found(columns: Iterable[str], names: tuple[str, ...]) -> str:
    """The first of the names that is a column, in the column's own spelling; "" where none is."""
    spelled = {str(column).strip().lower(): str(column) for column in columns}
    return next((spelled[name] for name in names if name in spelled), "")


def proposals(columns: Iterable[str]) -> Iterator[dict[str, str]]:
    """Every mapping that would give these columns the names of some layout, the likeliest first."""
    columns = list(columns)
    for needs in _MEANT:
        yours = {expected: found(columns, _ALIKE.get(expected, (expected,))) for expected in needs}
        if not all(yours.values()):
            continue
        beside = {expected: found(columns, names) for expected, names in _BESIDE.items() if "instruction" in needs}
        yours |= {expected: own for expected, own in beside.items() if own}
        yield {expected: own for expected, own in yours.items() if own != expected}
