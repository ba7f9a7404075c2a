"""Series -> what a plot needs: at most so many points that it is quick to send and to draw.

In: (step, value) pairs in the order of steps. Out: fewer of them, with every peak, dip and missing number still there.
Knows nothing of colours and axes: those are the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = tuple[int, float]

MOST_POINTS = 2000


def downsample(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most `most` of the points: the first and last, and of each stretch between its lowest, highest and first NaN.

    Infinities count as NaN do: as numbers that aren't there.
    """
    if len(points) <= most:
        return list(points)
    inner = points[1:-1]
    stretches = (most - 2) // 3
    kept = {0, len(points) - 1}
    for number in range(stretches):
        begin, end = number * len(inner) // stretches, (number + 1) * len(inner) // stretches
        kept.update(1 + begin + place for place in _telling(inner[begin:end]))
    return [points[place] for place in sorted(kept)]


def _telling(stretch: Sequence[Point]) -> set[int]:
    numbers = [(value, place) for place, (_, value) in enumerate(stretch) if math.isfinite(value)]
    missing = [place for place, (_, value) in enumerate(stretch) if not math.isfinite(value)]
    return {*missing[:1], *((min(numbers)[1], max(numbers)[1]) if numbers else ())}
