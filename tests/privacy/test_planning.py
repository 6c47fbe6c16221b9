"""A plan is solved under the ledger's own filter: what was planned for 4 fits a budget of 4."""

import math

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import BadInput
from fedkd.privacy import Cost, Ledger, accounting, events, planning
from fedkd.privacy.accounting import WHOLE_ORDERS
from fedkd.privacy.planning import (
    best_order,
    default_delta,
    epsilon_of_plan,
    expect_covered,
    expect_delta,
    noise_for_budget,
    noise_for_ledger,
    solve_noise,
    steps_within,
    training_cost,
)

few = settings(max_examples=25, deadline=None)
steps_ = st.integers(1, 2000)
epsilons = st.floats(0.05, 20)
deltas = st.floats(-9, -3).map(lambda power: 10**power)


@few
@given(steps_, epsilons, deltas)
def test_a_full_batch_plan_fits_and_hardly_less_noise_would(
    steps: int, epsilon: float, delta: float
) -> None:
    noise = solve_noise("gdp", None, steps, 1.0, epsilon, delta)
    ledger = Ledger("ward", epsilon, delta)
    assert ledger.charge(training_cost(steps, 1.0, noise)).spent() <= epsilon
    assert not ledger.covers(training_cost(steps, 1.0, noise * (1 - 1e-9)))
    exact = dp_accounting.get_sigma_gaussian(epsilon, delta) * math.sqrt(steps)
    assert noise == pytest.approx(exact, rel=1e-6)
    assert epsilon_of_plan("gdp", None, steps, 1.0, noise, delta) == pytest.approx(epsilon)
    assert steps_within("gdp", None, 1.0, noise, epsilon, delta) == steps


@settings(max_examples=10, deadline=None)
@given(steps_, st.floats(0.001, 1), st.floats(0.5, 10), deltas)
def test_a_sampled_plan_fits_and_hardly_less_noise_would(
    steps: int, rate: float, epsilon: float, delta: float
) -> None:
    order = best_order(steps, rate, epsilon, delta)
    noise = solve_noise("rdp", order, steps, rate, epsilon, delta)
    assert noise == solve_noise("rdp", None, steps, rate, epsilon, delta)
    ledger = Ledger("ward", epsilon, delta, "rdp", order)
    assert ledger.charge(training_cost(steps, rate, noise)).spent() <= epsilon
    assert not ledger.covers(training_cost(steps, rate, noise * (1 - 1e-6)))
    assert epsilon_of_plan("rdp", order, steps, rate, noise, delta) == pytest.approx(epsilon)
    assert steps_within("rdp", order, rate, noise, epsilon, delta) == steps
    best = epsilon_of_plan("rdp", None, steps, rate, noise, delta)
    assert best <= epsilon * (1 + 1e-9)
    assert best == pytest.approx(epsilon, rel=1e-3)


@pytest.mark.parametrize(
    ("steps", "rate", "epsilon"), [(400, 0.256, 4.0), (1000, 0.01, 1.0), (600, 1 / 60, 8.0)]
)
def test_the_best_order_is_the_one_with_the_least_noise(
    steps: int, rate: float, epsilon: float
) -> None:
    best = best_order(steps, rate, epsilon, 1e-5)
    noise = solve_noise("rdp", best, steps, rate, epsilon, 1e-5)
    ledger = Ledger("ward", epsilon, 1e-5, "rdp", best)
    assert ledger.order in WHOLE_ORDERS
    for other in (*range(3, 25), 64.0, 256.0):
        try:
            least = solve_noise("rdp", other, steps, rate, epsilon, 1e-5)
        except BadInput:  # this order reaches no such epsilon
            continue
        assert noise <= least * (1 + 1e-3)


def test_rdp_at_one_order_pays_for_its_proof() -> None:
    """7 to 27 % more epsilon than PLD for the golden plans: the price of asking adaptively."""
    for rate, noise, steps in ((0.1, 2.0, 200), (0.256, 4.0, 400), (0.01, 1.0, 1000)):
        by_filter = epsilon_of_plan("rdp", None, steps, rate, noise, 1e-5)
        by_pld = accounting.epsilon(training_cost(steps, rate, noise), 1e-5)
        assert 1.05 < by_filter / by_pld < 1.28


@few
@given(steps_, epsilons, deltas, st.floats(1.01, 3))
def test_a_plan_is_monotone(steps: int, epsilon: float, delta: float, more: float) -> None:
    noise = solve_noise("gdp", None, steps, 1.0, epsilon, delta)
    assert solve_noise("gdp", None, steps, 1.0, epsilon * more, delta) < noise
    assert solve_noise("gdp", None, steps + 1, 1.0, epsilon, delta) > noise
    assert epsilon_of_plan("gdp", None, steps, 1.0, noise * more, delta) < epsilon
    assert steps_within("gdp", None, 1.0, noise * more, epsilon, delta) >= steps


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 500), st.floats(0.01, 0.6), st.floats(1.5, 10), st.floats(1.05, 1.6))
def test_a_sampled_plan_is_monotone(steps: int, rate: float, epsilon: float, more: float) -> None:
    noise = solve_noise("rdp", 16, steps, rate, epsilon, 1e-5)
    assert solve_noise("rdp", 16, steps, rate * more, epsilon, 1e-5) > noise
    assert solve_noise("rdp", 16, steps, rate, epsilon * more, 1e-5) < noise
    assert solve_noise("rdp", 16, 2 * steps, rate, epsilon, 1e-5) > noise


# Under a ledger that paid before.


@pytest.mark.parametrize(
    "ledger",
    [Ledger("ward", 8.0, 1e-5), Ledger("ward", 8.0, 1e-5, "rdp", 6)],
    ids=["gdp", "rdp"],
)
def test_a_plan_for_the_rest_uses_it_up(ledger: Ledger) -> None:
    def cost_at(noise: float) -> Cost:
        return training_cost(60, 1.0, noise)

    first = noise_for_ledger(ledger, cost_at, 4.0)
    after = ledger.charge(cost_at(first))
    assert 0 < after.left() < 8.0
    alone = epsilon_of_plan(ledger.filter, None, 60, 1.0, first, 1e-5)
    assert alone == pytest.approx(4.0)  # what this plan may spend, at its own best order

    rest = noise_for_ledger(after, cost_at)
    done = after.charge(cost_at(rest))
    assert done.left() < 1e-6
    assert 8 - 1e-6 < done.spent() <= 8
    with pytest.raises(BadInput, match="spent of 8"):
        noise_for_ledger(done, cost_at)
    scarce = noise_for_ledger(after, cost_at, 7.9)  # more than is left: the ledger decides
    assert scarce == pytest.approx(rest, rel=1e-9)


def test_votes_are_planned_like_steps() -> None:
    def answers(noise: float) -> Cost:  # exact discrete Gaussian noise on four batches of votes
        return events.self_composed(4, events.zcdp(1 / (2 * noise**2)))

    noise = noise_for_budget("rdp", None, answers, 2.0, 1e-5)
    assert noise == pytest.approx(solve_noise("rdp", None, 4, 1.0, 2.0, 1e-5), rel=1e-9)
    order = planning.best_order_for(answers, 2.0, 1e-5)
    assert Ledger("ward", 2.0, 1e-5, "rdp", order).covers(answers(noise))


def test_a_budget_that_any_noise_fits_asks_for_the_least_that_is_tried() -> None:
    assert solve_noise("gdp", None, 1, 1.0, 1e7, 1e-5) == planning.LEAST_NOISE


def test_an_order_that_reaches_nothing_is_not_the_best() -> None:
    steps, epsilon = 10**10, 0.05  # so many that rounding alone passes the limit of some orders
    order = best_order(steps, 0.01, epsilon, 1e-5)
    noise = solve_noise("rdp", order, steps, 0.01, epsilon, 1e-5)
    assert Ledger("ward", epsilon, 1e-5, "rdp", order).covers(training_cost(steps, 0.01, noise))
    with pytest.raises(BadInput):
        solve_noise("rdp", None, 10**13, 0.01, epsilon, 1e-5)


# What is refused when it is planned, and not when it is trained.


def test_a_plan_that_its_filter_cannot_charge_is_refused() -> None:
    gdp = Ledger("ward", 4.0, 1e-5)
    for refuse in (
        lambda: solve_noise("gdp", None, 100, 0.1, 4.0, 1e-5),
        lambda: steps_within("gdp", None, 0.1, 2.0, 4.0, 1e-5),
        lambda: epsilon_of_plan("gdp", None, 100, 0.1, 2.0, 1e-5),
        lambda: noise_for_budget("gdp", None, lambda noise: events.zcdp(noise**-2), 4.0, 1e-5),
        lambda: expect_covered(gdp, training_cost(100, 0.1, 1e6)),
        lambda: noise_for_ledger(gdp, lambda noise: training_cost(100, 0.1, noise)),
    ):
        with pytest.raises(BadInput, match="cannot be charged by filter gdp"):
            refuse()


def test_a_plan_that_the_budget_does_not_cover_is_refused() -> None:
    ledger = Ledger("ward", 1.0, 1e-5)
    expect_covered(ledger, training_cost(60, 1.0, 30.0))
    with pytest.raises(BadInput, match="60 x Gaussian"):
        expect_covered(ledger, training_cost(60, 1.0, 10.0))
    with pytest.raises(BadInput, match="NonPrivate"):
        expect_covered(ledger, events.NON_PRIVATE)
    expect_covered(Ledger("ward"), events.NON_PRIVATE)


def test_an_open_budget_is_nothing_to_plan_for() -> None:
    with pytest.raises(BadInput, match="an open budget of ward"):
        noise_for_ledger(Ledger("ward"), lambda noise: training_cost(60, 1.0, noise))


def test_an_epsilon_that_no_noise_reaches_is_refused() -> None:
    for filter_, order, epsilon in (("gdp", None, 0.0), ("rdp", 3, 4.0), ("rdp", None, 1e-4)):
        with pytest.raises(BadInput):
            solve_noise(filter_, order, 60, 1.0, epsilon, 1e-5)
    with pytest.raises(BadInput):
        solve_noise("gdp", None, 60, 1.0, math.nan, 1e-5)


@pytest.mark.parametrize(
    ("steps", "rate", "noise"),
    [
        *[(0, 1.0, 1.0), (1.5, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.5, 1.0), (1, 0.5, 0.0)],
        *[(1, 0.5, math.nan), (1, math.nan, 1.0)],
    ],
)
def test_a_plan_that_is_none_is_refused(steps: int, rate: float, noise: float) -> None:
    with pytest.raises(BadInput):
        training_cost(steps, rate, noise)


def test_steps_may_be_none_at_all() -> None:
    assert steps_within("gdp", None, 1.0, 0.01, 1.0, 1e-5) == 0


# delta


def test_the_default_delta_is_well_below_one_over_the_number_of_patients() -> None:
    assert default_delta(303) == 1e-5
    assert default_delta(71_518) == pytest.approx(71_518**-1.1)
    for patients in (1, 2, 10, 303, 10**6, 10**9):
        expect_delta(default_delta(patients), patients)


@pytest.mark.parametrize("delta", [0, -1e-5, 1 / 303, 0.5, 1, math.nan, True])
def test_a_delta_at_which_one_patient_could_be_let_out_is_refused(delta: float) -> None:
    with pytest.raises(BadInput, match=r"below 1/303 = 0\.0033"):
        expect_delta(delta, 303)


@pytest.mark.parametrize("patients", [0, -1, 2.5, math.nan, True, "303", None])
def test_a_number_of_patients_that_is_none_is_refused(patients: int) -> None:
    with pytest.raises(BadInput, match="patients"):
        default_delta(patients)
