"""Averages the sites' log-probabilities: sharper than the mean, and easily silenced by a zero."""

from typing import Annotated

import numpy as np

from fedkd.knowledge.aggregate.mean import consensus_of, voices
from fedkd.knowledge.answers import Aggregator, Answers, Consensus, Memory, remember_nothing
from fedkd.knowledge.ranges import Range


def log_mean(floor: Annotated[float, Range(1e-12, 1e-3)] = 1e-6) -> Aggregator:
    """Normalised geometric mean of probabilities, each no smaller than `floor`.

    A hospital that never saw a class vetoes it: under strong label skew this rule is far behind
    the mean. `floor` stays well under 1 / C, or an answer could lose its argmax.
    """

    def combine(memory: Memory, answers: Answers) -> tuple[Memory, Consensus]:
        voice = voices(answers)
        total = np.maximum(voice.sum(axis=0), np.finfo(float).tiny)
        logs = np.einsum("pq,pqc->qc", voice, np.log(np.maximum(answers.probs, floor)))
        logs = logs / total[:, None]
        return memory, consensus_of(np.exp(logs - logs.max(axis=1, keepdims=True)), answers)

    return Aggregator(remember_nothing, combine)
