"""Deals each class to the sites in Dirichlet shares: label skew with uneven sizes."""

from typing import Annotated

import numpy as np

from fedkd.data.partition.deal import Partitioner, by_shares, deal
from fedkd.data.records import Records
from fedkd.data.splits import Units
from fedkd.knowledge import Array, Range


def dirichlet(
    alpha: Annotated[float, Range(0.01, 1000)] = 0.5,
    smallest: Annotated[int, Range(1)] = 10,
) -> Partitioner:
    """For each class one draw of Dirichlet(`alpha`) over the sites; smaller is more skewed.

    A patient counts as of the class of the first of their rows. Hsu, Qi and Brown, 2019,
    arXiv:1909.06335, draw class mixes by site; drawing site shares by class, as here, is the
    variant of Yurochkin et al., 2019, arXiv:1905.12022.
    """

    def divide(records: Records, count: int | None, rng: np.random.Generator) -> dict[str, Array]:
        def draw(units: Units, sites: int) -> Array:
            label = records.labels[units.first]
            site = np.empty(len(label), dtype=np.int64)
            for each in np.unique(label):
                chosen = np.flatnonzero(label == each)
                shares = rng.dirichlet(np.full(sites, alpha))
                site[chosen] = by_shares(chosen, units.size, shares, rng)
            return site

        remedy = "raise partition.alpha, take fewer sites, or lower partition.smallest"
        return deal(records, count, smallest, draw, remedy)

    return divide
