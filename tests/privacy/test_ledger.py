"""What a population may still pay: an open budget covers all, a bounded one what it can count."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.privacy import BudgetExhausted, Ledger, PublicFacts
from fedkd.privacy.mechanisms.none import NON_PRIVATE, none

costs = st.lists(
    st.fixed_dictionaries({"event": st.sampled_from(["NonPrivateDpEvent", "GaussianDpEvent", ""])}),
    max_size=8,
)


@given(costs)
def test_an_open_budget_covers_every_cost_and_remembers_it(charges: list[dict[str, str]]) -> None:
    ledger = Ledger("ward")
    for cost in charges:
        ledger = ledger.charge(cost)
    assert list(ledger.charged) == charges
    assert Ledger("ward").replay(charges) == ledger


@given(st.floats(1e-6, 1e6), costs, st.sampled_from(["NonPrivateDpEvent", "Unheard", None]))
def test_a_bounded_budget_covers_no_cost_that_it_cannot_count(
    epsilon: float, before: list[dict[str, str]], event: str | None
) -> None:
    ledger = Ledger("ward", epsilon, 1e-5).replay(before)
    with pytest.raises(BudgetExhausted) as told:
        ledger.charge({} if event is None else {"event": event})
    assert "ward" in str(told.value)
    assert ledger.charged == tuple(before)  # nothing was charged


def test_a_budget_of_nothing_is_a_budget() -> None:
    with pytest.raises(BudgetExhausted):
        Ledger("ward", 0.0).charge(NON_PRIVATE)


def test_a_ledger_is_never_changed_in_place() -> None:
    ledger = Ledger("ward")
    after = ledger.charge(NON_PRIVATE)
    assert ledger.charged == ()
    assert after.charged == (NON_PRIVATE,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ledger.epsilon = 8.0  # type: ignore[misc]


@given(costs, costs)
def test_replaying_in_two_parts_is_replaying_at_once(
    first: list[dict[str, str]], second: list[dict[str, str]]
) -> None:
    ledger = Ledger("ward")
    assert ledger.replay(first).replay(second) == ledger.replay([*first, *second])


@given(st.integers(2, 100), st.integers(1, 10_000))
def test_no_mechanism_says_what_it_costs_and_what_it_is(classes: int, queries: int) -> None:
    mechanism = none()
    facts = PublicFacts(classes)
    assert (mechanism.name, mechanism.private) == ("none", False)
    assert mechanism.training_cost(facts) == NON_PRIVATE
    assert mechanism.answer_cost(facts, queries) == NON_PRIVATE


def test_no_mechanism_lets_answers_out_as_they_are_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(4), size=5).astype(np.float32)
    state = rng.bit_generator.state
    np.testing.assert_array_equal(none().release(said, rng), said)
    assert rng.bit_generator.state == state
