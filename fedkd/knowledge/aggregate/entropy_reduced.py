"""Sharpens the mean (entropy reduction aggregation of DS-FL): same argmax, less entropy."""

from typing import Annotated

import numpy as np

from fedkd.knowledge.aggregate.mean import consensus_of, mean
from fedkd.knowledge.answers import Aggregator, Answers, Consensus, Memory, remember_nothing
from fedkd.knowledge.ranges import Range


def entropy_reduced(temperature: Annotated[float, Range(0.01, 1.0)] = 0.1) -> Aggregator:
    """Softmax of the mean probabilities over `temperature`.

    It sharpens while the temperature is small (0.1 is the paper's); near 1 it flattens instead.

    Source: Itahara, Nishio, Koda, Morikura and Yamamoto, 2020, Distillation-based semi-supervised
    federated learning (DS-FL), arXiv:2008.06180.
    """

    def combine(memory: Memory, answers: Answers) -> tuple[Memory, Consensus]:
        _, averaged = mean().combine(memory, answers)
        scores = averaged.common.probs.astype(np.float64) / temperature
        return memory, consensus_of(np.exp(scores - scores.max(axis=1, keepdims=True)), answers)

    return Aggregator(remember_nothing, combine)
