"""Deals patients at random to sites of equal size."""

from typing import Annotated

import numpy as np

from fedkd.data.partition.deal import Partitioner, by_shares, deal
from fedkd.data.records import Records
from fedkd.data.splits import Units
from fedkd.knowledge import Array, Range


def iid(smallest: Annotated[int, Range(1)] = 1) -> Partitioner:
    """Sites that resemble each other: equal in size within one row (one patient's rows)."""

    def divide(records: Records, count: int | None, rng: np.random.Generator) -> dict[str, Array]:
        def draw(units: Units, sites: int) -> Array:
            everyone = np.arange(len(units.size))
            return by_shares(everyone, units.size, np.full(sites, 1 / sites), rng)

        return deal(records, count, smallest, draw, "fewer sites, or a lower partition.smallest")

    return divide
