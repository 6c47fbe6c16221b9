"""An epsilon travels with all that makes it a claim, or it is not said."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from fedkd.privacy import claim
from fedkd.privacy.claim import REHEARSAL_NOISE, Claim, Evidence, NoClaim, Preparation, Use

USE = Use(
    run="r1",
    mechanism="dp_training",
    sensitivity="one clip, in L2, for one patient's gradient",
    noise_multiplier=28.9,
    clip=1.0,
    sampling_rate=1.0,
    steps=60,
    sampling="none: every patient took part in every step",
)
CLAIM = Claim(
    epsilon=1.0,
    delta=1e-5,
    spent=0.99,
    unit="patient",
    units=303,
    records_per_unit="any number: one clipped gradient for each patient",
    relation="replace_special",
    not_protected=("what is true of all patients", "what other hospitals let out"),
    trust="the hospital's own machine; nobody else",
    uses=(USE,),
    accountant="closed form of the Gaussian mechanism",
    accountant_version="fedkd 0.1.0",
    filter="gdp",
    order="none",
    runs=("r1",),
    period="2026-11-24",
    population="ward",
    refusals=0,
    preprocessing=(Preparation("scaling by public ranges", "public"),),
    tuning=(Preparation("steps and clip, on other data", "public"),),
    noise_source="the operating system's entropy",
    audit="not attacked",
    subgroup_utility="not measured",
    several_sites="losses of somebody who is at two sites add up, unseen by either",
    evidence=Evidence("site-01", 12, "ab" * 32),
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
        with pytest.raises((NoClaim, TypeError)):
            Claim.from_json({**body, name: nothing})
    with pytest.raises(TypeError):  # no field has a default
        Claim(**{key: value for key, value in body.items() if key != name})


@pytest.mark.parametrize("name", [one.name for one in fields(Use)])
def test_a_use_of_a_mechanism_lacks_nothing_either(name: str) -> None:
    body = CLAIM.to_json()
    (use,) = body["uses"]
    with pytest.raises(NoClaim, match=name):
        Claim.from_json({**body, "uses": [{key: use[key] for key in use if key != name}]})
    for nothing in (None, "", True):
        with pytest.raises(NoClaim, match=name):
            replace(USE, **{name: nothing})


@pytest.mark.parametrize("name", [one.name for one in fields(Evidence)])
def test_evidence_is_a_log_with_its_size_and_root(name: str) -> None:
    body = CLAIM.to_json()
    kept = {key: value for key, value in body["evidence"].items() if key != name}
    with pytest.raises(NoClaim, match=name):
        Claim.from_json({**body, "evidence": kept})
    with pytest.raises(NoClaim, match=name):
        replace(CLAIM.evidence, **{name: ""})


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"epsilon": math.inf}, "epsilon inf"),
        ({"epsilon": math.nan}, "epsilon nan"),
        ({"epsilon": "1"}, "epsilon '1'"),
        ({"epsilon": 0.0}, "epsilon 0.0"),
        ({"spent": 1.1}, "spent 1.1"),  # more than the budget: there is no guarantee left
        ({"spent": math.inf}, "spent inf"),
        ({"spent": -0.1}, "spent -0.1"),
        ({"delta": 0.0}, "delta 0.0"),
        ({"delta": 1 / 303}, "delta 0.0033"),  # at which one patient's records may pass
        ({"units": 0}, "units 0"),
        ({"order": 4.0}, "order 4.0 under filter gdp"),
        ({"filter": "rdp"}, "order 'none' under filter rdp"),
        ({"filter": "rdp", "order": 1.0}, "order 1.0"),
        ({"refusals": -1}, "refusals -1"),
        ({"unit": "hospital"}, "unit 'hospital'"),
        ({"relation": "replace_one"}, "relation 'replace_one'"),
        ({"filter": "sum"}, "filter 'sum'"),
        ({"not_protected": ("x", "")}, "not_protected"),
        ({"preprocessing": ("scaling",)}, "preprocessing"),
        ({"uses": ()}, "uses"),  # something is spent, and nothing says on what
    ],
)
def test_a_field_that_says_nothing_is_no_claim(wrong: dict[str, Any], found: str) -> None:
    with pytest.raises(NoClaim) as told:
        replace(CLAIM, **wrong)
    assert found in told.value.found


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier nan"),
        ({"sampling_rate": 1.5}, "sampling_rate 1.5"),
        ({"clip": math.nan}, "clip nan"),
        ({"clip": 0.0}, "clip 0.0"),
        ({"steps": 0}, "steps 0"),
        ({"steps": 1.5}, "steps 1.5"),
    ],
)
def test_a_use_without_noise_or_clip_is_none(wrong: dict[str, Any], found: str) -> None:
    with pytest.raises(NoClaim) as told:
        replace(USE, **wrong)
    assert found in told.value.found


def test_a_budget_of_which_nothing_is_spent_can_be_claimed() -> None:
    assert replace(CLAIM, spent=0.0, uses=()).uses == ()


def test_a_field_that_nobody_knows_is_no_claim() -> None:
    with pytest.raises(NoClaim, match="certainty"):
        Claim.from_json({**CLAIM.to_json(), "certainty": 1})
    with pytest.raises(NoClaim, match="handled"):
        Preparation("scaling", "free")
    with pytest.raises(NoClaim, match="what"):
        Preparation("", "public")
    for nothing in (None, [], "epsilon 1"):
        with pytest.raises(NoClaim, match="epsilon"):
            Claim.from_json(nothing)


def test_a_mechanism_without_a_clip_says_so_in_words() -> None:
    assert replace(USE, clip="none: votes are bounded by what they are").steps == 60


def test_the_sentence_says_the_bound_the_risk_and_the_gaps() -> None:
    said = replace(CLAIM, tuning=(Preparation("medians of the records", "NOT charged"),)).sentence()
    for words in (
        "At most epsilon 1 at delta 1e-05, ever, for each patient of ward",
        "0.99 of it is spent so far (for display: the budget is what is promised)",
        "at most 2.0 if he accepts one false alarm in 100",
        "2.72-fold",
        "what other hospitals let out",
        "Losses of somebody who is at two sites add up",
        "NOT charged, and so outside it: medians of the records",
        "Attacks: not attacked",
    ):
        assert words in said
    assert "NOT charged" not in CLAIM.sentence()
    assert "not private" not in CLAIM.sentence().lower()


@pytest.mark.parametrize(("epsilon", "of_100"), [(1, "2.0"), (2, "3.4"), (4, "8.1"), (8, "25.5")])
def test_the_risk_beside_an_epsilon_is_that_of_the_budget(epsilon: float, of_100: str) -> None:
    said = replace(CLAIM, epsilon=float(epsilon), spent=0.5).sentence()
    assert f"recognises at most {of_100} if he accepts one false alarm in 100" in said


def test_noise_that_can_be_drawn_again_is_called_not_private() -> None:
    rehearsal = replace(CLAIM, noise_source=REHEARSAL_NOISE)
    assert rehearsal.is_rehearsal
    assert "Not private: rehearsal noise, drawn from a seed" in rehearsal.sentence()
    assert not CLAIM.is_rehearsal


def test_no_word_promises_more_than_was_proved() -> None:
    said = CLAIM.sentence() + Path(claim.__file__).read_text()
    for word in ("anonym", "complian", "certif", "guarantees that nobody", "impossible", "safe"):
        assert word not in said.lower()
