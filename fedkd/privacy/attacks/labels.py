"""Reads a hospital's mix of diagnoses from its answers: a fact about the group, not a person."""

import numpy as np

from fedkd.knowledge import Array

# Q queries, C classes, N records.


def mix_of_answers(probs: Array) -> Array:
    """The label mix [C] that answers [Q, C] betray: their mean.

    What a model says of queries that know nothing leans to what it saw most. 2502.08001, label
    distribution inference, in its simplest form. Privacy for patients does not bound it.
    """
    return np.asarray(probs.astype(np.float64).mean(axis=0))


def mix_of_labels(labels: Array, classes: int) -> Array:
    """The true mix [C] of `labels` [N]."""
    return np.asarray(np.bincount(labels, minlength=classes) / len(labels))


def total_variation(first: Array, second: Array) -> float:
    """Half the sum of the differences of two mixes [C]: 0 alike, 1 disjoint."""
    return float(np.abs(first - second).sum() / 2)
