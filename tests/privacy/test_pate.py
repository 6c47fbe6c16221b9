"""Shards answer together: what their sum may move by, the noise on it, and what it costs."""

import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import BadInput
from fedkd.privacy import AnswerPlan, BudgetExhausted, Ledger, PublicFacts
from fedkd.privacy.mechanisms.pate import (
    GRID,
    in_steps,
    nearest_on_simplex,
    pate,
    release,
    squared_sensitivity,
    variance,
    votes,
)
from fedkd.privacy.noise import rehearsal_noise
from fedkd.privacy.planning import best_order_for

FACTS = PublicFacts(patients=1000, classes=3)


def plan(noise: float = 1.0, shards: int = 10, vote: bool = False, batches: int = 1) -> AnswerPlan:
    return AnswerPlan(1000, shards, batches, noise, vote, "patient")


def source(seed: int = 0):
    return rehearsal_noise(np.random.default_rng(seed))


def ledger_for(mechanism, epsilon: float = 8.0) -> Ledger:
    assert mechanism.cost_at is not None
    order = best_order_for(lambda noise: mechanism.cost_at(FACTS, noise), epsilon, 1e-5)
    return Ledger("ward", epsilon, 1e-5, "rdp", order)


# What one unit may move.

sizes = st.tuples(st.integers(2, 6), st.integers(1, 30), st.integers(2, 5))


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**32 - 1), st.booleans())
def test_one_shard_moves_the_sum_by_at_most_the_sensitivity(size, seed, corners) -> None:
    shards, queries, classes = size
    rng = np.random.default_rng(seed)
    sharp = 0.01 if corners else 1.0  # the further towards corners, the larger the move
    said = rng.dirichlet(np.full(classes, sharp), (shards, queries)).astype(np.float32)
    other = said.copy()
    other[-1] = rng.dirichlet(np.full(classes, sharp), queries)
    for vote, whole in ((False, in_steps), (True, votes)):
        moved = whole(other) - whole(said)
        assert int((moved**2).sum()) <= squared_sensitivity(vote, queries, classes)


@pytest.mark.parametrize("answer", ["mean", "vote"])
def test_the_worst_pair_is_as_far_apart_as_the_sensitivity_says(answer: str) -> None:
    mechanism = pate(shards=7, answer=answer)
    left, right = mechanism.worst_pair(FACTS, 40)
    assert left.shape == (7, 40, 3)
    assert (left != right).any(axis=(1, 2)).sum() == 1, "neighbours differ in one shard"
    whole = votes if answer == "vote" else in_steps
    moved = int(((whole(left) - whole(right)) ** 2).sum())
    allowed = squared_sensitivity(answer == "vote", 40, 3)
    assert moved <= allowed <= moved * (1 + 1e-5)
    assert moved == 2 * 40 * (1 if answer == "vote" else GRID**2)  # sqrt(2Q), the whole batch


def test_the_noise_is_what_the_charge_says() -> None:
    for vote in (False, True):
        its = plan(noise=1.7, vote=vote)
        rho = pate(answer="vote" if vote else "mean").answer_cost(FACTS, its, 25)["rho"]
        sensitivity = squared_sensitivity(vote, 25, 3)
        assert sensitivity / (2 * variance(its, 25, 3)) == Fraction(rho)  # exactly
        assert rho == pytest.approx(1 / (2 * 1.7**2))


# What is released.


def test_the_discrete_noise_has_the_variance_that_is_claimed() -> None:
    # In the middle of the simplex and with little noise the projection only removes the mean.
    said = np.full((50, 4000, 3), 1 / 3)
    its = plan(noise=0.02, shards=50)
    noised = release(said, its, source())
    left = noised - 1 / 3
    sensitivity = (math.sqrt(2 * 4000) + math.sqrt(4000 * 3) / GRID) / 50
    claimed = (0.02 * sensitivity) ** 2
    assert float(variance(its, 4000, 3)) / (50 * GRID) ** 2 == pytest.approx(claimed)
    assert left.var() == pytest.approx(claimed * 2 / 3, rel=0.05)  # one of three dimensions is gone
    assert (noised >= 0).all()
    np.testing.assert_allclose(noised.sum(axis=1), 1)


def test_votes_are_won_by_the_noised_count() -> None:
    said = np.zeros((9, 20000, 2))
    said[:5, :, 0] = said[5:, :, 1] = 1
    its = AnswerPlan(1000, 9, 1, 0.02, True, "patient")  # 5 votes to 4
    chosen = release(said, its, source())
    assert set(np.unique(chosen)) == {0.0, 1.0}
    deviation = float(variance(its, 20000, 2)) ** 0.5
    assert deviation == pytest.approx(0.02 * math.sqrt(2 * 20000))
    expected = NormalDist().cdf(1.5 / (deviation * math.sqrt(2)))  # a tie goes to class 0
    assert chosen[:, 0].mean() == pytest.approx(expected, abs=0.015)


def test_hardly_any_noise_recovers_the_mean() -> None:
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(4), (10, 50)).astype(np.float32)
    its = AnswerPlan(1000, 10, 1, 1e-6, False, "patient")
    np.testing.assert_allclose(release(said, its, source()), said.mean(axis=0), atol=1e-4)


def test_the_same_stream_gives_the_same_answer_and_another_another() -> None:
    said = np.full((10, 5, 3), 1 / 3)
    np.testing.assert_array_equal(
        release(said, plan(), source(1)), release(said, plan(), source(1))
    )
    assert (release(said, plan(), source(1)) != release(said, plan(), source(2))).any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_the_nearest_point_of_the_simplex_is_nearer_than_any_other(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    row = rng.normal(0, 2, (1, classes))
    nearest = nearest_on_simplex(row)
    assert (nearest >= 0).all()
    assert nearest.sum() == pytest.approx(1)
    others = rng.dirichlet(np.full(classes, 0.5), 200)
    least = ((others - row) ** 2).sum(axis=1).min()
    assert ((nearest - row) ** 2).sum() <= least + 1e-12
    np.testing.assert_allclose(nearest_on_simplex(others), others, atol=1e-12)


@pytest.mark.parametrize(
    "said",
    [
        np.full((10, 2, 3), 0.5),  # sums to 1.5: further apart than the simplex is wide
        np.tile([2.0, -1.0, 0.0], (10, 2, 1)),
        np.full((10, 2, 3), np.nan),
        np.full((9, 2, 3), 1 / 3),  # a shard is missing
        np.full((2, 3), 1 / 3),
    ],
)
def test_what_no_shards_can_have_said_is_not_released(said) -> None:
    with pytest.raises(ValueError, match="found"):
        release(said, plan(), source())


def test_no_plan_no_answer() -> None:
    with pytest.raises(ValueError, match="found None"):
        release(np.full((10, 2, 3), 1 / 3), None, source())


# What it costs.


@pytest.mark.parametrize("batches", [1, 3, 10])
def test_all_batches_of_a_plan_fit_its_ledger_and_not_one_more(batches: int) -> None:
    mechanism = pate(shards=10, batches=batches)
    ledger = ledger_for(mechanism)
    its = mechanism.plan(FACTS, ledger, None)
    for _ in range(batches):
        ledger = ledger.charge(mechanism.answer_cost(FACTS, its, 100))
    assert 7.99 < ledger.spent() <= 8
    with pytest.raises(BudgetExhausted):
        ledger.charge(mechanism.answer_cost(FACTS, its, 1))


def test_a_batch_costs_the_same_whatever_its_size_and_none_costs_nothing() -> None:
    mechanism = pate(shards=10)
    few, many = (mechanism.answer_cost(FACTS, plan(2.0), size) for size in (1, 5000))
    assert few == many == {"event": "ZCDp", "rho": 0.125, "xi": 0.0}
    assert mechanism.answer_cost(FACTS, plan(2.0), 0) == {"event": "NoOp"}
    assert mechanism.training_cost(FACTS, plan(2.0)) == {"event": "NoOp"}


def test_noise_that_leaves_nothing_is_refused_before_it_is_paid() -> None:
    with pytest.raises(BudgetExhausted, match="noise of 1e"):
        pate().answer_cost(FACTS, plan(1e6), 500)


def test_a_ledger_of_another_filter_or_unit_is_refused_when_planned() -> None:
    mechanism = pate(shards=10)
    with pytest.raises(BadInput, match="cannot be charged by filter gdp"):
        mechanism.plan(FACTS, Ledger("ward", 4.0, 1e-5), None)
    with pytest.raises(BadInput, match="a record"):
        mechanism.plan(FACTS, Ledger("ward", 4.0, 1e-5, "rdp", 8, unit="record"), None)


def test_records_without_names_are_protected_as_records_and_it_is_said() -> None:
    mechanism, facts = pate(shards=10), PublicFacts(1000, 3, named=False)
    for unit in ("record", "patient"):
        ledger = Ledger("ward", 4.0, 1e-5, "rdp", 8, unit=unit)
        assert mechanism.plan(facts, ledger, None).unit == "record"


def test_more_shards_than_patients_are_refused() -> None:
    mechanism = pate(shards=11)
    assert mechanism.cost_at(PublicFacts(11, 2), 1.0)
    with pytest.raises(BadInput, match="11 shards for 10 patients"):
        mechanism.cost_at(PublicFacts(10, 2), 1.0)
