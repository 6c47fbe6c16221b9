"""What is said to an officer beside an epsilon, and that nothing of it may be missing."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import fedkd.privacy
from fedkd.knowledge import BadInput
from fedkd.privacy import risk
from fedkd.privacy.risk import Claim, NoClaim, Preparation, in_words, odds_in_words, recognised

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


# The claim.

CLAIM = Claim(
    epsilon=1.0,
    delta=1e-5,
    unit="patient",
    records_per_unit="any number: one clipped gradient for each patient",
    relation="replace_special",
    not_protected=("what is true of all patients", "what other hospitals let out"),
    trust="the hospital's own machine; nobody else",
    mechanism="dp_training",
    sensitivity="1 clip, in L2, for one patient's gradient",
    noise_multiplier=28.9,
    clip=1.0,
    sampling_rate=1.0,
    steps=60,
    sampling="none: every patient took part in every step",
    accountant="closed form of the Gaussian mechanism",
    accountant_version="fedkd 0.1.0",
    runs=("r1",),
    period="2026-11-24",
    population="ward",
    budget_epsilon=8.0,
    budget_delta=1e-5,
    filter="gdp",
    refusals=0,
    preprocessing=(Preparation("scaling by public ranges", "public"),),
    tuning=(Preparation("steps and clip, on other data", "public"),),
    noise_source="the operating system's entropy",
    audit="none was run",
    subgroup_utility="not measured",
    several_sites="losses of somebody who is at two sites add up, unseen by either",
    evidence=("site-01#7",),
)


def test_a_claim_travels_as_data() -> None:
    body = json.loads(json.dumps(CLAIM.to_json()))
    assert Claim.from_json(body) == CLAIM


@pytest.mark.parametrize("name", [one.name for one in fields(Claim)])
def test_a_missing_field_is_no_claim(name: str) -> None:
    body = CLAIM.to_json()
    with pytest.raises(NoClaim, match=name):
        Claim.from_json({key: value for key, value in body.items() if key != name})
    for nothing in (None, "", "  ", (), [], True):
        with pytest.raises((NoClaim, TypeError)):
            replace(CLAIM, **{name: nothing})
    with pytest.raises(TypeError):  # no field has a default
        Claim(**{key: value for key, value in body.items() if key != name})


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"epsilon": math.inf}, "epsilon inf"),
        ({"epsilon": math.nan}, "epsilon nan"),
        ({"epsilon": "1"}, "epsilon '1'"),
        ({"epsilon": 9.0}, "budget_epsilon 8.0"),  # a claim above its budget
        ({"delta": 0.0}, "delta 0.0"),
        ({"noise_multiplier": 0.0}, "noise_multiplier 0.0"),
        ({"sampling_rate": 1.5}, "sampling_rate 1.5"),
        ({"clip": math.nan}, "clip nan"),
        ({"clip": 0.0}, "clip 0.0"),
        ({"steps": 0}, "steps 0"),
        ({"steps": 1.5}, "steps 1.5"),
        ({"refusals": -1}, "refusals -1"),
        ({"unit": "hospital"}, "unit 'hospital'"),
        ({"relation": "replace_one"}, "relation 'replace_one'"),
        ({"filter": "sum"}, "filter 'sum'"),
        ({"not_protected": ("x", "")}, "not_protected"),
        ({"preprocessing": ("scaling",)}, "preprocessing"),
    ],
)
def test_a_field_that_says_nothing_is_no_claim(wrong: dict[str, Any], found: str) -> None:
    with pytest.raises(NoClaim) as told:
        replace(CLAIM, **wrong)
    assert found in told.value.found


def test_a_field_that_nobody_knows_is_no_claim() -> None:
    with pytest.raises(NoClaim, match="certainty"):
        Claim.from_json({**CLAIM.to_json(), "certainty": 1})
    with pytest.raises(NoClaim, match="handled"):
        Preparation("scaling", "free")
    with pytest.raises(NoClaim, match="what"):
        Preparation("", "public")


def test_a_mechanism_without_a_clip_says_so_in_words() -> None:
    assert replace(CLAIM, clip="none: votes are bounded by what they are").steps == 60


def test_a_claim_says_what_it_is_about_and_what_was_not_paid_for() -> None:
    said = replace(CLAIM, tuning=(Preparation("medians of the records", "NOT charged"),)).in_words()
    assert "for each patient of ward" in said
    assert "of a budget of 8" in said
    assert "at most 2.0" in said
    assert "2.72-fold" in said
    assert "what other hospitals let out" in said
    assert "NOT charged, and so outside it: medians of the records" in said
    assert "NOT charged" not in CLAIM.in_words()


def test_no_word_promises_more_than_was_proved() -> None:
    said = CLAIM.in_words() + "".join(in_words(e, 1e-5, f) for e in (1, 8) for f in ("gdp", "rdp"))
    source = Path(fedkd.privacy.__file__).parent
    for word in ("anonym", "complian", "certif", "guarantees that nobody", "impossible", "safe"):
        assert word not in said.lower()
        assert word not in (source / risk.__file__).read_text().lower()
