"""Leaves each record where it was taken: the sites that the data set names."""

from typing import Annotated

import numpy as np

from fedkd.data.partition.deal import Partitioner
from fedkd.data.records import Records
from fedkd.data.splits import units_of
from fedkd.knowledge import Array, BadInput, Range


def site(smallest: Annotated[int, Range(1)] = 1) -> Partitioner:
    """The records' own sites under their own names; no randomness.

    Sites with fewer than `smallest` rows are left out with their rows. `clients.count` smaller
    than the number of sites takes the first by name, a choice that depends on no record; null
    takes all. A patient seen at several sites goes whole to the site of the first of their rows.
    """

    def divide(records: Records, count: int | None, rng: np.random.Generator) -> dict[str, Array]:
        if records.sites is None:
            raise BadInput(
                "records that name no sites",
                "a data set with sites for partition=site",
                "use partition=dirichlet, iid, shards or quantity, or give the schema a site",
            )
        units = units_of(records)
        where = records.sites[units.first][units.of_row]
        rows = {str(name): np.flatnonzero(where == name) for name in np.unique(where)}
        kept = {name: mine for name, mine in sorted(rows.items()) if len(mine) >= smallest}
        wanted = len(kept) if count is None else count
        if not 1 <= wanted <= len(kept):
            raise BadInput(
                f"{len(kept)} sites of at least {smallest} rows",
                f"clients.count={count} sites" if kept else "at least one site",
                "set clients.count=null to take all, or lower partition.smallest",
            )
        return dict(list(kept.items())[:wanted])

    return divide
