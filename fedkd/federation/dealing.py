"""Deals a data set out to simulated sites: each gets a folder, and nothing beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedkd.data import Dataset, Records
from fedkd.data.bundled import HELD_OUT
from fedkd.data.splits import hold_out, validation
from fedkd.federation.randomness import SERVER, stream
from fedkd.federation.site import SiteSettings, found_site
from fedkd.knowledge import Array, BadInput, Public, QuerySet, digest_of_arrays
from fedkd.wire import UNKNOWN
from fedkd.wire.fields import SITE

TAKEN = (SERVER, "server", UNKNOWN)
"""Names that stand for somebody else: the server, its log, and a node that has no site."""

Partitioner = Callable[[Records, int | None, np.random.Generator], Mapping[str, Array]]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A data set cut for a simulation: who has which private rows, what is asked, the test."""

    private: Records
    sites: Mapping[str, Array]
    queries: QuerySet | None
    test: Records


def cut(
    dataset: Dataset,
    partition: Partitioner,
    *,
    seed: int,
    count: int | None,
    queries: int,
    test_size: float | int | None,
    records: int | None,
) -> Cut:
    """Cuts `dataset`; the same arguments give the same cut. `queries` 0 holds none out."""
    held = hold_out(
        dataset,
        queries=queries,
        test_size=test_size,
        records=records,
        rng=stream(seed, SERVER, 0, "hold_out"),
    )
    sites = partition(held.private, count, stream(seed, SERVER, 0, "partition"))
    for site in sites:
        _check_name(site)
    return Cut(held.private, sites, _asked(dataset, held.queries), held.test)


def cut_own(dataset: Dataset, *, seed: int, queries: int) -> Cut:
    """A coordinator's own records, of which no site has any: `queries` without labels, and a test.

    `BadInput` where queries are wanted and there are no records to take them from.
    """
    records = dataset.records
    if not len(records):
        if queries:
            raise BadInput(
                "query=public without data.path",
                "records that are nobody's patients, in the federation's form",
                "add data.path=FILE, or take query=synthetic with generator=dictionary",
            )
        return Cut(records, {}, None, records)
    if not queries:
        return Cut(records.take(np.arange(0)), {}, None, records)
    most = max(1, len(records) - queries - 1)
    rng = stream(seed, SERVER, 0, "hold_out")
    held = hold_out(dataset, queries=queries, test_size=most, records=None, rng=rng)
    return Cut(records.take(np.arange(0)), {}, _asked(dataset, held.queries), held.test)


def _asked(dataset: Dataset, inputs: Array | None) -> QuerySet | None:
    if inputs is None:
        return None
    name = f"{dataset.card.name}{HELD_OUT}"
    digest = digest_of_arrays({"kind": "public inputs"}, {"inputs": inputs})
    return QuerySet(inputs, Public(name, dataset.card.licence, digest))


def deal(
    dealt: Cut,
    folder: Path,
    *,
    seed: int,
    share: float,
    settings: Callable[[int, str], SiteSettings],
    opening: Callable[[SiteSettings, Records], Mapping[str, Any] | None],
    patients: Sequence[str] = (),
) -> None:
    """Founds one site for each part; `share` of its records judge its own model.

    `opening` makes the opening record of a site's budget, from its settings and public facts;
    None where its officer's paper will open it. `patients` are what the source calls them, by
    code: each site is told its own.
    """
    parts = []
    for number, (site, rows) in enumerate(sorted(dealt.sites.items())):
        records = dealt.private.take(rows)
        train, held = validation(records, share, stream(seed, site, 0, "validation"))
        told = settings(number, site)
        parts.append((site, told, train, held, opening(told, train)))
    for site, told, train, held, opened in parts:  # once every budget is one that can be opened
        found_site(folder / site, told, train, held, opened, patients)


def _check_name(site: str) -> None:
    if not SITE.fullmatch(site) or site in TAKEN:
        raise BadInput(
            f"a site named {site!r}",
            f"1 to 64 of A-Z a-z 0-9 space . _ -, no dot at an end, none of {TAKEN}",
            "rename it in the site column",
        )
