"""What the rows of a micro-batch are padded to, on the mean of a run.

In: the lengths of all rows, how batches are made of them. Out: means. Does what transformers' sampler does, with the
same rows each time. Knows no tokens and no model.
"""

from __future__ import annotations

import functools
import math
import random

from studio.core.rowlengths import RowLengths

_DRAWN = 4000  # rows that stand for all, where there are more


def padding(lengths: RowLengths, batch: int, accumulation: int, grouped: bool, rows: int) -> tuple[float, float]:
    """What rows of a micro-batch are padded to: the mean, and the mean of its square, each row counting once.

    `grouped`: transformers sorts megabatches of at most 50 optimizer steps' rows by length
    (trainer_pt_utils.py, `get_length_grouped_indices`); else a micro-batch is drawn from all rows.
    """
    batch = min(batch, len(lengths))
    return _sorted(lengths, batch, accumulation, rows) if grouped else _drawn(lengths, batch)


@functools.lru_cache(maxsize=64)
def _sorted(lengths: RowLengths, batch: int, accumulation: int, rows: int) -> tuple[float, float]:
    """By doing what the sampler does with as many rows, or with some thousand of them; always the same ones."""
    step = batch * accumulation
    mega = step * (min(rows // (4 * step), 50) or 1)
    if mega > _DRAWN:  # as good as all rows sorted: a batch's longest is where it begins
        count = min(mega // batch, _DRAWN)
        firsts = [lengths[place * len(lengths) // count] for place in range(count)]
        return sum(firsts) / count, sum(first**2 for first in firsts) / count
    drawn = min(len(lengths), max(mega, _DRAWN // mega * mega))
    rounds = max(1, _DRAWN // (4 * drawn))
    chance = random.Random(0)
    mean = square = 0.0
    for _ in range(rounds):
        places = chance.sample(range(len(lengths)), drawn)
        for start in range(0, drawn, mega):
            inside = sorted(places[start : start + mega])  # the longest come first
            for at in range(0, len(inside), batch):
                length, share = lengths[inside[at]], min(batch, len(inside) - at)
                mean, square = mean + share * length, square + share * length**2
    return mean / (rounds * drawn), square / (rounds * drawn)


def _drawn(lengths: RowLengths, batch: int) -> tuple[float, float]:
    """From the chance that the longest of `batch` rows, drawn without putting back, is at most so long."""
    total = len(lengths)
    ways = _log_choose(total, batch)
    mean = square = 0.0
    left, at_most = total, 1.0
    for length, rows in lengths.items():
        left -= rows
        below = math.exp(_log_choose(left, batch) - ways) if left >= batch else 0.0
        mean, square = mean + (at_most - below) * length, square + (at_most - below) * length**2
        at_most = below
    return mean, square


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
