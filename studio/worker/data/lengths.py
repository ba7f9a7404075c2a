"""Lengths of any number of rows, in little memory: their quantiles, their histogram, and what a cut would cost.

In: whole numbers, one by one. Out: plain values, ready for JSON. Knows no rows.
"""

from __future__ import annotations

import math
from typing import Any

QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}

_EXACT = 2048  # lengths below are counted one by one, above in bins a 1,024th of their size


class Lengths:
    """Counts of lengths >= 0: exact below 2,048, from there on to a thousandth; at most 1,024 bins a power of two."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self.longest = 0
        self._bins: dict[int, int] = {}

    def add(self, length: int) -> None:
        self.count += 1
        self.total += length
        self.longest = max(self.longest, length)
        if length >= _EXACT:
            shift = length.bit_length() - _EXACT.bit_length() + 1
            length = length >> shift << shift
        self._bins[length] = self._bins.get(length, 0) + 1

    def quantile(self, share: float) -> int:
        """The smallest length that at least this share of all lengths doesn't exceed; 0 where there are none."""
        wanted, seen = math.ceil(share * self.count), 0
        for length, times in sorted(self._bins.items()):
            seen += times
            if seen >= wanted:
                return length
        return 0

    def histogram(self, bars: int = 40) -> dict[str, list[int]]:
        """`edges` (one more than bars) and `counts`; bar i holds edges[i] <= length < edges[i+1].

        Bars are equally wide; where a few lengths are far beyond the rest, those share the last one.
        """
        if not self.count:
            return {"edges": [], "counts": []}
        width = _round_step((self.quantile(0.99) + 1) / bars)
        first = min(self._bins) // width
        usual, last = self.quantile(0.99) // width, self.longest // width
        last = last if last <= usual + bars // 4 else usual
        edges = [n * width for n in range(first, last + 2)]
        if self.longest >= edges[-1]:
            edges.append(self.longest + 1)
        counts = [0] * (len(edges) - 1)
        for length, times in self._bins.items():
            counts[min(length // width - first, len(counts) - 1)] += times
        return {"edges": edges, "counts": counts}

    def summary(self) -> dict[str, Any]:
        """count, mean, the quantiles, max and the histogram."""
        return {
            "count": self.count,
            "mean": round(self.total / self.count, 2) if self.count else 0.0,
            **{name: self.quantile(share) for name, share in QUANTILES.items()},
            "max": self.longest,
            "histogram": self.histogram(),
        }


def _round_step(width: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50, ... from `width` up: bars that a person can read."""
    if width <= 1:
        return 1
    power: int = 10 ** math.floor(math.log10(width))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= width)


class Cuts:
    """What cutting at a length costs, exact for multiples of `STEP` and for the one length it was made for.

    A row is one sequence, or two for a preference pair: it is cut where any of them is.
    """

    # Kernels work on tiles of 64 tokens and more, so a length between two multiples costs as much as the next one.
    STEP = 64
    TOLERATED = 0.01  # the share of rows that a suggested length may cut

    def __init__(self, present: int) -> None:
        self.present = present
        self.rows = 0
        self.tokens = 0
        self.longest = 0
        self._rows: dict[int, int] = {}  # ceil(longest / STEP) -> rows
        self._sums: dict[int, tuple[int, int]] = {}  # ceil(length / STEP) -> sequences, their tokens
        self._loss: dict[int, int] = {}  # ceil(tokens needed to reach a loss / STEP) -> rows
        self._at_present = [0, 0, 0]  # rows cut, tokens lost, rows left without loss

    def add(self, lengths: tuple[int, ...], first_loss: int | None) -> None:
        """A row's sequences; `first_loss` is the position of the first token that teaches anything, None: none."""
        longest = max(lengths)
        self.rows += 1
        self.longest = max(self.longest, longest)
        self._rows[_tiles(longest)] = self._rows.get(_tiles(longest), 0) + 1
        for length in lengths:
            self.tokens += length
            sequences, tokens = self._sums.get(_tiles(length), (0, 0))
            self._sums[_tiles(length)] = (sequences + 1, tokens + length)
        self._at_present[0] += longest > self.present
        self._at_present[1] += sum(max(length - self.present, 0) for length in lengths)
        if first_loss is not None:
            self._loss[_tiles(first_loss + 1)] = self._loss.get(_tiles(first_loss + 1), 0) + 1
            self._at_present[2] += first_loss >= self.present

    def at(self, length: int) -> dict[str, Any]:
        """The cost of cutting at a multiple of STEP, or at `present`."""
        if length == self.present:
            rows, tokens, silent = self._at_present
        else:
            assert length % self.STEP == 0, length
            tiles = length // self.STEP
            rows = sum(times for needed, times in self._rows.items() if needed > tiles)
            beyond = [entry for needed, entry in self._sums.items() if needed > tiles]
            tokens = sum(total - sequences * length for sequences, total in beyond)
            silent = sum(times for needed, times in self._loss.items() if needed > tiles)
        return {
            "max_length": length,
            "rows_cut": rows,
            "share_cut": _share(rows, self.rows),
            "tokens_lost": tokens,
            "share_lost": _share(tokens, self.tokens),
            "rows_without_loss": silent,
        }

    def table(self) -> list[dict[str, Any]]:
        """The cost at every power of two from 64 until nothing is cut, and at `present`."""
        reach = max(self.longest, self.present, self.STEP)
        lengths = {1 << power for power in range(6, (reach - 1).bit_length() + 1)} | {self.present}
        return [self.at(length) for length in sorted(lengths)]

    def suggested(self) -> dict[str, Any] | None:
        """The smallest multiple of 64 that cuts at most 1 % of the rows, with its cost; None without rows."""
        if not self.rows:
            return None
        above, tiles = 0, 1
        for needed, times in sorted(self._rows.items(), reverse=True):
            if above + times > self.TOLERATED * self.rows:
                tiles = max(needed, 1)
                break
            above += times
        found = self.at(tiles * self.STEP)
        why = (
            f"{found['max_length']} tokens hold {self.rows - found['rows_cut']} of {self.rows} rows whole and lose "
            f"{found['share_lost']:.2%} of all tokens. It is the smallest multiple of {self.STEP} that cuts at most "
            f"{self.TOLERATED:.0%} of the rows; processors compute in tiles of {self.STEP} tokens, so lengths between "
            f"two multiples save next to nothing."
        )
        return {**found, "why": why}


def _tiles(length: int) -> int:
    return -(-length // Cuts.STEP)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
