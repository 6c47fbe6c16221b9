"""Says what an epsilon means to a person: whom an attacker recognises, and what the odds are."""

import math

from scipy.special import ndtr, ndtri

from fedkd.knowledge import BadInput
from fedkd.privacy.accounting import mu_of_epsilon
from fedkd.privacy.filters import FILTERS


def recognised(epsilon: float, delta: float, filter: str, false_alarms: float = 0.01) -> float:
    """The share of members, at most, that an attacker tells apart from those who were left out.

    `false_alarms` is the share of those left out whom he takes for members. It bounds every
    attacker who sees all that was let out and knows all other records. Under `gdp` the trade-off
    is the Gaussian one (Dong, Roth, Su, 2022, arXiv:1905.02383, equation 6): Phi(Phi^-1(f) + mu).
    Any (epsilon, delta) gives min(e^epsilon f + delta, 1 - e^-epsilon (1 - delta - f)) (Kairouz,
    Oh, Viswanath, 2015, arXiv:1311.0776).
    """
    _expect_claimable(epsilon, delta)
    if not 0 <= false_alarms <= 1:
        raise BadInput(f"a share {false_alarms!r} of false alarms", "a number in [0, 1]")
    if filter not in FILTERS:
        raise BadInput(f"filter {filter!r}", f"one of {', '.join(FILTERS)}")
    low = math.exp(min(epsilon, 700.0)) * false_alarms + delta
    high = 1 - math.exp(-epsilon) * (1 - delta - false_alarms)
    general = min(1.0, low, high)
    if filter != "gdp":
        return general
    if false_alarms in (0.0, 1.0):
        return false_alarms
    mu = mu_of_epsilon(epsilon, delta)
    return min(general, float(ndtr(ndtri(false_alarms) + mu)))


def in_words(epsilon: float, delta: float, filter: str, unit: str = "patient") -> str:
    """Two sentences for a data protection officer: whom an attacker recognises, and the odds."""
    caught = 100 * recognised(epsilon, delta, filter)
    return (
        f"Of 100 {unit}s whose data were used, an attacker recognises at most {caught:.1f} if he "
        f"accepts one false alarm in 100. {odds_in_words(epsilon, delta)}"
    )


def odds_in_words(epsilon: float, delta: float) -> str:
    """What (epsilon, delta) means, in the only words that it supports."""
    _expect_claimable(epsilon, delta)
    times = math.exp(min(epsilon, 700.0))
    fold = f"{times:.2f}" if times < 100 else f"{times:.3g}"
    return (
        f"The odds that somebody took part rise at most {fold}-fold (e^{epsilon:g}), save with "
        f"probability about {delta:.2g}."
    )


def _expect_claimable(epsilon: float, delta: float) -> None:
    if isinstance(epsilon, bool) or not (0 <= epsilon < math.inf) or not 0 < delta < 1:
        raise BadInput(
            f"epsilon {epsilon!r} at delta {delta!r}",
            "a finite epsilon of at least 0 and a delta in (0, 1)",
            "an open budget bounds no risk: say NOT PRIVATE",
        )
