"""What each step of a recipe does to a row.

In: a Recipe's steps, the layouts they start from, what a check found. Out: functions that keep a row, change it, or
say why it goes. Filters see a row through `parts`, scores in its columns. Knows no files; which rows are drawn in a
sample is told to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.core import recipe as steps
from studio.core.convert import targets, to_row
from studio.core.errors import ConfigError, TemplateError
from studio.core.example import Example, RowProblem
from studio.core.formats import FORMATS, Layout, opened_by
from studio.worker.data.findings import Found
from studio.worker.data.languages import known_languages, language_of, main_script
from studio.worker.data.parts import Parts, parts_of

PATIENCE = 0.25  # seconds that a pattern may take on one row
FORGIVEN = 20  # rows on which it may take longer, before it is refused

# Columns that belong to layouts: left over after a row was written in another one, they would make it ambiguous.
_LAYOUT_COLUMNS = frozenset(name for layout in FORMATS.values() for name in (*layout.needs, *layout.reads))


@dataclass
class Item:
    """A row on its way. `columns` as read or edited; `row` as it will be written, if it is `written` anew."""

    position: int
    columns: Mapping[str, Any]
    layout: Layout
    example: Example
    edited: bool = False
    target: str | None = None
    stale: bool = False  # the example was changed since `row` was written
    changes: int = 0
    lost: frozenset[str] = frozenset()  # columns that were not taken along
    row: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.row = self.columns

    @property
    def parts(self) -> Parts:
        return parts_of(self.example)

    def write(self, target: str) -> None:
        """Lay the row out as `target`, with the columns that no layout reads. Raises RowProblem."""
        read = {self.layout.columns.get(name, name) for name in (*self.layout.format.needs, *self.layout.format.reads)}
        others = {name: value for name, value in self.columns.items() if name not in read}
        self.lost = frozenset(others) & _LAYOUT_COLUMNS
        kept = {name: value for name, value in others.items() if name not in self.lost}
        self.row, self.target, self.stale = {**kept, **to_row(self.example, target)}, target, False
        self.changes += 1


@dataclass(frozen=True)
class Surroundings:
    """What steps need beside the row: the layouts of the source's parts, a tokenizer and `train_on`, positions of
    the rows with each kind of problem, and for a sample (by its step's number) the highest key that is drawn."""

    layouts: Sequence[Layout]
    encoder: Any | None = None
    found: Found | None = None
    drawn: dict[int, int] = field(default_factory=dict)


# Keeps the row ("") or says why it goes.
Apply = Callable[[Item], str]


def prepared(step: Any, number: int, around: Surroundings) -> Apply:
    """The function of one step. Raises ConfigError where it can't be done with this source."""
    return _BUILDERS[step.do](step, f"steps.{number}", number, around)


def _text(item: Item, part: str) -> str:
    return str(getattr(item.parts, part))


def _edit(step: steps.EditRows, place: str, number: int, around: Surroundings) -> Apply:
    def apply(item: Item) -> str:
        item.changes += item.edited  # done as it was read
        return ""

    return apply


def _rows(step: steps.LeaveOutRows, place: str, number: int, around: Surroundings) -> Apply:
    gone = frozenset(step.positions)
    return lambda item: "left out by hand" if item.position in gone else ""


def _problems(step: steps.LeaveOutProblems, place: str, number: int, around: Surroundings) -> Apply:

    def apply(item: Item) -> str:
        if item.edited or around.found is None:  # what was found there is gone with the old row
            return ""
        return around.found.kind_of(item.position, step.kinds)

    return apply


def _length(step: steps.KeepLength, place: str, number: int, around: Surroundings) -> Apply:
    least, most = step.least or 0, math.inf if step.most is None else step.most
    if step.unit == "tokens" and around.encoder is None:
        raise ConfigError(f"{place}.unit", "lengths in tokens need a model.", "Choose a model, or count characters.")

    def apply(item: Item) -> str:
        if step.unit == "characters" or around.encoder is None:
            parts = item.parts
            length = sum(map(len, parts)) if step.part == "whole" else len(getattr(parts, step.part))
        else:
            from studio.worker.data.tokens import token_lengths

            try:
                length = token_lengths(around.encoder, item.example)[step.part]
            except TemplateError:
                return "template"
        return "too short" if length < least else "too long" if length > most else ""

    return apply


def _language(step: steps.KeepLanguage, place: str, number: int, around: Surroundings) -> Apply:
    known = known_languages()
    for index, code in enumerate(step.keep):
        if code not in known:
            hint = f"Codes are such as en, de, zh; all of them: {', '.join(known)}."
            raise ConfigError(f"{place}.keep.{index}", f"no language is known as {code!r}.", hint)
    keep = frozenset(step.keep)

    def apply(item: Item) -> str:
        language = language_of(_text(item, step.part))
        return "" if language in keep else f"language {language}"

    return apply


def _script(step: steps.KeepScript, place: str, number: int, around: Surroundings) -> Apply:
    keep = frozenset(name.casefold() for name in step.keep)

    def apply(item: Item) -> str:
        script = main_script(_text(item, step.part))
        return "" if script.casefold() in keep else f"script {script}"

    return apply


def _pattern(step: steps.KeepPattern, place: str, number: int, around: Surroundings) -> Apply:
    import regex  # unlike re, it can be told when to give up

    try:
        pattern = regex.compile(step.pattern, regex.IGNORECASE if step.ignore_case else 0)
    except (regex.error, OverflowError, RecursionError, MemoryError) as error:
        raise ConfigError(
            f"{place}.pattern", f"is no regular expression ({error}).", "Mend it and try again."
        ) from None
    slow = 0

    def apply(item: Item) -> str:
        nonlocal slow
        try:
            found = pattern.search(_text(item, step.part), timeout=PATIENCE) is not None
        except TimeoutError:
            slow += 1
            if slow > FORGIVEN:
                raise ConfigError(
                    f"{place}.pattern",
                    f"takes over {PATIENCE:g} s on each of {slow} rows.",
                    "Write it with fewer repetitions inside repetitions.",
                ) from None
            return f"the pattern took over {PATIENCE:g} s"
        return "" if found == (step.keep == "matching") else "matches" if found else "doesn't match"

    return apply


def _score(step: steps.KeepScore, place: str, number: int, around: Surroundings) -> Apply:
    least = -math.inf if step.least is None else step.least
    most = math.inf if step.most is None else step.most

    def apply(item: Item) -> str:
        score = _number(item.columns.get(step.column))
        if score is None:
            return f"no number in {step.column}"
        return "too low" if score < least else "too high" if score > most else ""

    return apply


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        score = float(value)
    except (ValueError, OverflowError):
        return None
    return None if math.isnan(score) else score


def _sample(step: steps.Sample, place: str, number: int, around: Surroundings) -> Apply:
    highest = around.drawn[number]
    return lambda item: "" if key(item.position, step.seed) <= highest else "not drawn"


def key(position: int, seed: int) -> int:
    """64 bits that look drawn by chance and differ for each position (SplitMix64, Steele et al. 2014).

    The rows with the lowest keys are a fair sample: each subset is as likely as any other.
    """
    mask = (1 << 64) - 1
    mixed = (position + 1) * 0x9E3779B97F4A7C15 + seed * 0xD1342543DE82EF95 & mask
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & mask
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
    return mixed ^ mixed >> 31


def _system(step: steps.AddSystemPrompt, place: str, number: int, around: Surroundings) -> Apply:
    def apply(item: Item) -> str:
        after = opened_by(item.example, step.text)
        if after is not item.example:
            item.example = after
            item.changes += 1
        # Every row is then written anew: some with the columns' own names and some with the layout's would not mix.
        item.stale = True
        return ""

    return apply


def _convert(step: steps.Convert, place: str, number: int, around: Surroundings) -> Apply:
    for type in {layout.format.type for layout in around.layouts}:
        known = targets(type)
        if step.format not in known:
            raise ConfigError(
                f"{place}.format",
                f"rows of {type.replace('_', ' ')} can't be written as {step.format}.",
                f"They can become {', '.join(known)}.",
            )

    def apply(item: Item) -> str:
        try:
            item.write(step.format)
        except RowProblem as problem:
            return str(problem)
        return ""

    return apply


def check_layouts(recipe: steps.Recipe, layouts: Sequence[Layout]) -> None:
    """One file holds rows of one layout, and a row that was changed must be one that can be written back.

    Raises ConfigError.
    """
    kinds = [step.do for step in recipe.steps]
    if "convert" in kinds:
        return
    names = list(dict.fromkeys(layout.format.name for layout in layouts))
    if len(names) > 1 or len({str((sorted(one.columns.items()), sorted(one.tags.items()))) for one in layouts}) > 1:
        raise ConfigError("steps", f"the parts are laid out differently ({', '.join(names)}).", "Add a convert step.")
    format = layouts[0].format
    if "system" in kinds and format.name not in targets(format.type):
        raise ConfigError(
            f"steps.{kinds.index('system')}",
            f"rows laid out as {format.name} can't be written back after a change.",
            f"Add a convert step, to {' or '.join(targets(format.type))}.",
        )


_BUILDERS: dict[str, Callable[[Any, str, int, Surroundings], Apply]] = {
    "edit": _edit,
    "rows": _rows,
    "problems": _problems,
    "length": _length,
    "language": _language,
    "script": _script,
    "pattern": _pattern,
    "score": _score,
    "sample": _sample,
    "system": _system,
    "convert": _convert,
}
assert set(_BUILDERS) == set(steps.STEPS)
