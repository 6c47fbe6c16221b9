"""Sets apart what is asked, what is examined and what stays private, patients whole."""

import math
from typing import NamedTuple

import numpy as np

from fedkd.data.records import Dataset, Records
from fedkd.knowledge import Array, BadInput, NotInSpace, Public, Space, digest_of_arrays

# N rows, U units (a unit is one patient's rows; without patients every row is one).

FEWEST_FOR_VALIDATION = 5
"""Under this many rows a site keeps all of them for training."""


class Holdout(NamedTuple):
    """`private` records to deal out, `queries` [Q, ...] (inputs alone; None if none were asked
    for), and the common `test`.
    """

    private: Records
    queries: Array | None
    test: Records


class Units(NamedTuple):
    """Which rows go together: `of_row` [N] int64 from 0, `size` [U] rows, `first` [U] a row."""

    of_row: Array
    size: Array
    first: Array


def units_of(records: Records) -> Units:
    """One unit for each patient, or for each row where no patients are known."""
    if records.patients is None:
        rows = np.arange(len(records))
        return Units(rows, np.ones(len(records), dtype=np.int64), rows)
    _, first, of_row = np.unique(records.patients, return_index=True, return_inverse=True)
    return Units(of_row, np.bincount(of_row), first)


def hold_out(
    dataset: Dataset,
    *,
    queries: int,
    test_size: int | float | None,
    records: int | None,
    rng: np.random.Generator,
) -> Holdout:
    """Cuts `dataset` into private records, queries and test: no patient is in two of them.

    Drawn by strata of (site, label), or of labels where no sites are given: each stratum gives
    its share within one row. `test_size` is a number of rows or a share between 0 and 1; where
    the source has a test part it is taken from the front of that (all of it if None or if it is
    no larger) and the queries are disjoint from it by source. `records` bounds the private rows
    (None: all that is left). The rows of a patient beyond a part's size are left out.
    `BadInput`, with numbers, where there are not enough records for what is asked.
    """
    has_test = dataset.test is not None
    wanted = _rows(test_size, len(dataset.test if dataset.test is not None else dataset.records))
    if wanted is None and not has_test:
        raise BadInput(
            "no data.test_size for a data set without a test part of its own",
            "a number of rows or a share between 0 and 1",
            "set data.test_size=0.2",
        )
    drawn = 0 if has_test or wanted is None else wanted
    asked = [drawn, queries, 1 if records is None else records]
    _check_enough(dataset, asked)
    strata = _codes(dataset.records, by_site=True)
    order = _stratified_order(dataset.records, strata, rng)
    parts = _cut(dataset.records, order, [drawn, queries], records)
    if not len(parts[2]) or (records is not None and len(parts[2]) < records):
        raise BadInput(
            f"{len(parts[2])} private rows once patients are kept whole",
            f"{max(records or 1, 1)}",
            "lower query.size, data.test_size or data.records",
        )
    if dataset.test is None:
        test = dataset.records.take(parts[0])
    else:
        test = dataset.test.take(np.arange(min(len(dataset.test), wanted or len(dataset.test))))
    asked_inputs = dataset.records.inputs[parts[1]] if queries else None
    return Holdout(dataset.records.take(parts[2]), asked_inputs, test)


def validation(
    records: Records, fraction: float, rng: np.random.Generator
) -> tuple[Records, Records]:
    """(train, validation): about `fraction` of the rows, by strata of labels, patients whole.

    A site of fewer than 5 rows gets no validation, a larger one at least a row, unless each label
    is a single patient's: such a label stays in train. Where every patient has more rows than
    asked for, the smallest one is taken. Both parts may have one class. No row is lost.
    """
    if not (math.isfinite(fraction) and 0 <= fraction < 1):
        raise BadInput(f"data.validation {fraction}", "a share from 0 to below 1")
    count = len(records)
    target = round(fraction * count)
    if fraction > 0 and count >= FEWEST_FOR_VALIDATION:
        target = max(target, 1)
    if count < FEWEST_FOR_VALIDATION or not target:
        return records, records.take(np.arange(0))
    units = units_of(records)
    strata = _codes(records, by_site=False)
    lonely = np.bincount(strata[units.first])[strata[units.first]] == 1
    order = [int(u) for u in _stratified_order(records, strata, rng) if not lonely[u]]
    chosen = _fill(units, order, target)
    held = np.isin(units.of_row, chosen)
    return records.take(np.flatnonzero(~held)), records.take(np.flatnonzero(held))


def public_inputs(
    dataset: Dataset, count: int, space: Space, rng: np.random.Generator
) -> tuple[Array, Public]:
    """`count` unlabelled inputs of another data set that fit `space`, and where they come from.

    Drawn without replacement from the records of `dataset`. `BadInput` where its inputs have
    another kind, shape, type or range than `space`, or where there are too few.
    """
    theirs = dataset.space
    if theirs.kind != space.kind or theirs.shape != space.shape or theirs.dtype != space.dtype:
        raise BadInput(
            f"a public set of the wrong shape: {dataset.card.name} is {theirs.kind} of "
            f"{theirs.shape}, {theirs.dtype}",
            f"{space.kind} of {space.shape}, {space.dtype}, as the private records are",
            "choose another public set, or query=synthetic",
        )
    if not 1 <= count <= len(dataset.records):
        raise BadInput(
            f"{len(dataset.records)} inputs in the public set {dataset.card.name}",
            f"query.size={count}, and at least 1",
            "lower query.size",
        )
    rows = np.sort(rng.choice(len(dataset.records), count, replace=False))
    inputs = dataset.records.inputs[rng.permutation(rows)]
    try:
        space.check(inputs)
    except NotInSpace as error:
        raise BadInput(
            f"a public set {dataset.card.name} that does not fit ({error})",
            f"inputs within {space.low:g} to {space.high:g}",
            "choose another public set, or query=synthetic",
        ) from error
    digest = digest_of_arrays({"kind": "public inputs"}, {"inputs": inputs})
    return inputs, Public(dataset.card.name, dataset.card.licence, digest)


def _rows(size: int | float | None, total: int) -> int | None:
    if size is None:
        return None
    if isinstance(size, float) and 0 < size < 1:
        return max(1, round(size * total))
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise BadInput(
            f"data.test_size={size}", "a whole number of rows from 1, or a share between 0 and 1"
        )
    return size


def _check_enough(dataset: Dataset, asked: list[int]) -> None:
    test, queries, private = asked
    if queries < 0 or private < 1:
        raise BadInput(f"query.size {queries}, data.records {private}", "at least 0 and 1")
    total = len(dataset.records)
    if sum(asked) > total:
        raise BadInput(
            f"{total} records in {dataset.card.name}",
            f"at least {sum(asked)}: {test} for the test, {queries} queries, {private} private",
            "lower data.test_size, query.size or data.records",
        )


def _codes(records: Records, by_site: bool) -> Array:
    """Codes [N] from 0 of the labels, or of (site, label) where there are sites."""
    keys = [records.labels]
    if by_site and records.sites is not None:
        keys.append(np.unique(records.sites, return_inverse=True)[1])
    return np.asarray(np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1))


def _stratified_order(records: Records, strata: Array, rng: np.random.Generator) -> Array:
    """The units in an order of which every stretch holds each stratum in proportion.

    Within its stratum (that of its first row) each unit gets a random place; its position is the
    share of the stratum's rows before it, jittered within the unit. Sorted by position, a
    stretch of a share f of all rows holds a share f of each stratum, within one unit.
    """
    units = units_of(records)
    shuffled = rng.permutation(len(units.size))
    mine = strata[units.first][shuffled]
    by_stratum = np.argsort(mine, kind="stable")
    shuffled, mine = shuffled[by_stratum], mine[by_stratum]
    size = units.size[shuffled]
    before = np.cumsum(size) - size
    rows = np.bincount(mine, weights=size)
    start = np.cumsum(rows) - rows
    position = (before - start[mine] + rng.random(len(size)) * size) / rows[mine]
    return np.asarray(shuffled[np.argsort(position, kind="stable")])


def _cut(records: Records, order: Array, sizes: list[int], last: int | None) -> list[Array]:
    """Row indices of consecutive parts of `sizes` rows, and of the rest up to `last` rows.

    A part begins with a new unit: what its predecessor had over is left out.
    """
    units = units_of(records)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    rows = np.argsort(rank[units.of_row], kind="stable")
    ends = np.cumsum(units.size[order])
    parts, start = [], 0
    for size in sizes:
        parts.append(rows[start : start + size])
        if size:
            start = int(ends[np.searchsorted(ends, min(start + size, len(rows)))])
    rest = rows[start:]
    return [*parts, rest if last is None else rest[:last]]


def _fill(units: Units, order: list[int], target: int) -> list[int]:
    """Units in `order` that together have at most `target` rows; else the smallest one."""
    chosen, rows = [], 0
    for unit in order:
        if rows + units.size[unit] <= target:
            chosen.append(unit)
            rows += int(units.size[unit])
    if chosen or not order:
        return chosen
    return [min((int(units.size[unit]), unit) for unit in order)[1]]
