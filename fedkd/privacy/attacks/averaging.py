"""Asks again and again: the mean of fresh answers has less noise, that of a stored one has not."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from fedkd.knowledge import Array
from fedkd.privacy.attacks.scores import auc, negative_loss

# N records, C classes.

Release: TypeAlias = Callable[[Array, np.random.Generator], Array]
"""What a mechanism lets out of what a model says, [N, C], with fresh noise at each call."""


def averaged(release: Release, said: Array, answers: int, rng: np.random.Generator) -> Array:
    """The mean of so many answers to the same question [N, C]: noise falls with their root."""
    total = np.zeros(said.shape)
    for _ in range(answers):
        total += release(said, rng)
    return total / answers


def mean_answer(answers: Sequence[Array]) -> Array:
    """The mean of answers [Q, C] to the same queries, in their type."""
    return np.asarray(np.mean(np.stack(answers), axis=0))


def stored(release: Release) -> Release:
    """`release` behind a ledger: the same question gets the answer that was given, bit for bit."""
    given: dict[bytes, Array] = {}

    def released_once(said: Array, rng: np.random.Generator) -> Array:
        question = said.tobytes()
        if question not in given:
            given[question] = release(said, rng)
        return given[question]

    return released_once


def auc_by_answers(
    release: Release,
    said: Array,
    labels: Array,
    member: Array,
    counts: Sequence[int],
    rng: np.random.Generator,
) -> Mapping[int, float]:
    """The loss attack's AUC after each of `counts` answers to the same records.

    `said` [N, C] is what the model says of them without noise, `member` [N] bool the truth.
    """
    found = {}
    for count in counts:
        scores = negative_loss(averaged(release, said, count, rng), labels)
        found[count] = auc(scores[member], scores[~member])
    return found
