"""Deals out equal shards of the rows sorted by label: each site sees few classes."""

from typing import Annotated

import numpy as np

from fedkd.data.partition.deal import Partitioner, deal
from fedkd.data.records import Records
from fedkd.data.splits import Units
from fedkd.knowledge import Array, BadInput, Range


def shards(
    shards_per_site: Annotated[int, Range(1)] = 2,
    smallest: Annotated[int, Range(1)] = 1,
) -> Partitioner:
    """`shards_per_site` shards a site, of all rows in order of label (ties at random).

    McMahan, Moore, Ramage, Hampson and Agüera y Arcas, 2017, arXiv:1602.05629, section 3. A
    patient counts as of the class of the first of their rows.
    """

    def divide(records: Records, count: int | None, rng: np.random.Generator) -> dict[str, Array]:
        def draw(units: Units, sites: int) -> Array:
            total = sites * shards_per_site
            if total > len(units.size):
                raise BadInput(
                    f"{len(units.size)} patients for {total} shards",
                    "at least one a shard",
                    "fewer sites or a lower partition.shards_per_site",
                )
            shuffled = rng.permutation(len(units.size))
            order = shuffled[np.argsort(records.labels[units.first][shuffled], kind="stable")]
            rows = units.size[order]
            middle = (np.cumsum(rows) - rows / 2) / rows.sum()
            holder = rng.permutation(np.repeat(np.arange(sites), shards_per_site))
            site = np.empty(len(order), dtype=np.int64)
            site[order] = holder[np.minimum((middle * total).astype(np.int64), total - 1)]
            return site

        remedy = "fewer sites, or a lower partition.shards_per_site or partition.smallest"
        return deal(records, count, smallest, draw, remedy)

    return divide
