"""Says in counts how a model does, for the log: whoever reads it computes any share from them.

N records, G groups, B answers, C true classes.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from fedkd.data import Records
from fedkd.federation.evaluating import Grouping
from fedkd.federation.evaluation import Seen, figures_of
from fedkd.knowledge import Array
from fedkd.privacy.counts import cells, once_each

EVERYWHERE = "all"
"""The place of a table over all places together, and the group of one over all groups."""
THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""At which an examination of two classes counts: a release may choose any of them."""
BINS = 15
"""Of confidence, as in the expected calibration error."""


def tables(
    seen: Sequence[Seen], grouping: Grouping, *, where: str, took_part: bool | None
) -> list[dict[str, Any]]:
    """Exact counts as `cells` [B, C]: a table for all groups together, then one for each.

    `where` names one hospital, or all; `took_part` says whether it was in the federation, None
    where that is no question.
    """
    summed = np.sum([one.counts for one in seen], axis=0)
    named = {"where": where, "took_part": took_part}
    made: list[dict[str, Any]] = []
    for name, place in _groups(grouping):
        cells = summed.sum(axis=0) if place is None else summed[place]
        made.append({**named, "group": name, "cells": cells.tolist()})
    return made


def _groups(grouping: Grouping) -> list[tuple[str, int | None]]:
    several = enumerate(grouping.names) if len(grouping.names) > 1 else ()
    return [(EVERYWHERE, None), *((name, place) for place, name in several)]


def by_place(
    probs: Array, test: Records, took_part: Sequence[str], classes: Sequence[str]
) -> dict[str, Any]:
    """What an examination's entry holds of a student beside its figures.

    `probs` [N, C] are its answers on `test`. Counted are patients, each once, by the first of their
    rows: together and, where the records name hospitals, at each, also at those that took no part.
    The bins are of all rows, as the calibration error is.
    """
    chosen = once_each(test.patients, len(test))
    labels = test.labels[chosen]
    thresholds = THRESHOLDS if len(classes) == 2 else ()
    places: dict[str, Array] = {EVERYWHERE: np.ones(len(chosen), dtype=bool)}
    if test.sites is not None:
        sites = test.sites[chosen]
        places |= {str(site): sites == site for site in np.unique(sites)}
    made = []
    for where, rows in places.items():
        group = np.zeros(int(rows.sum()), dtype=np.int64)
        counts = cells(probs[chosen][rows], labels[rows], thresholds, group, 1)[0]
        part = None if where == EVERYWHERE else where in took_part
        table = {"where": where, "took_part": part, "group": EVERYWHERE, "cells": counts.tolist()}
        made.append(table)
    return {
        "thresholds": list(thresholds),
        "classes": list(classes),
        "group": None,
        "measured": made,
        "reliability": reliability(probs, test.labels),
    }


def reliability(probs: Array, labels: Array) -> list[dict[str, Any]]:
    """The bins of confidence that hold answers: bounds, how many, how many right, mean confidence.

    `probs` [N, C] against `labels` [N]. Equal bins as in Guo, Pleiss, Sun and Weinberger, 2017, On
    calibration of modern neural networks, section 2.
    """
    confidence = probs.max(axis=1).astype(np.float64)
    right = probs.argmax(axis=1) == labels
    # As the calibration error is computed, to the last bit: in the type of `probs`.
    place = np.minimum((probs.max(axis=1) * BINS).astype(int), BINS - 1)
    return [
        {
            "low": bin / BINS,
            "high": (bin + 1) / BINS,
            "count": int((place == bin).sum()),
            "right": int(right[place == bin].sum()),
            "confidence": float(confidence[place == bin].mean()),
        }
        for bin in np.unique(place).tolist()
    ]


def of_question(
    seen: Mapping[str, Seen],
    grouping: Grouping,
    thresholds: Sequence[float],
    classes: Sequence[str],
    outsiders: Collection[str] = (),
) -> list[dict[str, Any]]:
    """The tables of sites that answered a question: together by group, and each by itself.

    `outsiders` took no part in the run: they are by themselves alone. The tables hold shares with
    intervals that allow for the noise, and never a site's counts: a log is handed over to more
    people than a site answered.
    """

    def shares(of: Sequence[Seen], place: int | None) -> dict[str, Any]:
        found = figures_of(of, thresholds, classes, place)
        for row in found.get("thresholds", ()):
            del row["counts"]
        return found

    every = [one for site, one in seen.items() if site not in outsiders]
    made: list[dict[str, Any]] = [
        {"where": EVERYWHERE, "took_part": None, "group": name, "figures": shares(every, place)}
        for name, place in (_groups(grouping) if every else ())
    ]
    for site, one in seen.items():
        figures = shares([one], None)
        part = site not in outsiders
        row = {"where": site, "took_part": part, "group": EVERYWHERE, "figures": figures}
        made.append(row)
    return made
