"""Holds the accountants against a table measured once, and against each other."""

import math
import warnings

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedkd.privacy import accounting
from fedkd.privacy.events import Cost, gaussian, laplace, self_composed
from fedkd.privacy.planning import epsilon_of_plan, training_cost

GOLDEN = [  # rate, noise multiplier, steps, delta: epsilon by PLD on a grid of 1e-4, and by RDP
    (1.0, 1.0, 1, 1e-5, 4.37718, 4.72851),
    (1.0, 5.0, 25, 1e-5, 4.37718, 4.72851),
    (1.0, 30.0, 1000, 1e-5, 4.65298, 5.02395),
    (1.0, 10.0, 200, 1e-6, 7.28608, 7.76624),
    (0.01, 1.0, 1000, 1e-5, 1.82824, 2.10137),
    (0.01, 0.8, 2000, 1e-5, 4.29344, 4.86112),
    (1 / 60, 1.5, 600, 6000**-1.1, 1.05765, 1.18935),
    (0.02, 1.1, 2500, 1e-5, 5.30975, 5.78981),
    (0.1, 2.0, 200, 1e-5, 3.35966, 3.67975),
    (0.256, 4.0, 400, 1e-5, 6.02878, 6.51930),
    (0.01, 1.0, 10000, 1e-5, 6.18774, 6.71276),
    (0.001, 0.6, 10000, 1e-6, 3.15223, 3.99919),
    (0.5, 6.0, 100, 1e-4, 3.12314, 3.45443),
]
"""dp-accounting 0.6.0, add or remove one; prv_accountant 0.2.0's estimate agrees within 5e-5."""

rows = pytest.mark.parametrize("row", GOLDEN, ids=lambda row: f"q{row[0]:.4g}-z{row[1]}-T{row[2]}")


@rows
def test_the_golden_table_stands_and_a_second_accountant_agrees(
    row: tuple[float, float, int, float, float, float],
) -> None:
    from opacus.accountants import PRVAccountant

    rate, noise, steps, delta, by_pld, by_rdp = row
    cost = training_cost(steps, rate, noise)
    found = accounting.epsilon(cost, delta)
    assert found == pytest.approx(by_pld, abs=1e-5)
    assert accounting.epsilon(cost, delta, "rdp") == pytest.approx(by_rdp, abs=1e-5)

    second = PRVAccountant()  # an upper bound, asked to be within .01
    second.history = [(noise, rate, steps)]
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        # At a rate of 1 it takes the logarithm of 0, and finds its grid by way of order 63.
        above = second.get_epsilon(delta=delta, eps_error=0.01) - found
    assert 0.0100 <= above <= 0.0104


@pytest.mark.parametrize("row", [row for row in GOLDEN if row[0] == 1.0])
def test_full_batches_are_exact(row: tuple[float, float, int, float, float, float]) -> None:
    _, noise, steps, delta, by_pld, _ = row
    exact = accounting.epsilon_of_mu(math.sqrt(steps) / noise, delta)
    assert exact == pytest.approx(by_pld, abs=6e-6)  # five places were noted
    assert exact == pytest.approx(
        dp_accounting.get_epsilon_gaussian(noise / math.sqrt(steps), delta), abs=1e-9
    )
    assert epsilon_of_plan("gdp", None, steps, 1.0, noise, delta) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(
    ("cost", "by_pld", "by_rdp"),
    [
        (self_composed(100, laplace(10)), 4.22035, 4.53269),
        (self_composed(25, gaussian(5)), 4.37718, 4.72851),
    ],
)
def test_the_golden_costs_without_sampling(cost: Cost, by_pld: float, by_rdp: float) -> None:
    assert accounting.epsilon(cost, 1e-5) == pytest.approx(by_pld, abs=1e-5)
    assert accounting.epsilon(cost, 1e-5, "rdp") == pytest.approx(by_rdp, abs=1e-5)


def test_randomised_response_once_tells_the_two_relations_apart() -> None:
    event = dp_accounting.RandomizedResponseDpEvent(0.25, 2)
    relations = dp_accounting.NeighboringRelation
    for relation, truth in (
        (relations.REPLACE_ONE, math.log(7)),
        (relations.REPLACE_SPECIAL, math.log(4)),
    ):
        pure = PLDAccountant(relation).compose(event).get_epsilon(1e-12)
        assert pure == pytest.approx(truth, abs=1e-3)
        largest = RdpAccountant([1e6], relation).compose(event).rdp[0]
        assert largest == pytest.approx(truth, abs=1e-3)


@pytest.mark.parametrize(
    ("epsilon", "sigma"), [(1, 3.73063), (2, 1.99381), (4, 1.08116), (8, 0.60023)]
)
def test_the_least_noise_of_one_release_is_the_analytic_one(epsilon: float, sigma: float) -> None:
    assert 1 / accounting.mu_of_epsilon(epsilon, 1e-5) == pytest.approx(sigma, abs=6e-6)
    library = dp_accounting.get_sigma_gaussian(epsilon, 1e-5)
    assert 1 / accounting.mu_of_epsilon(epsilon, 1e-5) == pytest.approx(library, rel=1e-9)
