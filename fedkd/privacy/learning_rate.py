"""Derives the learning rate of a private training from its noise: public numbers alone.

Private training has one trade-off: far enough to learn, not so far that the noise that was added
on the way drowns what was learnt. With n patients, T steps, sampling rate q, noise multiplier z,
clip C and momentum m, gradient descent by the rate r moves a weight by at most r T C / (1 - m), and
its noise adds up to a standard deviation of about r z C sqrt(T) / ((1 - m) q n). The second is what
is fixed here, whatever the budget and the hospital: then a hospital with few patients, or a small
epsilon, walks less far and says things closer to even, so that in a mean it counts for less.
"""

import math

NOISE_IN_A_WEIGHT = 0.08
"""Standard deviation of the noise that all steps together leave in a weight.

Chosen on validation records: on tables, images, linear models and networks, at epsilon 1 to 8,
the best value lay between 0.06 and 0.12, and little changed within (docs/benchmarks.md)."""
LONGEST_STEP = 5.0
"""The most that one step moves all weights together, where little noise would allow more."""
TRAVEL_OF_ADAM = 1.2
"""How far a weight goes at most with Adam, whose steps are as long whatever the noise."""


def derived_learning_rate(
    optimizer: str,
    momentum: float,
    *,
    patients: int,
    steps: int,
    sampling_rate: float,
    noise_multiplier: float,
    clip: float,
) -> float:
    """The rate that leaves noise of `NOISE_IN_A_WEIGHT`, within `LONGEST_STEP`, for `sgd`.

    For `adam` it is `TRAVEL_OF_ADAM / steps`.
    """
    if optimizer == "adam":
        return TRAVEL_OF_ADAM / steps
    noise = noise_multiplier * clip * math.sqrt(steps) / (sampling_rate * patients)
    return (1 - momentum) * min(NOISE_IN_A_WEIGHT / noise, LONGEST_STEP / clip)
