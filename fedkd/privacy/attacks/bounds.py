"""Bounds on privacy from below, from what attacks found: they refute a claim or are silent."""

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from fedkd.knowledge import Array
from fedkd.privacy.attacks.intervals import at_least, at_most

# n releases on either side.

TO_CHOOSE = 4
"""One in so many releases chooses the threshold, and is then counted no more."""
QUANTILES = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.995)
"""Where a threshold may lie, among the scores of both sides together."""


def epsilon_from_counts(
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    alpha: float,
    delta: float = 0.0,
) -> float:
    """With these counts epsilon is at least this, save with probability `alpha`.

    For independent trials of ONE test that was fixed beforehand. (epsilon, delta) allows
    TPR <= e^epsilon FPR + delta, and the same of the complements (Kairouz, Oh and Viswanath, 2015,
    The composition theorem for differential privacy, 1311.0776, section 2.1); each of both rates
    is bounded at alpha / 2, from the one side that either inequality uses. 0: nothing is said.
    """
    found = at_least(true_positives, positives, alpha / 2)
    alarms = at_most(false_positives, negatives, alpha / 2)
    return max(0.0, _epsilon_at(found, alarms, delta))


def lower_bound_epsilon(left: Array, right: Array, alpha: float, delta: float = 0.0) -> float:
    """A mechanism's epsilon is at least this, save with probability `alpha`.

    `left` and `right` [n]: independent releases on two neighbouring data sets, as many of each,
    projected so that `right` is larger. A quarter chooses the threshold, the rest is counted.
    """
    found, alarms = _rates(left, right, alpha, lambda tpr, fpr: _epsilon_at(tpr, fpr, delta))
    return max(0.0, _epsilon_at(found, alarms, delta))


def lower_bound_mu(left: Array, right: Array, alpha: float) -> float:
    """A mechanism's mu (Gaussian differential privacy) is at least this, save with prob. `alpha`.

    `left` and `right` [n]: independent releases on two neighbouring data sets, as many of each,
    projected so that `right` is larger. The larger of two bounds, each at alpha / 2:

    - Pairs, without a threshold. (left, right) and (right, left) are sqrt(2) mu apart by
      composition, and two Gaussians at that distance are told apart in a share Phi(mu / sqrt 2)
      of cases at best: Dong, Roth and Su, 2022, Gaussian differential privacy, 1905.02383,
      corollary 3.3. Nothing is spent on choosing: this finds a noise that is too small.
    - A threshold, chosen on a quarter of the releases: Phi^-1(TPR) - Phi^-1(FPR) <= mu. This
      finds what happens seldom and tells all.
    """
    _check(left, right)
    won = at_least(int((right > left).sum()), len(left), alpha / 2)  # a tie wins nothing
    by_pairs = math.sqrt(2) * float(special.ndtri(won))
    return max(0.0, by_pairs, _mu_at(*_rates(left, right, alpha / 2, _mu_at)))


def lower_bound_mu_of_sample(left: Array, right: Array, alpha: float, rate: float) -> float:
    """The same by pairs, of what was done to a sample that takes each unit with this `rate`.

    `right` are releases on data with the unit: where it was not in the sample, they are as `left`,
    so that a share (1 - rate) / 2 + rate * Phi(mu / sqrt 2) of pairs is told apart at best. The mu
    is that of what was done to the sample; infinite where more is told apart than any allows.
    """
    _check(left, right)
    won = at_least(int((right > left).sum()), len(left), alpha)  # a tie wins nothing
    share = (won - (1 - rate) / 2) / rate
    return max(0.0, math.sqrt(2) * float(special.ndtri(share))) if share < 1 else math.inf


def _rates(
    left: Array, right: Array, alpha: float, gain: Callable[[float, float], float]
) -> tuple[float, float]:
    """(TPR at least, FPR at most) of a threshold that the first quarter chose by `gain`."""
    _check(left, right)
    cut = len(left) // TO_CHOOSE

    def limits(threshold: float, low: Array, high: Array) -> tuple[float, float]:
        found = at_least(int((high > threshold).sum()), len(high), alpha / 2)
        return found, at_most(int((low > threshold).sum()), len(low), alpha / 2)

    chosen = max(
        np.unique(np.quantile(np.concatenate([left[:cut], right[:cut]]), QUANTILES)).tolist(),
        key=lambda threshold: gain(*limits(threshold, left[:cut], right[:cut])),
    )
    return limits(chosen, left[cut:], right[cut:])


def _mu_at(tpr: float, fpr: float) -> float:
    return float(special.ndtri(tpr) - special.ndtri(fpr)) if tpr > 0 and fpr < 1 else 0.0


def _epsilon_at(tpr: float, fpr: float, delta: float) -> float:
    sides = ((tpr, fpr), (1 - fpr, 1 - tpr))
    return max(math.log((high - delta) / low) if high > delta else 0.0 for high, low in sides)


def _check(left: Array, right: Array) -> None:
    if left.shape != right.shape or left.ndim != 1 or len(left) < 2 * TO_CHOOSE:
        raise ValueError(
            f"found samples of shapes {left.shape} and {right.shape}, expected as many of each, "
            f"{2 * TO_CHOOSE} at least"
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise ValueError("found a projection that is not a finite number")
