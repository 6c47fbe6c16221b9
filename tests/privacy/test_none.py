"""The mechanism that protects nobody says so, and lets answers out as they are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedkd.privacy import PublicFacts
from fedkd.privacy.mechanisms.none import NON_PRIVATE, none
from fedkd.privacy.noise import rehearsal_noise


@given(st.integers(1, 10**6), st.integers(2, 100), st.integers(1, 10_000))
def test_no_mechanism_says_what_it_costs_and_what_it_is(
    patients: int, classes: int, queries: int
) -> None:
    mechanism = none()
    facts = PublicFacts(patients, classes)
    assert (mechanism.name, mechanism.private) == ("none", False)
    assert mechanism.training_cost(facts, None) == NON_PRIVATE
    assert mechanism.answer_cost(facts, None, queries) == NON_PRIVATE


def test_no_mechanism_lets_answers_out_as_they_are_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(4), size=5).astype(np.float32)
    state = rng.bit_generator.state
    np.testing.assert_array_equal(none().release(said, None, rehearsal_noise(rng)), said)
    assert rng.bit_generator.state == state
