"""A recipe, made ready for a source: its rows go through the steps, and every one that doesn't come out is counted.

In: a Source with its layouts, a Recipe. Out: Items, and a Count a step. Memory is that of one row, and of the lowest
keys where a sample is drawn (by a pass of its own). Knows nothing of what is written where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from studio.core.errors import ConfigError, DataError
from studio.core.example import RowProblem
from studio.core.formats import Layout, to_example
from studio.core.recipe import AddSystemPrompt, Convert, EditRows, LeaveOutProblems, LeaveOutRows, Recipe, Sample
from studio.worker.data.findings import Found
from studio.worker.data.source import Cancelled, Progress, Source, Stopped, never, quiet
from studio.worker.data.steps import Apply, Item, Surroundings, check_layouts, key, prepared

_WORD_EVERY = 500  # rows between two words of progress

# Which rows have these kinds of problems.
Find = Callable[[Sequence[str]], Found]


@dataclass
class Count:
    """Rows that went into a step and came out of it; `left_out` maps a reason to rows."""

    do: str
    rows_in: int = 0
    rows_out: int = 0
    changed: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def plain(self) -> dict[str, Any]:
        return {
            "do": self.do,
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "changed": self.changed,
            "left_out": dict(self.left_out.most_common()),
        }


class Sieve:
    """`counts` are those of the latest pass: reading, each step, writing. `lost`: columns that no row took along."""

    def __init__(
        self,
        source: Source,
        layouts: Sequence[Layout],
        recipe: Recipe,
        *,
        encoder: Any | None = None,
        find: Find | None = None,
        progress: Progress = quiet,
        stopped: Stopped = never,
    ) -> None:
        """Draws the samples, with a pass each. Raises ConfigError, Cancelled."""
        self.source, self.layouts, self.recipe = source, list(layouts), recipe
        self.progress, self.stopped = progress, stopped
        check_layouts(recipe, self.layouts)
        self.around = Surroundings(self.layouts, encoder)
        # Everything that can be refused is refused before the first row is read.
        for number, step in enumerate(recipe.steps):
            if not isinstance(step, Sample):
                prepared(step, number, self.around)
        self.around = Surroundings(self.layouts, encoder, _found(recipe, find))
        self.edits = {at: row for step in recipe.steps if isinstance(step, EditRows) for at, row in step.rows.items()}
        self.counts: list[Count] = []
        self.lost: set[str] = set()
        self.seen = 0
        for number, step in enumerate(recipe.steps):
            if isinstance(step, Sample):
                lowest = _Lowest(step.rows)
                for item in self.run(recipe.steps[:number]):
                    lowest.add(key(item.position, step.seed))
                self.around.drawn[number] = lowest.threshold()

    def run(self, steps: Sequence[Any]) -> Iterator[Item]:
        """One pass: the rows that come out of these steps, counted."""
        ready = [prepared(step, number, self.around) for number, step in enumerate(steps)]
        self.counts = [Count("read"), *(Count(step.do) for step in steps), Count("write")]
        self.seen = 0
        for item in self._read(self.counts[0]):
            if self._through(item, ready):
                yield item

    def _read(self, count: Count) -> Iterator[Item]:
        """Every row that can be used, edits laid over; the others are counted by kind of problem."""
        for line in self.source.iterate():
            if self.seen % _WORD_EVERY == 0:
                self.progress("Shaping rows", self.seen, self.source.total)
                if self.stopped():
                    raise Cancelled()
            self.seen += 1
            count.rows_in += 1
            edited = line.position in self.edits
            layout = self.layouts[line.part]
            row = self.edits[line.position] if edited else line.row
            try:
                if line.problem and not edited:
                    raise RowProblem(line.kind or "unreadable", line.problem)
                example = to_example(row, layout)
            except RowProblem as problem:
                count.left_out[problem.kind] += 1
                continue
            count.rows_out += 1
            yield Item(line.position, row, layout, example, edited)

    def _through(self, item: Item, ready: Sequence[Apply]) -> bool:
        for apply, count in zip(ready, self.counts[1:-1], strict=True):
            before = item.changes
            count.rows_in += 1
            reason = apply(item)
            if reason:
                count.left_out[reason] += 1
                return False
            count.rows_out += 1
            count.changed += item.changes > before
        last = self.counts[-1]
        last.rows_in += 1
        if item.stale:
            try:
                item.write(item.target or item.layout.format.name)
            except RowProblem as problem:
                last.left_out[str(problem)] += 1
                return False
        self.lost |= item.lost
        last.rows_out += 1
        return True

    def check_result(self) -> None:
        """Raises ConfigError where a step names a row that there isn't, DataError where no row is left."""
        for number, step in enumerate(self.recipe.steps):
            named = (
                step.rows if isinstance(step, EditRows) else step.positions if isinstance(step, LeaveOutRows) else ()
            )
            if named and max(named) >= self.seen:
                field = "rows" if isinstance(step, EditRows) else "positions"
                hint = f"Its {self.seen} rows are counted from 0."
                raise ConfigError(f"steps.{number}.{field}", f"the dataset has no row {max(named)}.", hint)
        if self.counts[-1].rows_out == 0:
            emptied = next(count for count in self.counts if count.rows_out == 0)
            why = ", ".join(f"{reason}: {rows}" for reason, rows in emptied.left_out.most_common(3))
            number = self.counts.index(emptied)
            what = f"step {number} ({emptied.do})" if emptied.do not in ("read", "write") else f"the {emptied.do} step"
            raise DataError(f"No row is left after {what}{f' ({why})' if why else ''}.", "Ask for less in that step.")

    def as_read(self) -> dict[str, Any]:
        """The layout that the rows come in."""
        first = self.layouts[0]
        return {"format": first.format.name, "columns": dict(first.columns), "tags": dict(first.tags)}

    def as_written(self) -> dict[str, Any]:
        """The layout by which the result is to be read: the one that it was written in, else as before."""
        target = None
        for step in self.recipe.steps:
            if isinstance(step, Convert):
                target = step.format
            elif isinstance(step, AddSystemPrompt):
                target = target or self.layouts[0].format.name
        return {"format": target, "columns": {}, "tags": {}} if target else self.as_read()


def _found(recipe: Recipe, find: Find | None) -> Found | None:
    kinds = [kind for step in recipe.steps if isinstance(step, LeaveOutProblems) for kind in step.kinds]
    if not kinds:
        return None
    assert find is not None, "steps that leave out problems need a check"
    return find(kinds)


class _Lowest:
    """The highest of the `count` lowest keys, in memory for twice as many."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._keys = np.empty(8192, np.uint64)
        self._filled = 0

    def add(self, number: int) -> None:
        if self._filled == len(self._keys):
            if self._filled < 2 * self.count:
                self._keys = np.concatenate([self._keys, np.empty_like(self._keys)])
            else:
                self._keys[: self.count] = np.partition(self._keys, self.count - 1)[: self.count]
                self._filled = self.count
        self._keys[self._filled] = number
        self._filled += 1

    def threshold(self) -> int:
        keys = np.sort(self._keys[: self._filled])[: self.count]
        return int(keys[-1]) if len(keys) else -1
