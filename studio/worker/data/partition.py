"""Rows shared out to train, validation and test.

In: how many of each, a seed, what has to stay together (groups), what has to be equally frequent (strata). Out: a part
for every row; the same for the same seed and rows. Knows only numbers.
"""

from __future__ import annotations

import numpy as np

from studio.core.schedule import Split

TRAIN, VALIDATION, TEST = 0, 1, 2
NAMES = ("train", "validation", "test")


def share_out(sizes: Split, groups: np.ndarray, strata: np.ndarray, seed: int) -> np.ndarray:
    """TRAIN, VALIDATION or TEST for every row (uint8).

    `groups`: rows with the same number stay together; a group that is larger than a part goes to train. `strata`: each
    value gets its share of each part by largest remainders; one that has a single group stays in train.
    """
    _, firsts, group_of, weight = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    stratum = np.unique(strata[firsts], return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(len(weight))
    order = order[np.argsort(stratum[order], kind="stable")]
    part = np.full(len(weight), TRAIN, np.uint8)
    bounds = np.concatenate(([0], np.cumsum(np.bincount(stratum))))
    rows_in = np.bincount(stratum, weight).astype(np.int64)
    # Where values are held evenly, one with a single group has nothing to spare; without values there is only one.
    several = np.bincount(stratum) > 1
    room = np.where(several, rows_in - 1, 0)
    for name, wanted in ((TEST, sizes.test), (VALIDATION, sizes.validation)):
        quotas = _quotas(wanted, np.where(several, rows_in, 0), room)
        for value in np.flatnonzero(quotas).tolist():
            groups_in = order[bounds[value] : bounds[value + 1]]
            free = groups_in[part[groups_in] == TRAIN]
            taken = _fill(free, weight, int(quotas[value]))
            part[taken] = name
            room[value] -= weight[taken].sum()
    shared: np.ndarray = part[group_of]
    return shared


def _quotas(wanted: int, sizes: np.ndarray, room: np.ndarray) -> np.ndarray:
    """`wanted` rows shared out in proportion to `sizes` by largest remainders, none above its `room`."""
    if not sizes.sum():
        return np.zeros(len(sizes), np.int64)
    exact = wanted * sizes / sizes.sum()
    quotas: np.ndarray = np.minimum(np.floor(exact).astype(np.int64), room)
    by_remainder = np.lexsort((np.arange(len(sizes)), quotas - exact))
    while (short := wanted - int(quotas.sum())) > 0:
        open_ = by_remainder[quotas[by_remainder] < room[by_remainder]][:short]
        if not len(open_):
            break
        quotas[open_] += 1
    return quotas


def _fill(free: np.ndarray, weight: np.ndarray, wanted: int) -> np.ndarray:
    """Groups out of `free`, in its order, that together have `wanted` rows or, where none fits any more, fewer."""
    whole = int(np.searchsorted(np.cumsum(weight[free]), wanted, side="right"))
    taken = free[:whole].tolist()
    left = wanted - int(weight[free[:whole]].sum())
    for group in free[whole:].tolist():
        if left <= 0:
            break
        if weight[group] <= left:
            taken.append(group)
            left -= int(weight[group])
    return np.array(taken, np.int64)
