"""Asks around a record: a server that chooses the queries need not ask for the record itself."""

from collections.abc import Iterator

import numpy as np

from fedkd.knowledge import Array
from fedkd.privacy.attacks.lira import Score, Speaker
from fedkd.privacy.attacks.scores import scaled

# N records, Q public inputs, V variants of a record.


def near(
    records: Array, public: Array, variants: int, share: float, rng: np.random.Generator
) -> Iterator[Array]:
    """V times [N, ...]: each record with about `share` of its coordinates from a public input.

    Every coordinate is one that some input had, so that what checks ranges and categories lets it
    through; one at least is a public input's. `records` [N, ...], `public` [Q, ...].
    """
    for _ in range(variants):
        others = public[rng.integers(len(public), size=len(records))]
        taken = rng.random(records.shape) < share
        flat = taken.reshape(len(records), -1)
        flat[np.arange(len(records)), rng.integers(flat.shape[1], size=len(records))] = True
        yield np.where(taken, others, records)


def score_near(
    records: Array,
    labels: Array,
    public: Array,
    rng: np.random.Generator,
    *,
    variants: int = 8,
    share: float = 0.1,
) -> Score:
    """A score for LiRA: the mean scaled confidence [N] over queries near each record.

    The queries are drawn once: every speaker is asked the same.
    """
    asked = np.concatenate(list(near(records, public, variants, share, rng)))

    def score(speaker: Speaker) -> Array:
        said = scaled(speaker(asked), np.tile(labels, variants))
        return np.asarray(said.reshape(variants, len(labels)).mean(axis=0))

    return score
