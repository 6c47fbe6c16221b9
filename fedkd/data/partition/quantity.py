"""Deals patients at random to sites of very different size."""

from typing import Annotated

import numpy as np

from fedkd.data.partition.deal import Partitioner, by_shares, deal
from fedkd.data.records import Records
from fedkd.data.splits import Units
from fedkd.knowledge import Array, Range


def quantity(
    alpha: Annotated[float, Range(0.01, 1000)] = 0.5,
    smallest: Annotated[int, Range(1)] = 1,
) -> Partitioner:
    """Sites with like label mixes whose shares of all rows are one draw of Dirichlet(`alpha`)."""

    def divide(records: Records, count: int | None, rng: np.random.Generator) -> dict[str, Array]:
        def draw(units: Units, sites: int) -> Array:
            everyone = np.arange(len(units.size))
            return by_shares(everyone, units.size, rng.dirichlet(np.full(sites, alpha)), rng)

        remedy = "raise partition.alpha, take fewer sites, or lower partition.smallest"
        return deal(records, count, smallest, draw, remedy)

    return divide
