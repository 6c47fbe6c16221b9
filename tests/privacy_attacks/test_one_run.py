"""A bound from one training: as tight as the papers', and seldom wrong where the claim is true."""

import math

import numpy as np
import pytest
from scipy import stats

from fedkd.privacy.attacks import (
    epsilon_of,
    is_refuted,
    least_approximate,
    least_gaussian,
    lower_bound_epsilon_of_pairs,
    lower_bound_mu_of_pairs,
)
from fedkd.privacy.attacks.one_run import _first_kept

ALPHA = 0.05


def kept(least_of, coins, guessed, right, alpha=ALPHA):
    return _first_kept(lambda it: is_refuted(least_of(it), coins, guessed, right, alpha), 0.0)


@pytest.mark.parametrize("counts", [(100, 100, 75), (1000, 100, 75), (500, 200, 190)])
def test_for_pure_epsilon_it_is_the_binomial_of_randomised_response(counts):
    """Steinke, Nasr and Jagielski, 2305.08846, theorem 5.2 with delta 0."""
    _, guessed, right = counts
    found = kept(lambda epsilon: least_approximate(epsilon, 0.0), *counts)

    def chance(epsilon):
        return stats.binom.sf(right - 1, guessed, 1 / (1 + math.exp(-epsilon)))

    assert chance(found) <= ALPHA  # never bolder than the exact law
    assert chance(found + 0.03) > ALPHA  # and hardly shyer


@pytest.mark.parametrize(
    ("coins", "guessed", "right", "delta", "published"),
    [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.675)],
)
def test_it_is_no_weaker_than_the_published_bounds(coins, guessed, right, delta, published):
    """2305.08846v1, appendix D and section 7; 2410.22235 improves on it."""
    found = kept(lambda epsilon: least_approximate(epsilon, delta), coins, guessed, right)
    assert published - 0.001 <= found < published + 0.15


def test_a_curve_that_is_weaker_gives_the_neighbour_less():
    shares = np.linspace(0.001, 0.999, 50)
    for strong, weak in (
        (least_gaussian(0.5), least_gaussian(1.0)),
        (least_approximate(0.5, 0.0), least_approximate(1.0, 0.0)),
        (least_approximate(1.0, 0.0), least_approximate(1.0, 0.01)),
    ):
        assert all(strong(x) > weak(x) or strong(x) == weak(x) == 0.0 for x in shares)
    assert least_gaussian(0.0)(0.3) == pytest.approx(0.3)
    assert least_approximate(0.0, 0.0)(0.3) == pytest.approx(0.3)


def game(mu, pairs, seed):
    """Scores of members and others under mu-GDP: of a pair, two steps of the relation."""
    return mu + np.random.default_rng(seed).normal(size=pairs), np.zeros(pairs)


def test_a_true_claim_is_refuted_as_seldom_as_alpha_says():
    mu, delta = 0.5, 1e-5
    epsilon = epsilon_of(mu, delta)
    alarms = [0, 0]
    for seed in range(150):
        members, others = game(mu, 150, seed)
        alarms[0] += lower_bound_mu_of_pairs(members, others, ALPHA) > mu
        alarms[1] += lower_bound_epsilon_of_pairs(members, others, ALPHA, delta) > epsilon
    assert max(alarms) <= stats.binom.ppf(0.999, 150, ALPHA)


def test_a_claim_far_too_small_is_refuted():
    members, others = game(2.0, 500, 0)
    assert lower_bound_mu_of_pairs(members, others, 0.01) > 0.4
    assert lower_bound_epsilon_of_pairs(members, others, 0.01, 1e-5) > 1.0


def test_the_surest_pairs_tell_where_most_tell_nothing():
    """Twenty of 160 patients stand out: guessing all drowns them."""
    rng = np.random.default_rng(0)
    members, others = rng.normal(size=160), rng.normal(size=160)
    members[-20:] += 20
    assert lower_bound_epsilon_of_pairs(members, others, 0.01, 1e-6) > 0.4


def test_a_tie_is_no_guess():
    assert lower_bound_mu_of_pairs(np.zeros(50), np.zeros(50), 0.01) == 0.0
    assert lower_bound_epsilon_of_pairs(np.zeros(0), np.zeros(0), 0.01, 1e-5) == 0.0


def test_ties_leave_the_others_to_be_guessed():
    members = np.where(np.arange(100) < 30, 1.0, 0.0)
    found = lower_bound_mu_of_pairs(members, np.zeros(100), 0.01 * 4)
    assert found == pytest.approx(kept(least_gaussian, 100, 30, 30, 0.01) / 2, abs=1e-3)


def test_the_wrong_way_round_says_nothing():
    members, others = game(2.0, 100, 0)
    assert lower_bound_mu_of_pairs(others, members, 0.01) == 0.0


def test_a_patient_in_place_of_another_is_two_steps():
    """One record a coin, in or out, would refute twice the epsilon that a pair does."""
    members, others = np.ones(50), np.zeros(50)
    found = lower_bound_epsilon_of_pairs(members, others, 0.01 * 4, 0.0)
    single = kept(lambda epsilon: least_approximate(epsilon, 0.0), 50, 50, 50, 0.01)
    assert found == pytest.approx(single / 2, abs=1e-3)


@pytest.mark.parametrize(
    ("sigma", "epsilon"), [(3.73063, 1), (1.99381, 2), (1.08116, 4), (0.60023, 8)]
)
def test_epsilon_of_mu_is_that_of_the_analytic_gaussian(sigma, epsilon):
    """Balle and Wang, 2018, 1805.06530: the noise for delta 1e-5."""
    assert epsilon_of(1 / sigma, 1e-5) == pytest.approx(epsilon, abs=1e-4)


def test_nothing_found_is_epsilon_0():
    assert epsilon_of(0.0, 1e-5) == 0.0
    assert epsilon_of(1e-6, 1e-5) == 0.0


def test_counts_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="3 right of 2 guesses"):
        is_refuted(least_gaussian(1.0), 5, 2, 3, 0.01)
    with pytest.raises(ValueError, match="expected \\[k\\]"):
        lower_bound_mu_of_pairs(np.zeros(3), np.zeros(2), 0.01)
