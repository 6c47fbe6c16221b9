"""Counts how often one query stands in a set, as itself or all but itself."""

from collections.abc import Iterator, Sequence

import numpy as np

from fedkd.knowledge.digests import Array

# Q queries, F entries of one query, N queries that others may be alike to.

STEPS = 1000
"""Steps in the range of an entry: two entries a step apart are alike."""
ALIKE = 1.001
"""In steps; rounding took the last part."""
LEVELS = 100
"""A step is a level of whole numbers where their range has this many, and fewer than `STEPS`."""
FAR = 2048.0
"""Steps between two groups on one line: more than the range and `ALIKE` together."""
MOST_COMPARISONS = 300_000_000
"""Numbers compared in one call, some ten seconds, before a group is taken for one query."""
AT_ONCE = 100_000
"""Pairs that are compared at once."""
LOOP = 1000
"""What a comparison of some pairs counts at least: so long as that many take."""
IN_VAIN = 16
"""Entries one after the other by which no group fell apart, before pairs are compared."""


def most_alike(inputs: Array, low: float | Array, high: float | Array) -> int:
    """The most of `inputs` [Q, ...] that are alike to one of them, itself among them.

    `low` and `high` are the range of all entries, or of each [F]. Two queries are alike where no
    entry of theirs is further apart than a thousandth of its range, or than one level where whole
    numbers are coarser than that: one record asked about a thousand times has a thousand answers,
    whose noise averages out. Copies that lie within half a thousandth of a record are all counted,
    on whatever grid, and those in which some numbers are a level higher; a copy with a single
    entry further off is another query, and what bounds those is the budget. What lies outside of
    its range counts as its end. Where rows are made so that they cannot be told apart in reasonable
    time the count is too high, never too low.

    Of 20,000 honest pictures, or rows of a dozen columns, no two are alike. What repeats are rows
    of one or two columns, or of few categories alone, and the blank pictures among `procedural`'s:
    3 of 2,000, 47 of 20,000.
    """
    entries = _in_steps(inputs, low, high)
    lines = _most_telling(entries)
    if not lines:
        return len(inputs)
    left, group = _groups(lines, len(inputs))
    if not len(left):
        return 1
    sizes, whole = np.bincount(group), _all_alike(lines, left, group)
    most = max(1, int(sizes[whole].max(initial=0)))
    undecided = (~whole & (sizes > most))[group]
    left, group = left[undecided], group[undecided]
    return max(most, _most_in_groups(lines, left, group)) if len(left) else most


def _in_steps(inputs: Array, low: float | Array, high: float | Array) -> Array:
    """The entries of `inputs` [Q, ...] in steps from the low end of their range, float32 [F, Q]."""
    entries: Array = inputs.reshape(len(inputs), -1).T.astype(np.float32, order="C")
    low, high = (np.reshape(np.asarray(end, np.float64), (-1, 1)) for end in (low, high))
    steps = np.full(low.shape, float(STEPS))
    if inputs.dtype.kind in "iu":
        levels = high - low
        steps = np.where((levels >= LEVELS) & (levels < STEPS), levels, steps)
    entries -= low.astype(np.float32)
    entries *= (steps / (high - low)).astype(np.float32)
    return np.clip(entries, 0, steps.astype(np.float32), out=entries)


def _means(entries: Array) -> Iterator[Array]:
    """Means of neighbouring `entries` [F, Q], some in each [M, Q]: of alike queries alike, too.

    Of pictures, whose entries are mostly black, they tell more than any entry.
    """
    sums, counts = entries, np.ones(len(entries))
    for together in (8, 4, 4, 4, 4):
        if len(sums) == 1:
            return
        starts = np.arange(0, len(sums), together)
        sums = np.add.reduceat(sums, starts).astype(np.float64)
        counts = np.add.reduceat(counts, starts)
        yield (sums / counts[:, None]).astype(np.float32)


def _most_telling(entries: Array) -> list[Array]:
    """The lines [Q] by which queries can be told apart: entries and means, the best ones first."""
    found: list[tuple[int, Array]] = []
    for lines in (entries, *_means(entries)):
        some = np.sort(lines[:, :: 1 + lines.shape[1] // 500], axis=1)
        apart = np.flatnonzero(np.ptp(lines, axis=1) > ALIKE)
        found += [(int(_later(some[at]).sum()), lines[at]) for at in apart]
    return [line for _, line in sorted(found, key=lambda each: each[0])]


def _groups(lines: Sequence[Array], queries: int) -> tuple[Array, Array]:
    """The queries [N] that others may be alike to, and of each its group, in their order.

    Line by line a group falls apart where two neighbours are too far from each other, so that no
    two queries of different groups are alike; one by itself is left out.
    """
    left, group = np.arange(queries), np.zeros(queries, np.int64)
    groups, in_vain = 1, 0
    for line in lines:
        on_line = group * FAR + line[left]
        order = np.argsort(on_line)
        group = np.concatenate(([0], np.cumsum(np.diff(on_line[order]) > ALIKE)))
        sizes = np.bincount(group)
        in_vain = in_vain + 1 if len(sizes) == groups else 0
        groups, several = int((sizes > 1).sum()), (sizes > 1)[group]
        left, group = left[order[several]], group[several]
        if not len(left) or in_vain == IN_VAIN:
            break
    return left, np.unique(group, return_inverse=True)[1]


def _all_alike(lines: Sequence[Array], left: Array, group: Array) -> Array:
    """Of each group of the queries `left` [N], whether all in it are alike to one another."""
    alike = np.ones(int(group[-1]) + 1, bool)
    for line in lines:
        here = alike[group]
        if not here.any():
            break
        values, groups = line[left[here]], group[here]
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        spread = np.maximum.reduceat(values, starts) - np.minimum.reduceat(values, starts)
        alike[groups[starts]] = spread <= ALIKE
    return alike


def _most_in_groups(lines: Sequence[Array], left: Array, group: Array) -> int:
    """`most_alike` of the queries `left` [N] in groups, by comparing those near in one line."""
    on_line = group * FAR + lines[0][left]
    order = np.argsort(on_line)
    left, later = left[order], _later(on_line[order])
    pairs = np.cumsum(later)
    alike, compared, first = np.ones(len(left), np.int64), 0, 0
    while first < len(left):
        before = int(pairs[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(pairs, before + AT_ONCE, side="right")))
        one, other = _pairs(later, first, stop)
        for line in lines:
            compared += LOOP + len(one)
            if compared > MOST_COMPARISONS:
                return int(np.bincount(group).max())
            near = np.abs(line.take(left[one]) - line.take(left[other])) <= ALIKE
            one, other = one[near], other[near]
            if not len(one):
                break
        alike += np.bincount(one, minlength=len(left)) + np.bincount(other, minlength=len(left))
        first = stop
    return int(alike.max())


def _later(line: Array) -> Array:
    """How many of the sorted `line` [N] come after each and are alike to it."""
    after: Array = np.searchsorted(line, line + line.dtype.type(ALIKE), side="right")
    return after - np.arange(len(line)) - 1


def _pairs(later: Array, first: int, stop: int) -> tuple[Array, Array]:
    """Each of the places `first` to `stop` with each of the `later` ones after it."""
    counts = later[first:stop]
    one = np.repeat(np.arange(first, stop), counts)
    turn = np.arange(len(one)) - np.repeat(np.cumsum(counts) - counts, counts)
    return one, one + 1 + turn
