"""What a site is taught of a consensus: all of it, or what stands above its row's minimum."""

import numpy as np

from fedkd.knowledge.distributions import Distributions, normalised


def plain(consensus: Distributions) -> Distributions:
    """The consensus as it is."""
    return consensus


def minimum_subtracted(consensus: Distributions) -> Distributions:
    """The consensus less its row's minimum, renormalised: what gates mixed in is taken out again.

    Only for gated answers about more than two classes: with two it leaves votes.
    """
    probs = consensus.probs.astype(np.float64)
    raised = normalised(probs - probs.min(axis=1, keepdims=True))
    return Distributions(raised.astype(np.float32), consensus.about)
