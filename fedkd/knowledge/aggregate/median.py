"""Takes the median of the sites' probabilities, class by class: for near-IID sites with liars."""

import numpy as np

from fedkd.knowledge.aggregate.mean import consensus_of
from fedkd.knowledge.answers import Aggregator, Answers, Consensus, Memory, remember_nothing


def median() -> Aggregator:
    """Coordinate-wise median over the sites that answered, rows renormalised; weights are ignored.

    Under label skew the few hospitals that know a class are the outliers, and the median drops
    them: use it only where sites resemble each other.
    """

    def combine(memory: Memory, answers: Answers) -> tuple[Memory, Consensus]:
        said = np.where(answers.answered[:, :, None], answers.probs, np.nan)
        silent = ~answers.answered.any(axis=0)
        said[:, silent, :] = 1.0 / answers.probs.shape[2]
        return memory, consensus_of(np.nanmedian(said, axis=0), answers)

    return Aggregator(remember_nothing, combine, withstands=0.2)
