"""Exact limits of a binomial share: how far a count lets one be sure."""

from typing import NamedTuple

from scipy import special


class Interval(NamedTuple):
    """Between `low` and `high`, both in [0, 1]."""

    low: float
    high: float


def at_least(hits: int, trials: int, alpha: float) -> float:
    """The share is at least this, save with probability `alpha` (0 where nothing was tried).

    Clopper and Pearson, 1934, The use of confidence or fiducial limits: exact, never too bold.
    """
    _check(hits, trials, alpha)
    return float(special.betaincinv(hits, trials - hits + 1, alpha)) if hits else 0.0


def at_most(hits: int, trials: int, alpha: float) -> float:
    """The share is at most this, save with probability `alpha` (1 where nothing was tried)."""
    _check(hits, trials, alpha)
    if hits == trials:
        return 1.0
    return float(special.betaincinv(hits + 1, trials - hits, 1 - alpha))


def clopper_pearson(hits: int, trials: int, alpha: float = 0.05) -> Interval:
    """The share lies in here, save with probability `alpha`, half of it on either side."""
    return Interval(at_least(hits, trials, alpha / 2), at_most(hits, trials, alpha / 2))


def _check(hits: int, trials: int, alpha: float) -> None:
    if not (0 <= hits <= trials and 0 < alpha < 1):
        raise ValueError(
            f"found {hits} hits in {trials} trials at alpha {alpha}, expected 0 <= hits <= trials "
            "and 0 < alpha < 1"
        )
