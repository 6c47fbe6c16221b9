"""Counts what costs come to: exact for Gaussian noise, by dp_accounting for everything else.

Letters: mu is the parameter of Gaussian differential privacy, z a noise multiplier, a an order of
Renyi differential privacy, r a Renyi divergence in nats; epsilon is in nats. The one neighbouring
relation is "all of a patient's records are replaced by null" (REPLACE_SPECIAL): costs are those of
adding or removing a patient, while the number of patients may be public.

Where a number is rounded, it is rounded against ourselves: what was spent upwards, what may be
spent downwards.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from scipy.special import erfinv, gammaln, log_ndtr, ndtri_exp

from fedkd.knowledge import Array, BadInput
from fedkd.privacy.events import Cost, canonical, dp_event, in_words, leaves

ORDERS: tuple[float, ...] = (
    *(n / 10 for n in range(20, 110)),
    *map(float, range(11, 64)),
    *map(float, range(64, 129, 4)),
    *(160.0, 192.0, 256.0, 384.0, 512.0, 768.0, 1024.0),
)
"""Orders that `epsilon` tries. Below 2, dp_accounting's series does not converge for large rates,
and no guarantee is left that would be worth stating."""
WHOLE_ORDERS = tuple(order for order in ORDERS if order.is_integer())
"""Orders that a ledger can be opened with: at these a divergence is a finite sum, which always
converges. Between them little is lost."""

_STEP = 1e-4
"""Nats: the grid of privacy losses on which PLD composes."""
_FINE_TO = 50.0
"""Nats: above this epsilon the grid is as much coarser, so that it stays within memory."""

_ROUNDING = 2.0**-40
"""More than dp_accounting's rounding in a Renyi divergence, relative and absolute."""


# Gaussian differential privacy: mu against (epsilon, delta).


def delta_of_mu(mu: float, epsilon: float) -> float:
    """The least delta for which mu-GDP is (epsilon, delta)-DP, rounded upwards.

    Dong, Roth, Su, 2022, Gaussian differential privacy, arXiv:1905.02383, corollary 2.13; the same
    as theorem 8 of Balle, Wang, 2018, arXiv:1805.06530, with mu = 1/z.
    """
    if mu == 0:
        return 0.0
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    if first < -700:
        return math.ulp(0.0)
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    # Both tails are right to a few units in the last place, times what their logarithm loses.
    rounding = 2.0**-48 * (8 + abs(first) + epsilon)
    return min(1.0, math.exp(first) * max(0.0, -math.expm1(second - first) + rounding))


def epsilon_of_mu(mu: float, delta: float) -> float:
    """The least epsilon, in nats, for which mu-GDP is (epsilon, delta)-DP, rounded upwards."""
    _expect_delta(delta)
    if not mu >= 0 or math.isnan(mu):
        raise BadInput(f"mu {mu!r}", "a number of at least 0")
    if delta_of_mu(mu, 0.0) <= delta:
        return 0.0
    high = 1.0
    while delta_of_mu(mu, high) > delta:
        high *= 2
        if high > 1e300:
            return math.inf
    return edge(high, 0.0, lambda epsilon: delta_of_mu(mu, epsilon) <= delta)


def mu_of_epsilon(epsilon: float, delta: float) -> float:
    """The largest mu for which mu-GDP is (epsilon, delta)-DP, rounded downwards."""
    _expect_delta(delta)
    _expect_epsilon(epsilon)
    high = 1.0
    while delta_of_mu(high, epsilon) <= delta:
        high *= 2
    return edge(0.0, high, lambda mu: delta_of_mu(mu, epsilon) <= delta)


def mu_of_pure(epsilon: float) -> float:
    """The mu of which epsilon-DP (delta 0) is never worse, rounded upwards.

    Phi(-mu/2) = 1/(1 + e^epsilon): there the trade-off curve of randomised response touches the
    Gaussian one, which is convex and so lies below its two chords. Dong, Roth, Su, 2022,
    arXiv:1905.02383, section 2.2.
    """
    _expect_epsilon(epsilon)
    if epsilon < 1:  # 2 Phi^-1(e^epsilon / (1 + e^epsilon)), where that lies near one half
        mu = math.sqrt(8) * float(erfinv(math.tanh(epsilon / 2)))
    else:
        mu = -2 * float(ndtri_exp(-epsilon - math.log1p(math.exp(-epsilon))))
    return mu * (1 + 2.0**-40)


def edge(good: float, bad: float, holds: Callable[[float], bool], halvings: int = 200) -> float:
    """The last number between `good` and `bad` for which `holds`, by bisection: it surely holds."""
    for _ in range(halvings):
        middle = (good + bad) / 2
        if middle in (good, bad):
            break
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


# Renyi differential privacy: r at an order a against (epsilon, delta).


def epsilon_of_rdp(order: float, divergence: float, delta: float) -> float:
    """The epsilon, in nats, of (order, divergence)-RDP at `delta`, rounded upwards.

    Canonne, Kamath, Steinke, 2020, arXiv:2004.00010, proposition 12.
    """
    _expect_delta(delta)
    epsilon = divergence + conversion(order, delta)
    return max(0.0, epsilon + 2.0**-48 * (1 + abs(epsilon)))


def rdp_of_epsilon(order: float, epsilon: float, delta: float) -> float:
    """The largest divergence, in nats, that is (epsilon, delta)-DP, rounded down; 0: none is."""
    _expect_delta(delta)
    divergence = epsilon - conversion(order, delta)
    return max(0.0, divergence - 2.0**-48 * (1 + epsilon + abs(divergence)))


def conversion(order: float, delta: float) -> float:
    """What turning a divergence at `order` into epsilon adds to it, in nats."""
    return math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)


def rdp_of_pure(order: float, epsilon: float) -> float:
    """The largest divergence at `order` of any epsilon-DP mechanism, in nats, rounded upwards.

    That of randomised response, of which each of them is post-processing (Kairouz, Oh, Viswanath,
    2015, arXiv:1311.0776); Mironov, 2017, arXiv:1702.07476, proposition 5.
    """
    first = (order - 1) * epsilon + math.log1p(math.exp((1 - 2 * order) * epsilon))
    divergence = (first - math.log1p(math.exp(-epsilon))) / (order - 1)
    return max(0.0, divergence) * (1 + _ROUNDING) + _ROUNDING


def rdp_at(order: float, cost: Cost) -> float:
    """The Renyi divergence of a canonical cost at `order`, in nats, rounded upwards.

    By dp_accounting, whose sums are slow for a ledger of thousands of charges: where they are
    finite, at whole orders of sampled Gaussian noise, they are done here. `BadInput` where a cost
    cannot be counted at this order.
    """
    return _rdp_at(order, _Release(repr(cost), cost))


@dataclass(frozen=True, slots=True)
class _Release:
    """A canonical cost that can be looked up: its fields have an order, and so its text is one."""

    text: str
    cost: Cost = field(compare=False)


@lru_cache(maxsize=2**16)
def _rdp_at(order: float, release: _Release) -> float:
    cost = release.cost
    if _is_sampled_gaussian(cost) and order >= 2 and float(order).is_integer():
        divergence = _rdp_of_sample(int(order), cost["rate"], cost["of"]["noise_multiplier"])
    else:
        (divergence,) = _compose(_rdp_accountant([order]), [(cost, 1)]).rdp
    if not math.isfinite(divergence):
        raise BadInput(
            f"{in_words(cost)}, which has no finite divergence at order {order:g}",
            "one that this order can count",
            "choose more noise, or a ledger of another order",
        )
    return max(0.0, float(divergence)) * (1 + _ROUNDING) + _ROUNDING


def _is_sampled_gaussian(cost: Cost) -> bool:
    return bool(cost["event"] == "PoissonSampled" and cost["of"]["event"] == "Gaussian")


def _rdp_of_sample(order: int, rate: float, noise_multiplier: float) -> float:
    """The divergence at a whole order of Gaussian noise on a Poisson sample of `rate` below 1.

    Mironov, Talwar, Zhang, 2019, arXiv:1908.10530, section 3.3: (a - 1) r is the logarithm of
    sum_i C(a, i) (1 - q)^(a - i) q^i exp((i^2 - i) / 2 z^2). The binomial terms sum to one, so it
    is one plus the sum over exp(...) - 1, in which nothing cancels.
    """
    terms, squares = _binomial(order)
    with np.errstate(all="ignore"):  # what comes out as no number is found by its reader
        grown = squares / (2 * np.float64(noise_multiplier) ** 2)
        # log(e^x - 1), for any x above 0
        log_grown = np.where(grown > 1, grown + np.log1p(-np.exp(-grown)), np.log(np.expm1(grown)))
        counts = np.arange(2, order + 1)
        logs = terms + counts * math.log(rate) + (order - counts) * math.log1p(-rate) + log_grown
        if (most := logs.max()) == -math.inf:  # so much noise that not even a tiny number is left
            return 0.0
        return float(np.logaddexp(0.0, most + np.log(np.exp(logs - most).sum())) / (order - 1))


@lru_cache(maxsize=256)
def _binomial(order: int) -> tuple[Array, Array]:
    """Logarithms of C(order, i), and i^2 - i, for i from 2 to the order."""
    counts = np.arange(2, order + 1, dtype=np.float64)
    chosen = gammaln(order + 1) - gammaln(counts + 1) - gammaln(order - counts + 1)
    return chosen, counts * counts - counts


# Whole plans.


@dataclass(frozen=True, slots=True)
class Accounted:
    """An epsilon, in nats, with all that says how it was counted."""

    epsilon: float
    delta: float
    accountant: Literal["pld", "rdp"]
    version: str

    def __str__(self) -> str:
        name = {"pld": "privacy loss distributions", "rdp": "Renyi divergences"}[self.accountant]
        return (
            f"epsilon {self.epsilon:.6g} at delta {self.delta:.3g} by {name} ({self.version}): "
            "holds where all these costs were fixed beforehand, as one plan"
        )


def accounted(
    costs: Cost | Iterable[Cost], delta: float, accountant: Literal["pld", "rdp"] = "pld"
) -> Accounted:
    """`epsilon` of `costs`, with its label."""
    counted = epsilon(costs, delta, accountant)
    return Accounted(counted, delta, accountant, f"dp-accounting {version('dp-accounting')}")


def epsilon(
    costs: Cost | Iterable[Cost], delta: float, accountant: Literal["pld", "rdp"] = "pld"
) -> float:
    """The epsilon, in nats, of costs that were fixed beforehand, as one plan, at `delta`.

    Infinite where one of them is without protection; `BadInput` where the accountant cannot count
    one (PLD: zCDP, a sample of anything but one noise). Adding distributions of privacy loss that
    were chosen on the way is no guarantee in general (arXiv:2602.15815): a ledger does not do it.
    """
    _expect_delta(delta)
    tally = _tally(costs)
    if any(leaf["event"] == "NonPrivate" for leaf, _ in tally):
        return math.inf
    if not tally:
        return 0.0
    if accountant == "rdp":
        return max(0.0, float(_compose(_rdp_accountant(ORDERS), tally).get_epsilon(delta)))
    try:
        scale = float(_compose(_rdp_accountant(ORDERS), tally).get_epsilon(delta)) / _FINE_TO
    except BadInput:
        scale = 1.0
    composed = _compose(_pld_accountant(_STEP * max(1.0, scale)), tally)
    return max(0.0, float(composed.get_epsilon(delta)))


def _tally(costs: Cost | Iterable[Cost]) -> list[tuple[Cost, int]]:
    """Each distinct release, and how often it was made: thousands of charges are few of these."""
    found: Counter[_Release] = Counter()
    for cost in [costs] if isinstance(costs, Mapping) else costs:
        for leaf, count in leaves(canonical(cost)):
            found[_Release(repr(leaf), leaf)] += count
    return [(release.cost, found[release]) for release in sorted(found, key=lambda one: one.text)]


def _compose(accountant: Any, tally: Iterable[tuple[Cost, int]]) -> Any:
    from dp_accounting import UnsupportedEventError

    for cost, count in tally:
        try:
            with np.errstate(all="ignore"):  # what comes out as no number is found by its reader
                accountant.compose(dp_event(cost, is_canonical=True), count)
        except (UnsupportedEventError, ValueError, ArithmeticError) as error:
            raise BadInput(
                f"{in_words(cost)}, which {type(accountant).__name__} cannot count",
                "a cost that it can",
                "state what was done in the events that it knows",
            ) from error
    return accountant


def _rdp_accountant(orders: Iterable[float]) -> Any:
    from dp_accounting import NeighboringRelation, rdp

    return rdp.RdpAccountant(list(orders), NeighboringRelation.REPLACE_SPECIAL)


def _pld_accountant(step: float) -> Any:
    from dp_accounting import NeighboringRelation, pld

    return pld.PLDAccountant(NeighboringRelation.REPLACE_SPECIAL, step)


def _expect_delta(delta: float) -> None:
    if isinstance(delta, bool) or not 0 < delta < 1:  # NaN is in no range
        raise BadInput(f"delta {delta!r}", "a number in (0, 1)", "take the default, null")


def _expect_epsilon(epsilon: float) -> None:
    if isinstance(epsilon, bool) or not (epsilon >= 0 and math.isfinite(epsilon)):
        raise BadInput(f"epsilon {epsilon!r}", "a finite number of at least 0")
