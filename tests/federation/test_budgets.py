"""What an officer types into budget.yaml: typed, in range, and in nobody else's spelling."""

from typing import Any

import pytest
import yaml

from fedkd.federation.budgets import MOST_BYTES, UNPROTECTED, Budget, template
from fedkd.knowledge import BadInput
from fedkd.privacy.planning import default_delta
from tests.federation.officers import NOT_PRIVATE, paper


@pytest.mark.parametrize("patients", [1, 30, 303, 71_518, 10**8])
def test_the_template_is_a_valid_budget_of_epsilon_1(patients: int) -> None:
    text = template("Cardiology, St. Example", patients)
    budget = Budget.read(text.encode())
    assert budget.population == "Cardiology, St. Example"
    assert (budget.patients, budget.epsilon) == (patients, 1.0)
    assert budget.delta == pytest.approx(default_delta(patients), rel=1e-5)
    assert budget.mechanisms == ("dp_training",)
    assert budget.unprotected is False
    assert budget.replaces is None
    keys = yaml.safe_load(text)
    lines = text.splitlines()
    for key in keys:  # whoever reads it is told what each key is
        (at,) = [place for place, line in enumerate(lines) if line.startswith(f"{key}:")]
        above = [line for line in lines[:at] if line]
        assert above[-1].startswith("#") or above[-1].split(":")[0] in ("epsilon",), key


@pytest.mark.parametrize("name", ['He said "no"', "back\\slash", "Ärzte: #1", "- yes", "null"])
def test_a_population_of_any_spelling_comes_back_as_it_was_typed(name: str) -> None:
    assert Budget.read(template(name, 50).encode()).population == name


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "x" * 201])
def test_a_population_that_fits_no_line_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="the population"):
        template(name, 50)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"epsillon": 1.0}, "the key 'epsillon'.*did you mean 'epsilon'"),
    "a text as a number": ({"epsilon": "one"}, "'one' as epsilon"),
    "a text that looks like a number": ({"delta": "1e-5"}, "power of ten is written"),
    "true as a number": ({"epsilon": True}, "True as epsilon"),
    "no epsilon": ({"epsilon": None}, "None as epsilon"),
    "no delta": ({"delta": None}, "None as delta"),
    "an epsilon of zero": ({"epsilon": 0}, "epsilon: 0, expected a number in"),
    "an epsilon below zero": ({"epsilon": -1.0}, "epsilon: -1"),
    "an epsilon without end": ({"epsilon": float("inf")}, "a finite number"),
    "an epsilon that is none": ({"epsilon": float("nan")}, "a finite number"),
    "an epsilon that bounds nothing": ({"epsilon": 1000.0}, "epsilon: 1000"),
    "delta of one over n": ({"delta": 1 / 500}, "below 1/500"),
    "a delta of zero": ({"delta": 0.0}, "delta 0.0"),
    "no patients": ({"patients": 0}, "patients: 0"),
    "half a patient": ({"patients": 30.5}, "patients: 30.5"),
    "no population": ({"population": " "}, "population: ''"),
    "another unit": ({"unit": "patients"}, "one of patient, record; did you mean 'patient'"),
    "another relation": ({"relation": "replace_one"}, "did you mean 'replace_special'"),
    "a mistyped mechanism": ({"mechanisms": ["dp_trainig"]}, "did you mean 'dp_training'"),
    "a mechanism twice": ({"mechanisms": ["pate", "pate"]}, "a mechanism twice"),
    "one mechanism without a list": ({"mechanisms": "pate"}, "a list"),
    "none, quietly": ({"mechanisms": ["none"]}, f"with {UNPROTECTED}: false"),
    "none beside another": ({**NOT_PRIVATE, "mechanisms": ["none", "pate"]}, "never stands beside"),
    "the long key alone": ({UNPROTECTED: True}, f"with {UNPROTECTED}: true"),
    "the long key as a text": ({**NOT_PRIVATE, UNPROTECTED: "true"}, "true or false"),
    "a bound that does not hold": ({**NOT_PRIVATE, "epsilon": 1.0}, "null for both"),
    "no reason": ({"reason": ""}, "reason: ''"),
    "a short digest": ({"replaces": "sha256:12"}, "64 hexadecimal digits"),
    "a group as a number": ({"evaluation_groups": [1]}, "evaluation_groups"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_in_a_paper_is_refused_and_named(what: str) -> None:
    changes, why = WRONG[what]
    with pytest.raises(BadInput, match=why):
        Budget.read(paper("p", **changes))


def test_a_key_that_is_missing_or_there_twice_is_refused() -> None:
    whole = yaml.safe_load(paper("p"))
    for key in whole:
        rest = {name: value for name, value in whole.items() if name != key}
        if key == "evaluation_groups":
            assert Budget.read(yaml.safe_dump(rest).encode()).evaluation_groups == ()
            continue
        with pytest.raises(BadInput, match=f"no {key} in budget.yaml"):
            Budget.read(yaml.safe_dump(rest).encode())
    with pytest.raises(BadInput, match="'epsilon' twice"):
        Budget.read(paper("p") + b"epsilon: 9.0\n")


@pytest.mark.parametrize("body", [b"", b"- a", b"\xff\xfe", b"a: [", b"x" * (MOST_BYTES + 1)])
def test_bytes_that_are_no_paper_are_refused(body: bytes) -> None:
    with pytest.raises(BadInput):
        Budget.read(body)


def test_an_empty_list_of_mechanisms_may_have_no_bound() -> None:
    nothing = {"mechanisms": [], "epsilon": None, "delta": None}
    assert Budget.read(paper("p", **nothing)).epsilon is None
    assert Budget.read(paper("p", mechanisms=[])).epsilon == 1.0
