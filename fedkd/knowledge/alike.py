"""Counts how often one query stands in a set, as itself or all but itself."""

import numpy as np

from fedkd.knowledge.digests import Array

# Q queries, F entries of one query, N queries of one group.

ALIKE = 1.001
"""Two entries this near, in thousandths of the range, are alike; rounding took the last part."""
FAR = 2048.0
"""Thousandths between two groups on one line: more than the range and `ALIKE` together."""
MOST_COMPARISONS = 300_000_000
"""Entries compared, some ten seconds, before a group is taken for one query."""


def most_alike(inputs: Array, low: float, high: float) -> int:
    """The most of `inputs` [Q, ...] that are alike to one of them, itself among them.

    Two queries are alike where no entry of theirs is further apart than a thousandth of
    [low, high]: one record asked about a thousand times has a thousand answers, whose noise
    averages out. Copies that lie within half a thousandth of a record are all counted, on
    whatever grid; a copy with a single entry further off is another query, and what bounds those
    is the budget. Where rows are made so that they cannot be told apart in reasonable time the
    count is too high, never too low.

    Of 20,000 honest pictures, or rows of a dozen columns, no two are alike. What repeats are rows
    of one or two columns, or of few categories alone, and the blank pictures among `procedural`'s:
    3 of 2,000, 47 of 20,000.
    """
    entries = inputs.reshape(len(inputs), -1).T.astype(np.float32, order="C")
    entries = (entries - np.float32(low)) * np.float32(1000 / (high - low))
    entries = entries[np.ptp(entries, axis=1) > ALIKE]
    most = 1 if len(entries) else len(inputs)
    for group in _groups(entries):
        if len(group) <= most:
            break
        most = max(most, _most_alike_in(entries[:, group]))
    return most


def _groups(entries: Array) -> list[Array]:
    """The queries of `entries` [F, Q] in groups, the largest first; one by itself is left out.

    Entry by entry a group falls apart where two neighbours are too far from each other, so that
    no two queries of different groups are alike.
    """
    left = np.arange(entries.shape[1])
    group = np.zeros(len(left))
    for entry in entries:
        if not len(left):
            break
        line = group * FAR + entry[left]
        order = np.argsort(line)
        line = line[order]
        group = np.concatenate(([0], np.cumsum(np.diff(line) > ALIKE)))
        several = np.bincount(group)[group] > 1
        left, group = left[order[several]], group[several]
    _, starts = np.unique(group, return_index=True)
    return sorted(np.split(left, starts[1:]), key=len, reverse=True)


def _most_alike_in(entries: Array) -> int:
    """`most_alike` of one group [F, N], by comparing those that are near in one entry."""
    queries: int = entries.shape[1]
    entries = entries[np.ptp(entries, axis=1) > ALIKE]
    if not len(entries):
        return queries
    some = entries[:, :: 1 + queries // 2000]
    entries = entries[np.argsort([_later(np.sort(entry)).sum() for entry in some])]
    entries = np.ascontiguousarray(entries[:, np.argsort(entries[0])])
    later = _later(entries[0])
    alike, compared, first = np.ones(queries, np.int64), 0, 0
    while first < queries:
        # some rows at a time: at most N pairs more than a hundred thousand
        stop = first + max(1, int(np.searchsorted(np.cumsum(later[first:]), 100_000)))
        one, other = _pairs(later, first, min(stop, queries))
        for entry in entries[1:]:
            compared += len(one)
            if compared > MOST_COMPARISONS:
                return queries
            near = np.abs(entry.take(one) - entry.take(other)) <= ALIKE
            one, other = one[near], other[near]
            if not len(one):
                break
        alike += np.bincount(one, minlength=queries) + np.bincount(other, minlength=queries)
        first = stop
    return int(alike.max())


def _later(line: Array) -> Array:
    """How many of the sorted `line` [N] come after each and are alike to it."""
    after: Array = np.searchsorted(line, line + np.float32(ALIKE), side="right")
    return after - np.arange(len(line)) - 1


def _pairs(later: Array, first: int, stop: int) -> tuple[Array, Array]:
    """Each of the places `first` to `stop` with each of the `later` ones after it."""
    counts = later[first:stop]
    one = np.repeat(np.arange(first, stop), counts)
    turn = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
    return one, one + 1 + turn
