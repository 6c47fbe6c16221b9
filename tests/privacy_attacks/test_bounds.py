"""Bounds from below: seldom wrong where the claim is true, and not silent where it is not."""

import math

import numpy as np
import pytest
from scipy import stats

from fedkd.privacy.attacks import (
    epsilon_from_counts,
    lower_bound_epsilon,
    lower_bound_mu,
    lower_bound_mu_of_sample,
)

ALPHA = 0.01
MU = {1: 0.268, 4: 0.925}
"""Of a Gaussian mechanism at epsilon 1 and 4, delta 1e-5."""


def released(mu, count, seed):
    """Releases of a Gaussian mechanism on two neighbours, projected: left, right."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=count), mu + rng.normal(size=count)


@pytest.mark.parametrize("epsilon", MU)
def test_a_true_claim_is_refuted_as_seldom_as_alpha_says(epsilon):
    mu = MU[epsilon]
    alarms = sum(lower_bound_mu(*released(mu, 1000, seed), ALPHA) > mu for seed in range(200))
    assert alarms <= stats.binom.ppf(0.999, 200, ALPHA)


def test_most_repeats_come_close_to_the_truth():
    found = [lower_bound_mu(*released(MU[4], 10_000, seed), ALPHA) for seed in range(20)]
    assert np.median(found) > 0.93 * MU[4]


def test_a_noise_twenty_percent_too_small_is_found_at_epsilon_4():
    for seed in range(20):
        assert lower_bound_mu(*released(MU[4] / 0.8, 10_000, seed), ALPHA) > MU[4]


def test_it_is_mostly_found_at_epsilon_1():
    found = [lower_bound_mu(*released(MU[1] / 0.8, 10_000, seed), ALPHA) for seed in range(40)]
    assert sum(bound > MU[1] for bound in found) >= 30


@pytest.mark.parametrize("epsilon", MU)
def test_a_forgotten_square_root_of_two_is_found(epsilon):
    for seed in range(20):
        left, right = released(MU[epsilon] * math.sqrt(2), 10_000, seed)
        assert lower_bound_mu(left, right, ALPHA) > MU[epsilon]


def test_what_happens_seldom_and_tells_all_is_found():
    """One release in a hundred is the record itself: on average next to nothing is wrong."""
    left, right = released(MU[1], 10_000, 0)
    right[::100] = 50.0
    assert lower_bound_mu(left, right, ALPHA) > 2 * MU[1]


def test_the_wrong_way_round_says_nothing():
    left, right = released(2.0, 1000, 0)
    assert lower_bound_mu(right, left, ALPHA) == 0.0
    assert lower_bound_epsilon(right, left, ALPHA) == 0.0


def test_equal_releases_say_nothing():
    same = np.zeros(100)
    assert lower_bound_mu(same, same, ALPHA) == 0.0
    assert lower_bound_epsilon(same, same, ALPHA) == 0.0


def randomised_response(epsilon, count, seed):
    rng = np.random.default_rng(seed)
    lies = rng.random((2, count)) > 1 / (1 + math.exp(-epsilon))
    return lies[0].astype(float), (~lies[1]).astype(float)


def test_the_epsilon_of_randomised_response_is_found_from_below():
    bounds = [
        lower_bound_epsilon(*randomised_response(math.log(3), 4000, seed), ALPHA)
        for seed in range(200)
    ]
    assert sum(bound > math.log(3) for bound in bounds) <= stats.binom.ppf(0.999, 200, ALPHA)
    assert np.median(bounds) > 0.85 * math.log(3)


def test_a_delta_is_allowed_for():
    left, right = randomised_response(math.log(3), 4000, 0)
    bounds = [lower_bound_epsilon(left, right, ALPHA, delta) for delta in (0.0, 0.1, 0.6)]
    assert bounds[0] > bounds[1] > bounds[2]
    assert bounds[2] == 0.0


def test_counts_give_the_ratio_of_their_limits():
    """100 of 100 found, no alarm in 100: both shares are within .005^(1/100) of the end."""
    edge = 0.005 ** (1 / 100)
    expected = math.log(edge / (1 - edge))
    assert epsilon_from_counts(100, 100, 0, 100, ALPHA) == pytest.approx(expected)
    assert epsilon_from_counts(1, 100, 1, 100, ALPHA) == 0.0
    assert epsilon_from_counts(0, 0, 0, 0, ALPHA) == 0.0


def test_what_is_missed_counts_as_much_as_what_is_found():
    """FNR may be small where TPR over FPR is not large: 100 of 100 found, 50 false alarms."""
    found = epsilon_from_counts(100, 100, 50, 100, ALPHA)
    assert found > math.log(0.9 / 0.64)
    assert found == pytest.approx(epsilon_from_counts(50, 100, 0, 100, ALPHA))


@pytest.mark.parametrize("bound", [lower_bound_mu, lower_bound_epsilon])
@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (np.zeros(20), np.zeros(19), "as many of each"),
        (np.zeros(4), np.zeros(4), "at least"),
        (np.zeros((20, 2)), np.zeros((20, 2)), "as many of each"),
        (np.zeros(20), np.full(20, np.nan), "not a finite number"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(bound, left, right, said):
    with pytest.raises(ValueError, match=said):
        bound(left, right, ALPHA)


def sampled(mu, rate, count, seed):
    """The same of a mechanism that takes the unit in with this rate."""
    rng = np.random.default_rng(seed)
    left, right = released(mu, count, [seed, 1])
    return left, np.where(rng.random(count) < rate, right, rng.normal(size=count))


def test_of_a_sample_a_true_claim_is_refuted_as_seldom_as_alpha_says():
    bounds = [
        lower_bound_mu_of_sample(*sampled(1.0, 0.5, 1000, seed), ALPHA, 0.5) for seed in range(200)
    ]
    assert sum(bound > 1.0 for bound in bounds) <= stats.binom.ppf(0.999, 200, ALPHA)


@pytest.mark.parametrize(("mu", "rate"), [(1.25, 0.5), (1.0, 1.0), (9.0, 0.9)])
def test_of_a_sample_small_noise_and_a_larger_sample_are_found(mu, rate):
    for seed in range(10):
        left, right = sampled(mu, rate, 20_000, seed)
        assert lower_bound_mu_of_sample(left, right, ALPHA, 0.5) > 1.0
