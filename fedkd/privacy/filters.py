"""Prices costs for a privacy filter, in whole numbers, so that no rounding lets one more through.

A filter adds up one number for each release and stops before the sum passes its limit; then the
whole interaction is (epsilon, delta)-DP, although each next cost was chosen after the earlier
answers were seen. Adding epsilons, or distributions of privacy loss, has no such proof.

The numbers are counted in grains of 2^-128: a price is rounded up to a whole grain, a limit down.
So a sum is exact, the order of charges cannot matter, and replaying is charging.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import lru_cache
from numbers import Real
from typing import NamedTuple, TypeAlias

from fedkd.knowledge import BadInput
from fedkd.privacy.accounting import (
    epsilon_of_mu,
    epsilon_of_rdp,
    mu_of_epsilon,
    mu_of_pure,
    rdp_at,
    rdp_of_epsilon,
    rdp_of_pure,
)
from fedkd.privacy.events import Cost, in_words, leaves

GRAIN = 2**128
"""Grains in one: of mu^2 under `gdp`, of a nat under `rdp`."""
DEAREST = GRAIN * 2**64
"""What the dearest release is counted as, in grains: no limit is as high."""


class BudgetExhausted(Exception):
    """The budget does not cover this cost: nothing was charged, nothing was said.

    What it says depends on public facts alone, so that it may be sent.
    """

    def __init__(self, found: str, expected: str, remedy: str = "") -> None:
        self.found, self.expected, self.remedy = found, expected, remedy
        tail = f"; {remedy}" if remedy else ""
        super().__init__(f"found {found}, expected {expected}{tail}")


class NotChargeable(BudgetExhausted):
    """No budget of this kind of filter covers this cost, however large it is."""


class Filter(NamedTuple):
    """A kind of privacy filter at one delta.

    `price` is what a canonical cost takes, in grains, or `NotChargeable`; `limit` how many grains
    an epsilon allows (0: none); `epsilon` what a sum of grains comes to. Epsilons are in nats.
    """

    name: str
    order: float | None
    price: Callable[[Cost], int]
    limit: Callable[[float], int]
    epsilon: Callable[[int], float]


FILTERS = ("gdp", "rdp")


def filter_of(name: str, delta: float, order: float | None = None) -> Filter:
    """The filter of this name at `delta`; `order` is for `rdp` alone, which needs one."""
    if name == "gdp" and order is None:
        return gdp(delta)
    if name == "rdp" and order is not None:
        return rdp(delta, order)
    raise BadInput(
        f"filter {name!r} with order {order!r}",
        "gdp without an order, or rdp with one",
        "choose gdp for full batches, and rdp, with the plan's order, for samples and votes",
    )


@lru_cache(maxsize=64)
def gdp(delta: float) -> Filter:
    """Accepts while the sum of mu^2 is at most that of the budget: exact for Gaussian noise.

    Smith, Thakurta, 2022, Fully adaptive composition for Gaussian differential privacy,
    arXiv:2210.17520.
    """

    def limit(epsilon: float) -> int:
        return math.floor(Fraction(mu_of_epsilon(epsilon, delta)) ** 2 * GRAIN) if epsilon else 0

    def epsilon(grains: int) -> float:
        mu = math.sqrt(grains / GRAIN)
        return epsilon_of_mu(math.nextafter(mu, math.inf), delta) if grains else 0.0

    return Filter("gdp", None, _pricing(_GDP, "gdp, which adds mu^2"), lru_cache(limit), epsilon)


def rdp(delta: float, order: float) -> Filter:
    """Accepts while the sum of divergences at one order, fixed at opening, is at most the budget's.

    Feldman, Zrnic, 2021, Individual privacy accounting via a Renyi filter, arXiv:2008.11193.
    """
    is_number = isinstance(order, Real) and not isinstance(order, bool)
    if not (is_number and 2 <= order <= 2**16 and float(order).is_integer()):
        raise BadInput(f"order {order!r}", "an integer in [2, 65536]", "let the plan choose it")
    return _rdp(delta, float(order))


@lru_cache(maxsize=64)
def _rdp(delta: float, order: float) -> Filter:
    def limit(epsilon: float) -> int:
        return math.floor(Fraction(rdp_of_epsilon(order, epsilon, delta)) * GRAIN)

    def epsilon(grains: int) -> float:
        divergence = math.nextafter(grains / GRAIN, math.inf)
        return epsilon_of_rdp(order, divergence, delta) if grains else 0.0

    price = _pricing(_rdp_prices(order), f"rdp at order {order:g}")
    return Filter("rdp", order, price, lru_cache(limit), epsilon)


_Price: TypeAlias = Callable[[Cost], Fraction | int]


def _pricing(prices: Mapping[str, _Price], name: str) -> Callable[[Cost], int]:
    """The price of a canonical cost: that of each release, by its event, times how often."""

    def price(cost: Cost) -> int:
        total = 0
        for leaf, count in leaves(cost):
            of_one = prices.get(leaf["event"])
            if of_one is None:
                raise NotChargeable(
                    f"a cost of {in_words(leaf)}, which cannot be charged by filter {name}",
                    f"one of {', '.join(sorted(prices))}",
                    "choose a mechanism that the ledger's filter can charge",
                )
            try:
                total += count * min(DEAREST, math.ceil(of_one(leaf) * GRAIN))
            except BadInput as error:
                raise NotChargeable(error.found, error.expected, error.remedy) from None
        return total

    return price


def _inverse_square(leaf: Cost) -> Fraction:
    """mu^2 of Gaussian noise, exactly."""
    return 1 / Fraction(leaf["noise_multiplier"]) ** 2


_GDP: Mapping[str, _Price] = {
    "Gaussian": _inverse_square,
    "EpsilonDelta": lambda leaf: Fraction(mu_of_pure(leaf["epsilon"])) ** 2,
    "Laplace": lambda leaf: Fraction(mu_of_pure(1 / leaf["noise_multiplier"])) ** 2,
}


def _rdp_prices(order: float) -> Mapping[str, _Price]:
    exact = Fraction(order)
    return {
        "Gaussian": lambda leaf: exact / 2 * _inverse_square(leaf),  # arXiv:1702.07476, 7
        "ZCDp": lambda leaf: Fraction(leaf["xi"]) + exact * Fraction(leaf["rho"]),
        "EpsilonDelta": lambda leaf: Fraction(rdp_of_pure(order, leaf["epsilon"])),
        "Laplace": lambda leaf: Fraction(rdp_at(order, leaf)),
        "PoissonSampled": lambda leaf: Fraction(rdp_at(order, leaf)),
    }
