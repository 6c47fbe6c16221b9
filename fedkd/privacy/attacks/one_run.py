"""A bound on epsilon from ONE training: fair coins said who was in, the attack guesses them."""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy import special

from fedkd.knowledge import Array

# m coins, r of them guessed, v guessed right; k pairs.

Least: TypeAlias = Callable[[float], float]
"""x -> the least probability that a neighbour may give to what has probability x: convex."""

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Shares of the coins that are guessed, the surest first: fixed here, each paid for in alpha."""
STEP = 0.1
MOST = 50.0


def least_gaussian(mu: float) -> Least:
    """Of a mechanism under mu-GDP (Dong, Roth and Su, 2022, 1905.02383, definition 2.6)."""
    return lambda x: float(special.ndtr(special.ndtri(x) - mu))


def least_approximate(epsilon: float, delta: float) -> Least:
    """Of a mechanism under (epsilon, delta): proposition 2.4 of 1905.02383."""
    shrink, grow = math.exp(-epsilon), math.exp(epsilon)
    return lambda x: max(0.0, (x - delta) * shrink, 1 - delta - (1 - x) * grow)


def is_refuted(least: Least, coins: int, guessed: int, right: int, alpha: float) -> bool:
    """Whether so many right guesses have a probability below `alpha`, under `least`.

    `coins` fair ones were thrown; `least` covers the flip of any one; which coins are guessed and
    how was made from the output alone. Mahloujifar, Melis and Chaudhuri, 2025, Auditing f-DP in one
    run, 2410.22235. With W right guesses let r_i be the mean over all coins of the probability that
    W >= i and this one is right, h_i the same and it is wrong. Who flips a right one finds W - 1
    right and it wrong, so h_i >= least(r_(i+1)) (Jensen); and i p_i : (guessed - i) p_i is
    r_i - r_(i+1) : h_i - h_(i+1). If P(W >= right) were alpha, all would add up to more than there
    is, guessed / coins.
    """
    if not 0 <= right <= guessed <= coins:
        raise ValueError(f"found {right} right of {guessed} guesses about {coins} coins")
    if not right:
        return False
    there = guessed / coins
    hit, missed = alpha * right / coins, alpha * (guessed - right) / coins
    for i in range(right - 1, -1, -1):
        below = max(missed, least(hit))
        hit, missed = hit + i / (guessed - i) * (below - missed), below
        if hit + missed > there:
            return True
    return False


def lower_bound_mu_of_pairs(members: Array, others: Array, alpha: float) -> float:
    """A training's mu (GDP, one patient replaced by null) is at least this, save with `alpha`.

    `members` and `others` [k] are scores: of each pair one of two exchangeable patients was taken,
    by a fair coin, and the attack says that it was the one who scores higher. To flip a coin is to
    put one patient in the place of another, two steps of the relation: 2 mu. The surest pairs are
    guessed first (`SHARES`); a tie is no guess.
    """
    return _strongest(members, others, alpha, lambda mu: least_gaussian(2 * mu))


def lower_bound_epsilon_of_pairs(
    members: Array, others: Array, alpha: float, delta: float
) -> float:
    """As `lower_bound_mu_of_pairs`, for epsilon at `delta`: two steps are
    (2 epsilon, (1 + e^epsilon) delta).
    """

    def two_steps(epsilon: float) -> Least:
        return least_approximate(2 * epsilon, (1 + math.exp(epsilon)) * delta)

    return _strongest(members, others, alpha, two_steps)


def epsilon_of(mu: float, delta: float) -> float:
    """The epsilon at `delta` of mu-GDP: corollary 2.13 of 1905.02383, solved by bisection."""

    def delta_at(epsilon: float) -> float:
        tail = math.exp(epsilon + float(special.log_ndtr(-epsilon / mu - mu / 2)))
        return float(special.ndtr(-epsilon / mu + mu / 2)) - tail

    if mu <= 0 or delta_at(0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_at(high) > delta:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return low


def _strongest(
    members: Array, others: Array, alpha: float, claimed: Callable[[float], Least]
) -> float:
    if members.shape != others.shape or members.ndim != 1:
        raise ValueError(f"found scores of shapes {members.shape} and {others.shape}, expected [k]")
    ahead = members - others
    ahead = ahead[np.argsort(-np.abs(ahead), kind="stable")]
    sayable = int((ahead != 0).sum())
    best = 0.0
    for guessed in sorted({int(share * sayable) for share in SHARES} - {0}):
        right = int((ahead[:guessed] > 0).sum())

        def refuted(strength: float, guessed: int = guessed, right: int = right) -> bool:
            least = claimed(strength)
            return is_refuted(least, len(ahead), guessed, right, alpha / len(SHARES))

        best = max(best, _first_kept(refuted, best))
    return best


def _first_kept(refuted: Callable[[float], bool], start: float) -> float:
    """The smallest strength from `start` that is not refuted: all before it are."""
    if not refuted(start):
        return start
    low, high = start, start + STEP
    while high < MOST and refuted(high):
        low, high = high, high + STEP
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low
