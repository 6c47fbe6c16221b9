"""Deals patients to sites by shares: what all partitions are made of."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fedkd.data.records import Records
from fedkd.data.splits import Units, units_of
from fedkd.knowledge import Array, BadInput

# N rows, U units (a unit is one patient's rows), K sites.

Partitioner: TypeAlias = Callable[[Records, int | None, np.random.Generator], dict[str, Array]]
"""(records, number of sites, rng) -> the row indices of each site, in order; no row twice.

A patient goes whole. What a partition yaml's `_target_`, called with the yaml's keys, returns.
"""

TRIES = 200
"""How often a division with too small a site is drawn again."""


def site_names(count: int) -> list[str]:
    """`site-01`, `site-02`, ...: padded to one width, so that names sort as numbers do."""
    width = max(2, len(str(count)))
    return [f"site-{number:0{width}d}" for number in range(1, count + 1)]


def by_shares(chosen: Array, size: Array, shares: Array, rng: np.random.Generator) -> Array:
    """The site of each of the `chosen` units: their rows cut, in random order, by `shares` [K].

    A unit goes where the middle of its rows falls; sites in proportion within half a unit.
    """
    order = rng.permutation(len(chosen))
    rows = size[chosen][order]
    middle = (np.cumsum(rows) - rows / 2) / max(int(rows.sum()), 1)
    dealt = np.empty(len(chosen), dtype=np.int64)
    dealt[order] = np.searchsorted(np.cumsum(shares)[:-1], middle, side="right")
    return dealt


def deal(
    records: Records,
    count: int | None,
    smallest: int,
    draw: Callable[[Units, int], Array],
    remedy: str,
) -> dict[str, Array]:
    """Rows by site name where `draw(units, count)` gives each unit's site; no site is too small.

    A division that leaves a site under `smallest` rows is drawn again, up to `TRIES` times;
    then `BadInput` says how close it came, and `remedy` what to change.
    """
    if count is None or count < 1:
        raise BadInput(f"clients.count={count}", "a number of sites from 1", "set clients.count=5")
    units = units_of(records)
    wanted = max(smallest, 1)
    if count > len(units.size) or count * wanted > len(records):
        raise BadInput(
            f"{len(records)} rows of {len(units.size)} patients for {count} sites",
            f"at least {wanted} rows a site, so {count * wanted} rows, and a patient for each",
            "fewer sites (clients.count) or more records (data.records)",
        )
    best = 0
    for _ in range(TRIES):
        site = draw(units, count)[units.of_row]
        sizes = np.bincount(site, minlength=count)
        best = max(best, int(sizes.min()))
        if sizes.min() >= wanted:
            names = site_names(count)
            return {name: np.flatnonzero(site == at) for at, name in enumerate(names)}
    raise BadInput(
        f"no division in {TRIES} draws; the smallest site had {best} rows at best",
        f"at least {wanted} rows at each of {count} sites",
        remedy,
    )
