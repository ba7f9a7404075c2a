"""What a chat template writes around any words, for one order of roles: learnt once, then compared row by row.

In: a marked text, and where its answers stand. Out: where they stand in another conversation of the same roles, if its
text is exactly this skeleton around its own words; else None. So a row costs one rendering, whatever its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studio.worker.marks import Mark

Span = tuple[int, int]


@dataclass(frozen=True)
class Skeleton:
    """`between[i]` stands before message i's words, the last piece behind all; `turns[i]` are an answer's characters
    before and behind its words."""

    between: tuple[str, ...]
    turns: Mapping[int, Span]

    @classmethod
    def made(cls, text: str, marks: Sequence[Mark], count: int, turns: Mapping[int, Span]) -> Skeleton | None:
        """None unless each message's words stand there once, in order."""
        expected = [(i, opens) for i in range(count) for opens in (True, False)]
        if [(mark.message, mark.opens) for mark in marks] != expected:
            return None
        edges = [0, *(mark.place for mark in marks), len(text)]
        between = tuple(text[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True))
        words = [(marks[2 * i].place, marks[2 * i + 1].place) for i in range(count)]
        around = {i: (words[i][0] - start, end - words[i][1]) for i, (start, end) in turns.items()}
        return cls(between, around)

    def spans(self, text: str, contents: Sequence[str], wanted: Sequence[int]) -> list[Span] | None:
        """The wanted answers in `text`; None if it is anything but the skeleton around these contents."""
        if not text.startswith(self.between[0]):
            return None
        place = len(self.between[0])
        words: list[Span] = []
        for content, behind in zip(contents, self.between[1:], strict=True):
            for said in (content, content.strip()):  # many templates strip
                end = place + len(said)
                if text.startswith(said, place) and text.startswith(behind, end):
                    break
            else:
                return None
            words.append((place, end))
            place = end + len(behind)
        if place != len(text):
            return None
        return [(words[i][0] - self.turns[i][0], words[i][1] + self.turns[i][1]) for i in wanted if i in self.turns]
