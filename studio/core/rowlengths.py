"""The lengths of a dataset's rows in tokens: every one of them, in little memory.

In: how many rows have which length. Out: the longest, sums, shares. Rows of equal length are one entry, so a million
rows take some thousand entries and nothing is rounded. Knows no tokenizer and no files.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload


class RowLengths(Sequence[int]):
    """A sequence of lengths, longest first.

    `counts`: length in tokens -> rows of that length. `learnt`: the share of all tokens that carry loss.
    """

    def __init__(self, counts: Mapping[int, int], learnt: float = 1.0) -> None:
        self._lengths = tuple(sorted((length for length, rows in counts.items() if rows > 0), reverse=True))
        self._counts = tuple(counts[length] for length in self._lengths)
        self.learnt = learnt

    @classmethod
    def of(cls, lengths: Iterable[int]) -> RowLengths:
        """From every row's length, in any order."""
        return lengths if isinstance(lengths, RowLengths) else cls(Counter(lengths))

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        """After how many rows each length ends."""
        return tuple(itertools.accumulate(self._counts))

    def items(self) -> Iterator[tuple[int, int]]:
        """Lengths and how many rows have each, longest first."""
        return zip(self._lengths, self._counts, strict=True)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[int]:
        for length, rows in self.items():
            yield from itertools.repeat(length, rows)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        places = range(len(self))[index]
        if isinstance(places, int):
            return self._lengths[bisect_right(self._ends, places)]
        return [self._lengths[bisect_right(self._ends, place)] for place in places]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowLengths) and (self._lengths, self._counts) == (other._lengths, other._counts)

    def __hash__(self) -> int:
        return hash((self._lengths, self._counts))

    @property
    def longest(self) -> int:
        """0 where there are no rows."""
        return self._lengths[0] if self._lengths else 0

    def total(self) -> int:
        """Tokens of all rows."""
        return sum(length * rows for length, rows in self.items())

    def above(self, length: int) -> int:
        """How many rows are longer."""
        return sum(rows for each, rows in self.items() if each > length)

    def cut(self, longest: int) -> RowLengths:
        """As they are once rows are cut at `longest`."""
        if self.longest <= longest:
            return self
        counts: Counter[int] = Counter()
        for length, rows in self.items():
            counts[min(length, longest)] += rows
        return RowLengths(counts, self.learnt)
