"""Averages the sites' probabilities: the plain rule, and the default."""

import numpy as np

from fedkd.knowledge.answers import Aggregator, Answers, Consensus, Memory, remember_nothing
from fedkd.knowledge.digests import Array
from fedkd.knowledge.distributions import Distributions, normalised


def consensus_of(probs: Array, answers: Answers) -> Consensus:
    """A consensus [Q, C] that is float32, because that is what travels and what is hashed."""
    return Consensus(Distributions(normalised(probs).astype(np.float32), answers.about))


def voices(answers: Answers) -> Array:
    """How much each site counts for each query [P, Q]: its weight where it answered, else 0."""
    counted: Array = answers.weights[:, None] * answers.answered
    return counted


def mean() -> Aggregator:
    """Mean of probabilities; a query that nobody answered gets the uniform distribution."""

    def combine(memory: Memory, answers: Answers) -> tuple[Memory, Consensus]:
        summed = np.einsum("pq,pqc->qc", voices(answers), answers.probs)
        return memory, consensus_of(summed, answers)

    return Aggregator(remember_nothing, combine)
