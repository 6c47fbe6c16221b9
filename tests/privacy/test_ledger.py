"""What a population may still pay: an open budget covers all, a bounded one what its filter can."""

import dataclasses
import json
import math
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import dp_accounting
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import BadInput
from fedkd.privacy import BudgetExhausted, Cost, Ledger, NotChargeable, accounting, events
from fedkd.privacy.planning import solve_noise, training_cost

few = settings(max_examples=40, deadline=None)
names = st.sampled_from(["NonPrivateDpEvent", "NonPrivate", "Gaussian", "Unheard", ""])
anything = st.lists(st.fixed_dictionaries({"event": names}), max_size=8)
gaussians = st.builds(
    lambda count, noise: events.self_composed(count, events.gaussian(noise)),
    st.integers(1, 50),
    st.floats(3, 300),
)
many = st.lists(gaussians, max_size=12)
GDP = Ledger("ward", 4.0, 1e-5)
RDP = Ledger("ward", 4.0, 1e-5, filter="rdp", order=6)
both = pytest.mark.parametrize("ledger", [GDP, RDP], ids=["gdp", "rdp"])


def accepted(ledger: Ledger, costs: list[Cost]) -> Ledger:
    """The ledger after each of `costs` that it covers, in their order."""
    for cost in costs:
        try:
            ledger = ledger.charge(cost)
        except BudgetExhausted:
            continue
    return ledger


# Open budgets.


@given(anything)
def test_an_open_budget_covers_every_cost_and_remembers_it(charges: list[dict[str, str]]) -> None:
    ledger = Ledger("ward")
    for cost in charges:
        assert ledger.covers(cost)
        ledger = ledger.charge(cost)
    assert list(ledger.charged) == charges
    assert Ledger("ward").replay(charges) == ledger
    assert ledger.spent() == (math.inf if charges else 0)
    assert ledger.left() == math.inf
    assert ledger.spent_by() is None


def test_what_is_free_costs_an_open_budget_nothing() -> None:
    assert Ledger("ward").charge(events.NO_OP).spent() == 0


# What a bounded budget never covers.


@few
@given(st.floats(1e-6, 1e6), st.sampled_from(["NonPrivateDpEvent", "NonPrivate", "Unheard", None]))
def test_a_bounded_budget_covers_no_cost_that_it_cannot_count(
    epsilon: float, event: str | None
) -> None:
    ledger = Ledger("ward", epsilon, 1e-5)
    cost = {} if event is None else {"event": event}
    assert not ledger.covers(cost)
    with pytest.raises(NotChargeable):
        ledger.charge(cost)
    assert ledger.charged == ()  # nothing was charged


@pytest.mark.parametrize("noise", [math.nan, 0.0, -1.0, math.inf, None, "2", True])
@both
def test_a_noise_that_is_none_is_refused_and_not_charged_as_free(
    ledger: Ledger, noise: Any
) -> None:
    with pytest.raises(BudgetExhausted):
        ledger.charge({"event": "Gaussian", "noise_multiplier": noise})


def test_gdp_charges_no_sample_and_no_zcdp() -> None:
    for cost in (training_cost(10, 0.1, 20.0), events.zcdp(1e-6)):
        with pytest.raises(NotChargeable, match="cannot be charged by filter gdp"):
            GDP.charge(cost)
        assert RDP.charge(cost).spent() > 0


@pytest.mark.parametrize("ledger", [Ledger("ward", 0.0, 1e-5), Ledger("ward", 1.0)])
def test_a_budget_of_nothing_or_without_a_delta_covers_what_is_free(ledger: Ledger) -> None:
    for cost in (events.gaussian(1e9), events.NON_PRIVATE):
        with pytest.raises(BudgetExhausted):
            ledger.charge(cost)
    assert ledger.charge(events.NO_OP).spent() == 0
    assert ledger.left() == 0


@both
def test_what_was_let_out_unprotected_before_leaves_nothing(ledger: Ledger) -> None:
    for before in (events.NON_PRIVATE, {"event": "Unheard"}, {"event": "NonPrivateDpEvent"}):
        after = ledger.replay([before])
        assert after.spent() == math.inf
        assert after.left() == 0
        for cost in (events.gaussian(1e9), events.NO_OP):
            assert not after.covers(cost)
            with pytest.raises(BudgetExhausted):
                after.charge(cost)


@both
def test_more_than_the_budget_can_be_remembered_and_then_nothing_is_left(ledger: Ledger) -> None:
    after = ledger.replay([events.gaussian(0.1)])
    assert after.spent() > 4.0
    assert after.left() == 0
    assert not after.covers(events.NO_OP)


# The filter.


@few
@given(many)
def test_a_budget_is_never_exceeded(costs: list[Cost]) -> None:
    """However charges come: counted once more by dp_accounting's own closed form."""
    ledger = accepted(GDP, costs)
    square = sum(
        count / Fraction(leaf["noise_multiplier"]) ** 2
        for cost in ledger.charged
        for leaf, count in events.leaves(cost)
    )
    truth = dp_accounting.get_epsilon_gaussian(1 / math.sqrt(square), 1e-5) if square else 0.0
    assert truth <= 4.0 + 1e-9
    assert truth - 1e-9 <= ledger.spent() <= 4.0


@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0.01, 1), st.floats(2, 30)), max_size=6))
def test_a_budget_at_one_order_is_never_exceeded(
    plans: list[tuple[int, float, float]],
) -> None:
    ledger = accepted(RDP, [training_cost(*plan) for plan in plans])
    truth = accounting.epsilon(ledger.charged, 1e-5, "rdp")  # the best of all orders
    assert truth - 1e-9 <= ledger.spent() <= 4.0


@few
@given(many, st.randoms(use_true_random=False))
def test_the_order_of_charges_does_not_matter(costs: list[Cost], random: Any) -> None:
    """The same charges are all accepted, or not, to the last bit: sums are of integers."""
    shuffled = list(costs)
    random.shuffle(shuffled)
    one, other = accepted(GDP, costs), accepted(GDP, shuffled)
    assert (len(one.charged) == len(costs)) == (len(other.charged) == len(costs))
    assert GDP.replay(costs).spent() == GDP.replay(shuffled).spent()
    assert GDP.replay(costs).left() == GDP.replay(shuffled).left()


@both
@few
@given(first=many, second=many)
def test_replaying_is_charging_and_can_be_done_in_parts(
    ledger: Ledger, first: list[Cost], second: list[Cost]
) -> None:
    charged = accepted(accepted(ledger, first), second)
    replayed = ledger.replay(charged.charged)
    assert replayed == charged
    assert (replayed.spent(), replayed.left()) == (charged.spent(), charged.left())
    assert ledger.replay(first).replay(second) == ledger.replay([*first, *second])


@both
@settings(max_examples=10, deadline=None)
@given(costs=many)
def test_what_covers_says_is_what_charge_does(ledger: Ledger, costs: list[Cost]) -> None:
    for cost in costs:
        before = ledger
        try:
            ledger = ledger.charge(cost)
        except BudgetExhausted:
            assert not before.covers(cost)
        else:
            assert before.covers(cost)
            assert ledger.spent() >= before.spent()
            assert ledger.left() <= before.left()


@both
def test_a_plan_for_the_whole_budget_is_accepted_and_nothing_after_it(ledger: Ledger) -> None:
    noise = solve_noise(ledger.filter, ledger.order, 60, 1.0, 4.0, 1e-5)
    after = ledger.charge(training_cost(60, 1.0, noise))
    assert 4.0 - 1e-9 <= after.spent() <= 4.0
    assert after.left() <= 1e-9
    assert after.covers(events.NO_OP)  # post-processing is free
    for cost in (events.gaussian(1e6), training_cost(60, 1.0, noise)):
        with pytest.raises(BudgetExhausted):
            after.charge(cost)
    with pytest.raises(BudgetExhausted):
        ledger.charge(training_cost(60, 1.0, noise * (1 - 1e-9)))


@both
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_plan_for_what_is_left_is_accepted(ledger: Ledger, share: float) -> None:
    noise = solve_noise(ledger.filter, ledger.order, 60, 1.0, 4.0, 1e-5) / math.sqrt(share)
    ledger = ledger.charge(training_cost(60, 1.0, noise))
    assert 0 < ledger.left() < 4.0
    if ledger.filter == "gdp":
        second = solve_noise("gdp", None, 7, 1.0, ledger.left(), 1e-5)
        assert ledger.charge(training_cost(7, 1.0, second)).left() < 1e-3
    else:  # at one order, what is spent and what is left are the budget
        assert ledger.spent() + ledger.left() == pytest.approx(4.0)


@both
def test_counts_with_geometric_noise_are_charged_beside_training(ledger: Ledger) -> None:
    after = ledger.charge(events.gaussian(2)).charge(events.pure(0.1))
    assert ledger.charge(events.gaussian(2)).spent() < after.spent() < 4.0
    assert after.spent_by() is None  # dp_accounting has no event for it


def test_half_the_squares_are_left_under_gdp() -> None:
    after = GDP.charge(training_cost(60, 1.0, solve_noise("gdp", None, 60, 1.0, 2.0, 1e-5)))
    assert after.spent() == pytest.approx(2.0)
    assert after.left() == pytest.approx(3.2768, abs=1e-4)


def test_runs_share_a_budget() -> None:
    half = training_cost(30, 1.0, solve_noise("gdp", None, 60, 1.0, 4.0, 1e-5))
    with pytest.raises(BudgetExhausted):
        GDP.charge(half).charge(half).charge(half)


def test_many_equal_charges_cost_as_one_of_as_many() -> None:
    step, many_ = events.gaussian(50), events.self_composed(300, events.gaussian(50))
    assert GDP.replay([step] * 300).spent() == GDP.charge(many_).spent()


# Replaying.


@pytest.mark.parametrize(
    ("ledger", "cost_of"),
    [
        (Ledger("ward", 8.0, 1e-5), lambda n: events.gaussian(1000 + n / 7)),
        (Ledger("ward", 8.0, 1e-5), lambda n: events.laplace(9000 + n)),
        (RDP, lambda n: events.zcdp(1e-8 * (n + 1))),
        (RDP, lambda n: events.poisson_sampled(0.01, events.gaussian(20 + n % 100))),
    ],
    ids=["gaussian", "laplace", "zcdp", "sampled, repeated"],
)
def test_ten_thousand_charges_are_replayed_in_no_time(
    ledger: Ledger, cost_of: Callable[[int], Cost]
) -> None:
    costs = [cost_of(n) for n in range(10_000)]
    ledger.replay(costs[:1])  # imports
    start = time.process_time()
    after = ledger.replay(costs)
    assert after.spent() > 0
    assert time.process_time() - start < 2.0
    if ledger.filter == "gdp":
        start = time.process_time()
        charged = ledger
        for cost in costs:
            charged = charged.charge(cost)
        assert charged == after
        assert time.process_time() - start < 4.0


def test_a_ledger_is_never_changed_in_place() -> None:
    ledger = Ledger("ward")
    after = ledger.charge(events.NON_PRIVATE)
    assert ledger.charged == ()
    assert after.charged == (events.NON_PRIVATE,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ledger.epsilon = 8.0  # type: ignore[misc]


def test_a_copy_under_other_terms_is_counted_anew() -> None:
    charged = RDP.charge(events.gaussian(10))
    other = dataclasses.replace(charged, order=8)
    assert other.spent() == Ledger("ward", 4.0, 1e-5, "rdp", 8).replay(charged.charged).spent()
    assert dataclasses.replace(charged, charged=()).spent() == 0


# The opening record.


@pytest.mark.parametrize(
    "ledger", [Ledger("ward"), GDP, RDP, Ledger("w", 1.0, 1e-6, unit="record")]
)
def test_an_opening_record_is_data_and_opens_the_same_ledger(ledger: Ledger) -> None:
    body = json.loads(json.dumps(ledger.to_json()))
    assert set(body) == {*("population", "unit", "relation", "epsilon", "delta", "filter", "order")}
    assert Ledger.opened({**body, "rehearsal": True}) == ledger


def test_a_record_of_an_earlier_version_opens_an_open_budget() -> None:
    body = {"population": "ward", "epsilon": None, "delta": None, "rehearsal": True}
    assert Ledger.opened(body) == Ledger("ward")


GOOD = GDP.to_json()


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"epsilon": -1.0}, "epsilon -1.0"),
        ({"epsilon": math.nan}, "epsilon nan"),
        ({"epsilon": math.inf}, "epsilon inf"),
        ({"epsilon": "4"}, "epsilon '4'"),
        ({"epsilon": True}, "epsilon True"),
        ({"delta": 0}, "delta 0"),
        ({"delta": 1.0}, "delta 1.0"),
        ({"delta": math.nan}, "delta nan"),
        ({"delta": None}, "no delta"),
        ({"filter": "pld"}, "filter 'pld'"),
        ({"filter": "rdp"}, "filter 'rdp' with order None"),
        ({"order": 8}, "filter 'gdp' with order 8"),
        ({"filter": "rdp", "order": 2.5}, "order 2.5"),
        ({"filter": "rdp", "order": []}, "order []"),
        ({"filter": "rdp", "order": 3}, "order 3"),  # at epsilon 4 nothing could be spent
        ({"unit": "hospital"}, "unit 'hospital'"),
        ({"relation": "replace_one"}, "relation 'replace_one'"),
        ({"population": ""}, "population ''"),
        ({"population": None}, "population None"),
    ],
)
def test_a_record_that_opens_nothing_is_refused(wrong: dict[str, Any], found: str) -> None:
    with pytest.raises(BadInput) as told:
        Ledger.opened({**GOOD, **wrong})
    assert found in str(told.value)


@pytest.mark.parametrize("missing", ["population", "epsilon", "delta"])
def test_a_record_with_a_gap_is_refused(missing: str) -> None:
    with pytest.raises(BadInput):
        Ledger.opened({name: value for name, value in GOOD.items() if name != missing})


# What a refusal and a figure say.


def test_a_refusal_says_what_was_found_and_expected_in_public_facts() -> None:
    ledger = GDP.charge(events.gaussian(2))
    with pytest.raises(BudgetExhausted) as told:
        ledger.charge(events.self_composed(60, events.gaussian(3)))
    error = told.value
    assert "60 x Gaussian(3)" in error.found
    assert f"{ledger.spent():.6g} spent of 4" in error.found
    assert "ward" in error.expected
    assert f"epsilon {ledger.left():.6g}" in error.expected
    assert str(error) == f"found {error.found}, expected {error.expected}; {error.remedy}"


def test_the_same_charges_as_one_plan_are_labelled_so() -> None:
    ledger = RDP.charge(training_cost(100, 0.1, 2.0))
    found = ledger.spent_by()
    assert found is not None
    assert found.epsilon < ledger.spent()
    assert "one plan" in str(found)
    assert ledger.spent_by("rdp").epsilon <= ledger.spent()  # type: ignore[union-attr]
    assert RDP.charge(events.zcdp(0.001)).spent_by("pld") is None  # PLD cannot count it
    with pytest.raises(BadInput):
        ledger.spent_by("gdp")
