"""A cost is checked before anything counts it, and has one spelling."""

import json
import math
from typing import Any

import dp_accounting
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import BadInput
from fedkd.privacy import events
from fedkd.privacy.events import Cost, canonical, cost_of, dp_event, in_words, leaves

noises = st.floats(1e-6, 1e6)
releases = st.one_of(
    st.builds(events.gaussian, noises),
    st.builds(events.laplace, noises),
    st.builds(events.zcdp, noises),
    st.builds(events.pure, noises),
    st.builds(events.poisson_sampled, st.floats(1e-6, 1), st.builds(events.gaussian, noises)),
    st.sampled_from([events.NO_OP, events.NON_PRIVATE]),
)
costs = st.recursive(
    releases,
    lambda inner: st.one_of(
        st.builds(events.self_composed, st.integers(1, 10**6), inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: events.composed(*some)),
    ),
    max_leaves=4,
)


@settings(max_examples=60)
@given(costs)
def test_a_cost_outlives_a_log_and_the_library(cost: Cost) -> None:
    assert canonical(cost) == cost
    assert canonical(json.loads(json.dumps(cost))) == cost
    in_words(cost)
    if "EpsilonDelta" not in str(cost):
        assert cost_of(dp_event(cost)) == cost


def test_dp_accounting_has_no_event_for_a_pure_epsilon() -> None:
    assert not hasattr(dp_accounting, "EpsilonDeltaDpEvent")
    with pytest.raises(BadInput, match=r"EpsilonDelta\(0.5, 0\)"):
        dp_event(events.pure(0.5))


def test_numbers_of_any_type_become_plain_ones() -> None:
    given = {"of": {"noise_multiplier": np.float32(2), "event": "Gaussian"}, "count": np.int64(3)}
    read = canonical({**given, "event": "SelfComposed"})
    assert json.dumps(read) == json.dumps(
        {"event": "SelfComposed", "count": 3, "of": {"event": "Gaussian", "noise_multiplier": 2.0}}
    )


def test_what_earlier_versions_wrote_is_read() -> None:
    assert canonical({"event": "NonPrivateDpEvent"}) == events.NON_PRIVATE
    assert canonical({"event": "ZCDp", "rho": 1})["xi"] == 0
    assert canonical({"event": "EpsilonDelta", "epsilon": 1}) == events.pure(1)


ONE = {"event": "Gaussian", "noise_multiplier": 1.0}


def _deep(levels: int) -> dict[str, Any]:
    cost: dict[str, Any] = dict(ONE)
    for _ in range(levels):
        cost = {"event": "SelfComposed", "count": 2, "of": cost}
    return cost


@pytest.mark.parametrize(
    ("cost", "found"),
    [
        (None, "NoneType as a cost"),
        ([ONE], "list as a cost"),
        ({}, "event None"),
        ({"event": []}, "event []"),
        ({"event": "GaussianDpEvent", "noise_multiplier": 1.0}, "event 'GaussianDpEvent'"),
        ({"event": "Unsupported"}, "event 'Unsupported'"),
        ({"event": "Gaussian"}, "the fields []"),
        ({**ONE, "sensitivity": 2}, "'sensitivity'"),
        ({"event": "NoOp", "why": "post-processing"}, "'why'"),
        *(
            ({"event": "Gaussian", "noise_multiplier": noise}, f"{noise!r} as Gaussian's")
            for noise in (math.nan, math.inf, -math.inf, 0, 0.0, -1, True, "1", None, [1])
        ),
        ({"event": "Gaussian", "noise_multiplier": 10**400}, "as Gaussian's"),
        ({"event": "Gaussian", "noise_multiplier": 10**5000}, "a int as Gaussian's"),
        ({"event": "Laplace", "noise_multiplier": math.nan}, "nan as Laplace's"),
        ({"event": "EpsilonDelta", "epsilon": 1, "delta": 1e-6}, "1e-06 as EpsilonDelta's delta"),
        ({"event": "EpsilonDelta", "epsilon": 0}, "0 as EpsilonDelta's epsilon"),
        ({"event": "EpsilonDelta", "epsilon": math.nan}, "nan as EpsilonDelta's epsilon"),
        ({"event": "ZCDp", "rho": 0}, "0 as ZCDp's rho"),
        ({"event": "ZCDp", "rho": 1, "xi": -1e-9}, "-1e-09 as ZCDp's xi"),
        ({"event": "ZCDp", "rho": 1, "xi": math.nan}, "nan as ZCDp's xi"),
        *(
            ({"event": "PoissonSampled", "rate": rate, "of": ONE}, f"{rate!r} as PoissonSampled's")
            for rate in (0, -0.1, 1.0000001, math.nan, math.inf, True, "0.5")
        ),
        *(
            ({"event": "SelfComposed", "count": count, "of": ONE}, f"{count!r} as SelfComposed's")
            for count in (0, -1, 2.0, 0.5, math.nan, True, "2", 2**53)
        ),
        ({"event": "SelfComposed", "count": 2, "of": None}, "NoneType as a cost"),
        ({"event": "PoissonSampled", "rate": 0.5, "of": {"event": "?"}}, "event '?'"),
        ({"event": "Composed", "of": []}, "[] as Composed's"),
        ({"event": "Composed", "of": ONE}, "as Composed's"),
        ({"event": "Composed", "of": [ONE, {**ONE, "noise_multiplier": math.nan}]}, "nan"),
        (_deep(9), "more than 8 costs"),
    ],
)
def test_what_is_no_cost_is_said_before_it_is_counted(cost: Any, found: str) -> None:
    with pytest.raises(BadInput) as told:
        canonical(cost)
    assert found in told.value.found
    assert told.value.expected
    assert told.value.remedy
    with pytest.raises(BadInput):
        dp_event(cost)
    assert "unreadable" in in_words(cost)


def test_eight_costs_in_one_another_are_still_read() -> None:
    assert list(leaves(canonical(_deep(8)))) == [(ONE, 2**8)]


@pytest.mark.parametrize(
    "event",
    [
        dp_accounting.UnsupportedDpEvent(),
        dp_accounting.RandomizedResponseDpEvent(0.25, 2),
        dp_accounting.SampledWithoutReplacementDpEvent(10, 5, dp_accounting.GaussianDpEvent(1.0)),
        "GaussianDpEvent",
        None,
    ],
)
def test_an_event_without_a_spelling_is_refused(event: object) -> None:
    with pytest.raises(BadInput, match=type(event).__name__):
        cost_of(event)


def test_leaves_are_the_single_releases_and_how_often_each_was_made() -> None:
    sampled = events.poisson_sampled(0.5, ONE)
    everybody = events.poisson_sampled(1.0, events.self_composed(3, ONE))
    cost = events.composed(
        events.self_composed(2, events.composed(sampled, events.NO_OP, everybody)),
        events.NON_PRIVATE,
    )
    assert list(leaves(cost)) == [(sampled, 2), (ONE, 6), (events.NON_PRIVATE, 1)]


def test_a_cost_is_said_on_one_line() -> None:
    cost = events.self_composed(60, events.poisson_sampled(0.25, events.gaussian(1.5)))
    assert in_words(cost) == "60 x Gaussian(1.5) on a sample of 0.25"
    assert in_words(events.composed(*[events.zcdp(0.5)] * 6)).endswith("ZCDp(0.5, 0) + 2 more")
    assert in_words(events.NO_OP) == "NoOp"
