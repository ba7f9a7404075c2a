"""Dataset layouts: the table of all, how one is chosen for a dataset, and how a row of it becomes an Example.

In: rows as dicts, a run's and a dataset's choices. Out: a Layout; an Example, or a RowProblem that says what is wrong
with the row. A new layout is one entry of FORMATS and a sample. Knows no files, no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from studio.core import preference, supervised
from studio.core.alike import ANSWERS, QUESTIONS, found, proposals
from studio.core.cells import Row, opened
from studio.core.config import DatasetSection
from studio.core.conversation import OPENAI, ROLE_TAGS, SHAREGPT, TAGS
from studio.core.errors import DataError
from studio.core.example import Example, Message, RowProblem, Type
from studio.core.inputs import DatasetInput

__all__ = [
    "FORMATS",
    "Example",
    "Format",
    "Layout",
    "Message",
    "RowProblem",
    "choose_layout",
    "fitting",
    "opened_by",
    "recognise",
    "suggest",
    "to_example",
]


@dataclass(frozen=True)
class Format:
    """A layout: the columns it needs, those it also reads, TRL's dataset type, and the reading of a row.

    `beats` names layouts whose columns are among this one's: where all are there, this one is meant.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    type: Type
    example: Callable[[Row, Mapping[str, str]], Example]
    beats: tuple[str, ...] = ()


_CHAT = ("system", "tools")
_ASKED = ("input", "system", "history", "tools")
_PAIR = ("chosen", "rejected")

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        # language modelling: every answer is learned
        Format("messages", "Chat messages (OpenAI)",
               ("messages",), _CHAT, "language_modeling", supervised.messages),
        Format("sharegpt", "ShareGPT conversations",
               ("conversations",), _CHAT, "language_modeling", supervised.sharegpt),
        Format("alpaca", "Instruction and answer (Alpaca)",
               ("instruction", "output"), _ASKED, "language_modeling", supervised.alpaca),
        # a prompt, with its answer or without
        Format("prompt_completion", "Prompt and completion",
               ("prompt", "completion"), ("tools",), "prompt_completion", supervised.prompt_completion,
               beats=("prompt_only",)),
        Format("prompt_only", "Prompts without answers",
               ("prompt",), ("tools",), "prompt_only", supervised.prompt_only),
        # two answers to compare
        Format("preference", "Preference: chosen and rejected (DPO)",
               _PAIR, ("prompt", "tools"), "preference", preference.preference,
               beats=("prompt_only",)),
        Format("alpaca_preference", "Preference: instruction, chosen and rejected (LLaMA-Factory)",
               ("instruction", *_PAIR), _ASKED, "preference", preference.alpaca_preference,
               beats=("preference",)),
        Format("sharegpt_preference", "Preference: conversation, chosen and rejected (LLaMA-Factory)",
               ("conversations", *_PAIR), _CHAT, "preference", preference.sharegpt_preference,
               beats=("preference", "sharegpt")),
        Format("ultrafeedback", "Preference: instruction and scored answers (UltraFeedback)",
               ("instruction", "completions"), ("tools",), "preference", preference.ultrafeedback),
        # one answer, labelled good or bad
        Format("unpaired_preference", "Prompt, completion and label (KTO)",
               ("prompt", "completion", "label"), ("tools",), "unpaired_preference", preference.unpaired,
               beats=("prompt_completion", "prompt_only")),
        Format("alpaca_unpaired", "Instruction, answer and kto_tag (LLaMA-Factory)",
               ("instruction", "output", "kto_tag"), _ASKED, "unpaired_preference", preference.alpaca_unpaired,
               beats=("alpaca",)),
        Format("sharegpt_unpaired", "Conversation and kto_tag (LLaMA-Factory)",
               ("conversations", "kto_tag"), _CHAT, "unpaired_preference", preference.sharegpt_unpaired,
               beats=("sharegpt",)),
        Format("text", "Plain text",
               ("text",), (), "language_modeling", supervised.plain_text),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a dataset's rows are read: their format, the columns (expected: yours; "" for none) and tags that differ.

    `auto`: nobody named the format, so a row whose columns say another one is a problem, not a choice.
    """

    format: Format
    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    auto: bool = False


def _expected(columns: Iterable[Any], mapping: Mapping[str, str]) -> frozenset[str]:
    """The columns as layouts name them."""
    there = frozenset(map(str, columns)) - frozenset(mapping) - frozenset(mapping.values())
    return there | {expected for expected, yours in mapping.items() if yours}


@lru_cache(maxsize=1024)
def _fitting(present: frozenset[str]) -> tuple[Format, ...]:
    fit = {format.name: format for format in FORMATS.values() if present.issuperset(format.needs)}
    seen = {name: present.intersection((*format.needs, *format.reads)) for name, format in fit.items()}
    beaten = {loser for name in fit for loser in fit[name].beats if loser in fit and seen[loser] <= seen[name]}
    return tuple(format for name, format in fit.items() if name not in beaten)


def fitting(columns: Iterable[str], mapping: Mapping[str, str] | None = None) -> tuple[Format, ...]:
    """Every layout these columns could be read as, after `mapping` (expected: yours)."""
    return _fitting(_expected(columns, mapping or {}))


def suggest(columns: Iterable[str]) -> dict[str, str]:
    """A mapping (expected: yours) by which columns of other names would be one layout; {} where none is known.

    A proposal to show, never applied by itself.
    """
    columns = list(columns)
    return next((yours for yours in proposals(columns) if yours and len(fitting(columns, yours)) == 1), {})


def recognise(columns: Iterable[str], mapping: Mapping[str, str] | None = None) -> Format:
    """The one layout whose columns are all there, after `mapping` (expected: yours).

    Raises DataError when none fits (listing what is accepted) or several do (asking which).
    """
    columns = list(columns)
    fit = fitting(columns, mapping)
    other = _other_reading(columns, mapping or {}, fit[0]) if len(fit) == 1 else ""
    if len(fit) == 1 and not other:
        return fit[0]
    if fit:
        names = " or ".join([format.name for format in fit] + ([other] if other else []))
        raise DataError(f"These columns could be read as {names}.", "Say which by setting dataset.format.")
    accepted = "; ".join(f"{format.name}: {' + '.join(format.needs)}" for format in FORMATS.values())
    proposed = ", ".join(f"{expected}: {yours}" for expected, yours in suggest(columns).items())
    raise DataError(
        f"No known layout has the columns {', '.join(map(str, columns))[:300] or '(none)'}.",
        f"Accepted are {accepted}. Where only names differ, map them with dataset.columns"
        + (f", perhaps {proposed}." if proposed else "."),
    )


def _other_reading(columns: list[str], mapping: Mapping[str, str], fit: Format) -> str:
    """What else the columns might mean: a question or an answer of another name stands beside those of `fit`."""
    if fit.name == "prompt_only":
        beside = found(columns, ANSWERS)
    elif fit.name == "preference" and "prompt" not in _expected(columns, mapping):
        beside = found(columns, QUESTIONS)
    else:
        return ""
    proposed = suggest(columns) if beside and beside not in mapping.values() else {}
    if not proposed:
        return ""
    names = ", ".join(f"{expected}: {yours}" for expected, yours in proposed.items())
    return f"{fitting(columns, proposed)[0].name} (with dataset.columns {names})"


def choose_layout(section: DatasetSection, dataset: DatasetInput, first_row: Any) -> Layout:
    """What the run says, else what the dataset says, else what the first row's columns say.

    Raises DataError where they say nothing, or several things, or a format or tag has an unknown name.
    """
    named = section.format if section.format != "auto" else dataset.format
    columns = section.columns or dataset.columns
    tags = {tag: name for tag, name in (section.tags or dataset.tags).items() if name}
    if unknown := sorted(set(tags) - set(TAGS)):
        raise DataError(f"There is no tag {unknown[0]!r}.", f"Tags are {', '.join(TAGS)}.")
    spelled = [tags[tag] for tag in ROLE_TAGS if tag in tags]
    if twice := next((name for name in spelled if spelled.count(name) > 1), None):
        raise DataError(f"The tags give the name {twice!r} to two roles.", "Give every role a name of its own.")
    if named != "auto" and named not in FORMATS:
        raise DataError(f"There is no layout {named!r}.", f"Layouts are {', '.join(FORMATS)}.")
    if named == "auto" and not isinstance(first_row, Mapping):
        raise DataError("The first row is no object with named columns.", "Set dataset.format, or mend the file.")
    format = recognise(first_row, columns) if named == "auto" else FORMATS[named]
    return Layout(format, columns, tags or _spelled(format, columns, first_row), auto=named == "auto")


def _spelled(format: Format, columns: Mapping[str, str], first_row: Any) -> dict[str, str]:
    """Tags for messages that spell their keys as the other family does, such as `conversations` with role/content."""
    if not isinstance(first_row, Mapping):
        return {}
    usual, other = (SHAREGPT, OPENAI) if "conversations" in format.needs else (OPENAI, SHAREGPT)
    for column in (*format.needs, *format.reads):
        turns = opened(first_row.get(columns.get(column, column)))
        turn = turns[0] if isinstance(turns, (list, tuple)) and turns else turns
        if isinstance(turn, Mapping) and usual.role not in turn and {other.role, other.content} <= set(turn):
            return dict(_SHAREGPT_TAGS if other is SHAREGPT else _OPENAI_TAGS)
    return {}


def to_example(row: Any, layout: Layout, system: str | None = None) -> Example:
    """A row as an Example; `system` is put before conversations that open without a system message.

    Raises RowProblem.
    """
    if not isinstance(row, Mapping):
        raise RowProblem("not_an_object", "the row should be an object with named columns")
    columns = layout.columns
    if columns:
        own = {name: value for name, value in row.items() if name not in columns and name not in columns.values()}
        row = own | {expected: row[yours] for expected, yours in columns.items() if yours in row}
    _check_layout(row, layout)
    try:
        example = layout.format.example(row, layout.tags)
    except RowProblem as problem:
        named, _, rest = str(problem).partition(" ")
        if columns.get(named):
            raise RowProblem(problem.kind, f"{columns[named]} (as {named}) {rest}") from None
        raise
    except RecursionError:
        raise RowProblem("too_big", "the row is nested too deeply") from None
    return opened_by(example, system) if system else example


def _check_layout(row: Row, layout: Layout) -> None:
    """Whether the row's own columns say another layout than the dataset's.

    A row that lacks a column, and so looks like a layout that this one contains, is a row that lacks a column.
    """
    there = frozenset(name for name, value in row.items() if value is not None)
    if not layout.auto and there.issuperset(layout.format.needs):
        return
    if any(name in row and name not in there for name in layout.format.needs):
        return  # null, which is told as such
    names = [format.name for format in _fitting(there) if format.name not in layout.format.beats]
    if names not in ([], [layout.format.name]):
        raise RowProblem("mixed_layout", f"the columns are those of {' and '.join(names)}, not {layout.format.name}'s")


def opened_by(example: Example, system: str) -> Example:
    """The example with a system message before a conversation that has none."""
    message: Message = {"role": "system", "content": system}
    if example.messages and example.messages[0]["role"] != "system":
        return replace(example, messages=(message, *example.messages))
    if isinstance(example.prompt, tuple) and example.prompt[0]["role"] != "system":
        return replace(example, prompt=(message, *example.prompt))
    return example


_OPENAI_TAGS = {"role_tag": "role", "content_tag": "content"}
_SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
}
