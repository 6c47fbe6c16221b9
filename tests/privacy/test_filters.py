"""A filter prices costs in whole grains: rounded up where spent, down where allowed."""

import math
from fractions import Fraction

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import BadInput
from fedkd.privacy import events
from fedkd.privacy.accounting import mu_of_epsilon, mu_of_pure, rdp_of_epsilon
from fedkd.privacy.filters import DEAREST, FILTERS, GRAIN, NotChargeable, filter_of, gdp, rdp

few = settings(max_examples=40, deadline=None)
noises = st.floats(1e-3, 1e6)
EVERYTHING = (
    events.gaussian(1),
    events.laplace(1),
    events.pure(1),
    events.zcdp(0.5),
    events.poisson_sampled(0.5, events.gaussian(1)),
    events.poisson_sampled(0.5, events.laplace(1)),
    events.poisson_sampled(0.5, events.self_composed(2, events.gaussian(1))),
    events.NON_PRIVATE,
)


@few
@given(noises, st.integers(1, 10**6))
def test_gdp_adds_one_over_the_square_of_the_noise(noise: float, count: int) -> None:
    once = gdp(1e-5).price(events.gaussian(noise))
    truth = GRAIN / Fraction(noise) ** 2
    assert truth <= once < truth + 1
    assert gdp(1e-5).price(events.self_composed(count, events.gaussian(noise))) == count * once


@few
@given(noises)
def test_gdp_charges_a_pure_epsilon_as_its_mu(noise: float) -> None:
    price = gdp(1e-5).price(events.laplace(noise))
    assert price == pytest.approx(min(DEAREST, mu_of_pure(1 / noise) ** 2 * GRAIN), rel=1e-12)


@few
@given(st.floats(1e-4, 30), st.sampled_from([2, 7, 64]))
def test_a_pure_epsilon_costs_what_its_worst_mechanism_would(pure: float, order: int) -> None:
    assert gdp(1e-5).price(events.pure(pure)) == pytest.approx(mu_of_pure(pure) ** 2 * GRAIN)
    with mpmath.workdps(60):
        high = 1 / (1 + mpmath.exp(-mpmath.mpf(pure)))  # randomised response says the truth
        moment = high**order * (1 - high) ** (1 - order) + (1 - high) ** order * high ** (1 - order)
        truth = mpmath.log(moment) / (order - 1) * GRAIN
        price = rdp(1e-5, order).price(events.pure(pure))
        assert truth <= price <= truth * (1 + mpmath.mpf(1e-11)) + mpmath.mpf(1e-11) * GRAIN
    assert price >= rdp(1e-5, order).price(events.laplace(1 / pure))  # one of those mechanisms


@few
@given(noises, st.sampled_from([2, 7, 64]))
def test_rdp_adds_divergences_at_its_order(noise: float, order: int) -> None:
    price = rdp(1e-5, order).price
    truth = order * GRAIN / (2 * Fraction(noise) ** 2)
    assert truth <= price(events.gaussian(noise)) < truth + 1
    half = events.zcdp(1 / (2 * noise**2))  # exact discrete Gaussian noise costs the same
    assert price(half) == pytest.approx(float(truth), rel=1e-12)
    alone = events.poisson_sampled(1.0, events.gaussian(noise))
    assert price(alone) == price(events.gaussian(noise))


def test_each_filter_charges_what_it_can_and_says_what_it_cannot() -> None:
    expected = {
        "gdp": [True, True, True, False, False, False, False, False],
        "rdp": [True, True, True, True, True, False, True, False],
    }
    for name, charges in expected.items():
        filter_ = filter_of(name, 1e-5, 8 if name == "rdp" else None)
        for cost, charged in zip(EVERYTHING, charges, strict=True):
            for wrapped in (cost, events.self_composed(2, events.composed(events.NO_OP, cost))):
                if charged:
                    assert filter_.price(wrapped) > 0
                else:
                    with pytest.raises(NotChargeable) as told:
                        filter_.price(wrapped)
                    assert told.value.found
                    assert told.value.expected
        assert filter_.price(events.NO_OP) == 0


def test_gdp_says_that_a_sample_cannot_be_charged_by_it() -> None:
    with pytest.raises(NotChargeable, match="cannot be charged by filter gdp"):
        gdp(1e-5).price(events.poisson_sampled(0.1, events.gaussian(1)))


@few
@given(st.floats(1e-6, 100), st.floats(-12, -2).map(lambda power: 10**power))
def test_a_limit_is_rounded_down_and_what_it_comes_to_is_the_epsilon(
    epsilon: float, delta: float
) -> None:
    limit = gdp(delta).limit(epsilon)
    assert limit <= Fraction(mu_of_epsilon(epsilon, delta)) ** 2 * GRAIN
    assert gdp(delta).epsilon(limit) == pytest.approx(epsilon, rel=1e-6, abs=1e-9)
    for order in (2, 16, 256):
        limit = rdp(delta, order).limit(epsilon)
        assert limit <= Fraction(rdp_of_epsilon(order, epsilon, delta)) * GRAIN
        if limit:
            assert rdp(delta, order).epsilon(limit) == pytest.approx(epsilon, rel=1e-9)


def test_nothing_spent_is_epsilon_0_and_no_epsilon_allows_nothing() -> None:
    for filter_ in (gdp(1e-5), rdp(1e-5, 8)):
        assert filter_.epsilon(0) == 0
        assert filter_.limit(0.0) == 0


def test_hardly_any_noise_is_counted_as_the_dearest_and_no_limit_is_as_high() -> None:
    assert gdp(1e-5).price(events.gaussian(1e-200)) == DEAREST
    assert gdp(1e-5).price(events.laplace(1e-300)) == DEAREST
    assert rdp(1e-5, 8).price(events.zcdp(1e300)) == DEAREST
    for filter_ in (gdp(0.999), rdp(0.999, 8)):
        assert filter_.limit(1e9) < DEAREST
    assert math.isfinite(gdp(1e-5).epsilon(DEAREST))


@pytest.mark.parametrize("noise", [1e-160, 1e-200])
def test_noise_that_no_order_can_count_is_not_chargeable(noise: float) -> None:
    cost = events.poisson_sampled(0.5, events.gaussian(noise))
    with pytest.raises(NotChargeable):
        rdp(1e-5, 8).price(cost)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        *[("gdp", 8), ("pld", None), ("", None), (None, None), ("rdp", None)],
        *(("rdp", order) for order in (0, 1, 2.5, math.nan, math.inf, True, "8", 10**6)),
    ],
)
def test_a_filter_that_is_none_is_refused(name: str, order: float | None) -> None:
    with pytest.raises(BadInput):
        filter_of(name, 1e-5, order)


def test_there_are_two_filters() -> None:
    assert FILTERS == ("gdp", "rdp")
