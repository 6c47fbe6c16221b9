"""Counts for an evaluation: what a patient can move, what noise lies on them, what that costs."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import Array, BadInput
from fedkd.privacy import BudgetExhausted, Ledger
from fedkd.privacy.accounting import mu_of_pure
from fedkd.privacy.attacks import lower_bound_mu
from fedkd.privacy.count_limits import NoiseLaw
from fedkd.privacy.counts import CountNoise, cells, noise_for, noised, once_each
from fedkd.privacy.noise import geometric, rehearsal_noise, system_noise

GDP = Ledger("patients", 4.0, 1e-5)
RDP = Ledger("patients", 4.0, 1e-5, filter="rdp", order=8.0)


def source(seed: int = 0):
    return rehearsal_noise(np.random.default_rng(seed))


# What one patient can move.


@st.composite
def populations(draw):
    """Patients with several rows each: probabilities, labels, groups, whose row it is."""
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    patients = rng.integers(0, draw(st.integers(1, 8)), count)
    probs = rng.dirichlet(np.ones(classes), count)
    return probs, rng.integers(0, classes, count), rng.integers(0, 3, count), patients


def counted(probs: Array, labels: Array, groups: Array, patients: Array, rows: Array) -> Array:
    thresholds = (0.2, 0.5, 0.9) if probs.shape[1] == 2 else ()
    rows = rows[once_each(patients[rows], len(rows))]
    return cells(probs[rows], labels[rows], thresholds, groups[rows], 3)


@settings(max_examples=200)
@given(populations())
def test_whoever_is_taken_out_one_count_falls_by_one_and_no_other_moves(population) -> None:
    patients = population[3]
    everyone = counted(*population, np.arange(len(patients)))
    assert everyone.sum() == len(np.unique(patients))
    for one in np.unique(patients):
        without = counted(*population, np.flatnonzero(patients != one))
        moved = everyone - without
        assert (np.abs(moved).sum(), moved.max()) == (1, 1)


def test_a_patient_with_many_rows_is_counted_once_by_the_first() -> None:
    patients = np.array([7, 3, 7, 7, 3, 9])
    assert once_each(patients, 6).tolist() == [0, 1, 5]
    assert once_each(patients, 6, by_record=True).tolist() == list(range(6))
    assert once_each(None, 3).tolist() == [0, 1, 2]


def test_cells_are_ranges_between_thresholds_and_a_threshold_belongs_above_it() -> None:
    probs = np.array([[0.9, 0.1], [0.5, 0.5], [0.3, 0.7], [0.1, 0.9]])
    found = cells(probs, np.array([0, 0, 1, 1]), (0.5, 0.8), np.zeros(4, int), 1)
    np.testing.assert_array_equal(found, [[[1, 0], [1, 1], [0, 1]]])


def test_cells_of_more_classes_are_the_confusion_matrix_by_group() -> None:
    probs = np.eye(3)[[0, 1, 1, 2]]
    found = cells(probs, np.array([0, 1, 2, 2]), (), np.array([0, 0, 1, 1]), 2)
    np.testing.assert_array_equal(found[0], [[1, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(found[1], [[0, 0, 0], [0, 0, 1], [0, 0, 1]])


def test_a_row_of_which_a_model_says_nothing_is_counted_all_the_same() -> None:
    silent = np.full((2, 2), np.nan)
    assert cells(silent, np.array([0, 1]), (0.5,), np.zeros(2, int), 1).tolist() == [
        [[1, 1], [0, 0]]
    ]


# The noise, and what it costs.


@pytest.mark.parametrize("rate", [Fraction(1, 5), Fraction(3, 4), Fraction(7, 3), 0.214])
def test_geometric_noise_has_the_law_that_it_says(rate) -> None:
    rate = Fraction(rate).limit_denominator(2**20)
    drawn = geometric(rate, 100_000, np.random.default_rng(1).bytes)
    law = NoiseLaw("geometric", float(1 / rate))
    assert abs(drawn.mean()) < 5 * math.sqrt(law.variance / len(drawn))
    assert drawn.var() == pytest.approx(law.variance, rel=0.05)
    zero = math.tanh(float(rate) / 2)
    for place in range(4):
        expected = zero * math.exp(-float(rate) * place)
        error = 5 * math.sqrt(expected * (1 - expected) / len(drawn))
        assert np.mean(drawn == place) == pytest.approx(expected, abs=error)
        assert np.mean(drawn == -place) == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, 2.0**-40, 2000, Fraction(1, 3**40)])
def test_a_rate_that_cannot_be_drawn_exactly_is_refused(rate) -> None:
    with pytest.raises(BadInput, match="rate"):
        geometric(rate, 1, np.random.default_rng(0).bytes)


@pytest.mark.parametrize("ledger", [GDP, RDP], ids=lambda it: it.filter)
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_noised_counts_are_unbiased_and_vary_as_claimed(ledger: Ledger, epsilon: float) -> None:
    noise = noise_for(ledger, epsilon)
    true = np.tile(np.array([[[40, 3], [0, 1000]]]), (3000, 1, 1))
    errors = noised(true, noise, source()) - true
    variance = NoiseLaw(noise.law, noise.scale).variance
    assert abs(errors.mean()) < 5 * math.sqrt(variance / errors.size)
    assert errors.var() == pytest.approx(variance, rel=0.1)
    np.testing.assert_allclose(np.corrcoef(errors.reshape(3000, 4).T), np.eye(4), atol=0.1)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 1.0, 4.0])
def test_a_budget_of_epsilon_covers_an_evaluation_of_epsilon_once(epsilon: float) -> None:
    ledger = Ledger("patients", epsilon, 1e-5)
    noise = noise_for(ledger, epsilon)
    spent = ledger.charge(noise.cost)
    assert 0.99 * epsilon < spent.spent() <= epsilon
    with pytest.raises(BudgetExhausted):
        noise_for(spent, epsilon)


def test_each_filter_has_the_noise_that_it_can_charge() -> None:
    pure = noise_for(GDP, 1.0)
    assert pure.law == "geometric"
    assert pure.cost == {"event": "EpsilonDelta", "epsilon": float(pure.parameter), "delta": 0.0}
    gaussian = noise_for(RDP, 1.0)
    assert (gaussian.law, gaussian.cost["event"]) == ("discrete_gaussian", "ZCDp")
    assert gaussian.cost["rho"] >= 1 / (2 * gaussian.parameter)
    assert gaussian.cost["rho"] == pytest.approx(float(1 / (2 * gaussian.parameter)))
    for noise in (pure, gaussian):
        assert CountNoise.paid(noise.to_json(), noise.cost) == noise


def test_an_open_budget_gets_no_noise_and_says_that_it_bounds_nothing() -> None:
    noise = noise_for(Ledger("patients"), 1.0)
    assert (noise.law, noise.scale, noise.cost) == ("none", 0.0, {"event": "NonPrivate"})
    np.testing.assert_array_equal(noised(np.arange(4), noise, source()), np.arange(4))


@pytest.mark.parametrize("ledger", [GDP, RDP], ids=lambda it: it.filter)
def test_an_exhausted_budget_gets_no_noise_of_what_is_left(ledger: Ledger) -> None:
    spent = ledger.charge({"event": "Gaussian", "noise_multiplier": 2.0})
    with pytest.raises(BudgetExhausted):
        noise_for(spent, ledger.epsilon)


@pytest.mark.parametrize("ledger", [GDP, RDP], ids=lambda it: it.filter)
@pytest.mark.parametrize(("rows", "holds"), [("once", True), ("each", False)])
def test_the_worst_neighbour_is_told_apart_no_better_than_was_paid_for(
    ledger: Ledger, rows: str, holds: bool
) -> None:
    """A patient with eight rows: counted once the claim holds, counted by row it is refuted."""
    patients = np.zeros(8, dtype=np.int64)
    counting = once_each(patients, 8, by_record=rows == "each")
    there = cells(
        np.tile([0.1, 0.9], (len(counting), 1)), np.ones(len(counting), int), (0.5,),
        np.zeros(len(counting), int), 1,
    )  # fmt: skip
    noise, many = noise_for(ledger, 2.0), 4000
    bound = lower_bound_mu(
        noised(np.zeros((many, *there.shape), int), noise, source(1))[..., 1, 1].ravel(),
        noised(np.tile(there, (many, 1, 1, 1)), noise, source(2))[..., 1, 1].ravel(),
        0.01,
    )
    claim = (
        mu_of_pure(noise.cost["epsilon"]) if ledger.filter == "gdp"
        else math.sqrt(2 * noise.cost["rho"])
    )  # fmt: skip
    assert (bound <= claim) is holds


def test_system_noise_is_never_the_same_twice() -> None:
    noise = noise_for(GDP, 0.1)
    draws = [noised(np.zeros(64, int), noise, system_noise()).tolist() for _ in range(2)]
    assert draws[0] != draws[1]
