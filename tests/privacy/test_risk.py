"""What an epsilon means, said to an officer: whom an attacker recognises, and the odds."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedkd.knowledge import BadInput
from fedkd.privacy import risk
from fedkd.privacy.risk import in_words, odds_in_words, recognised

few = settings(max_examples=40, deadline=None)
epsilons = st.floats(0, 30)
deltas = st.floats(-9, -2).map(lambda power: 10**power)
alarms = st.floats(0, 1)


@pytest.mark.parametrize(("epsilon", "of_100"), [(1, 2.0), (2, 3.4), (4, 8.1), (8, 25.5)])
def test_of_100_patients_so_many_are_recognised_at_one_false_alarm_in_100(
    epsilon: float, of_100: float
) -> None:
    assert round(100 * recognised(epsilon, 1e-5, "gdp"), 1) == of_100
    assert f"at most {of_100:.1f} if he accepts one" in in_words(epsilon, 1e-5, "gdp")


@few
@given(epsilons, deltas, alarms)
def test_a_bound_is_a_share_above_chance_and_the_gaussian_one_is_never_weaker(
    epsilon: float, delta: float, false_alarms: float
) -> None:
    general = recognised(epsilon, delta, "rdp", false_alarms)
    gaussian = recognised(epsilon, delta, "gdp", false_alarms)
    assert false_alarms - 1e-12 <= gaussian <= general <= 1 + 1e-12
    assert recognised(epsilon + 1, delta, "gdp", false_alarms) >= gaussian - 1e-12


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_no_attack_on_the_worst_gaussian_pair_is_better(epsilon: float) -> None:
    """N(0, 1) against N(mu, 1), thresholded: it reaches the bound, and never passes it."""
    from fedkd.privacy.accounting import mu_of_epsilon

    mu = mu_of_epsilon(epsilon, 1e-5)
    for threshold in (0.0, 1.0, 2.0, 3.0):
        caught = norm.sf(threshold - mu)
        bound = recognised(epsilon, 1e-5, "gdp", float(norm.sf(threshold)))
        assert caught == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 4.0])
def test_no_attack_on_randomised_response_is_better(epsilon: float) -> None:
    """He accuses whoever answered yes with one chance, whoever answered no with another."""
    honest = math.exp(epsilon) / (1 + math.exp(epsilon))
    for yes, no in ((0.3, 0.0), (1.0, 0.0), (1.0, 0.6), (1.0, 1.0)):
        caught = yes * honest + no * (1 - honest)
        bound = recognised(epsilon, 1e-12, "rdp", yes * (1 - honest) + no * honest)
        assert caught == pytest.approx(bound, abs=1e-9)


def test_the_odds_are_said_in_the_only_words_that_they_support() -> None:
    assert odds_in_words(1, 1e-5) == (
        "The odds that somebody took part rise at most 2.72-fold (e^1), save with probability "
        "about 1e-05."
    )
    assert "2.98e+03-fold (e^8)" in odds_in_words(8, 1e-5)


@pytest.mark.parametrize(
    ("epsilon", "delta", "filter_", "false_alarms"),
    [
        (math.inf, 1e-5, "gdp", 0.01),
        (math.nan, 1e-5, "gdp", 0.01),
        (-1, 1e-5, "gdp", 0.01),
        (1, 0, "gdp", 0.01),
        (1, 1, "gdp", 0.01),
        (1, math.nan, "gdp", 0.01),
        (1, 1e-5, "pld", 0.01),
        (1, 1e-5, "gdp", -0.1),
        (1, 1e-5, "gdp", math.nan),
    ],
)
def test_a_risk_of_nothing_that_could_be_claimed_is_refused(
    epsilon: float, delta: float, filter_: str, false_alarms: float
) -> None:
    with pytest.raises(BadInput):
        recognised(epsilon, delta, filter_, false_alarms)


def test_no_word_promises_more_than_was_proved() -> None:
    said = "".join(in_words(e, 1e-5, f) for e in (1, 8) for f in ("gdp", "rdp"))
    for word in ("anonym", "complian", "certif", "guarantees that nobody", "impossible", "safe"):
        assert word not in said.lower()
        assert word not in Path(risk.__file__).read_text().lower()
