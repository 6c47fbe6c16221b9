"""What costs come to: exact where there is a formula, and rounded against ourselves."""

import math

import dp_accounting
import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.knowledge import BadInput
from fedkd.privacy import accounting, events
from fedkd.privacy.accounting import (
    delta_of_mu,
    epsilon,
    epsilon_of_mu,
    epsilon_of_rdp,
    mu_of_epsilon,
    mu_of_pure,
    rdp_at,
    rdp_of_epsilon,
)

few = settings(max_examples=40, deadline=None)
mus = st.floats(1e-3, 20)
deltas = st.floats(-12, -1).map(lambda power: 10**power)
epsilons = st.floats(0.01, 60)


def _delta(mu: float, epsilon: float) -> mpmath.mpf:
    """Corollary 2.13 of arXiv:1905.02383 in 60 digits."""
    with mpmath.workdps(60):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        return mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)


@few
@given(mus, epsilons)
def test_delta_is_above_the_truth_and_hardly(mu: float, epsilon: float) -> None:
    truth = _delta(mu, epsilon)
    found = delta_of_mu(mu, epsilon)
    assert found >= truth
    assert found <= truth * (1 + mpmath.mpf(1e-6)) + 1e-30


@few
@given(mus, deltas)
def test_an_epsilon_of_mu_holds_and_hardly_less_would(mu: float, delta: float) -> None:
    found = epsilon_of_mu(mu, delta)
    assert _delta(mu, found) <= delta
    if found > 1e-6:
        assert _delta(mu, found * (1 - 1e-6)) > delta


@few
@given(epsilons, deltas)
def test_a_mu_of_epsilon_holds_and_hardly_more_would(epsilon: float, delta: float) -> None:
    mu = mu_of_epsilon(epsilon, delta)
    assert _delta(mu, epsilon) <= delta
    assert _delta(mu * (1 + 1e-6), epsilon) > delta
    assert epsilon_of_mu(mu, delta) == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize("mu", [1e-12, 1e-3, 0.5, 40.0, 1e4, 1e160])
def test_no_mu_breaks_the_formula(mu: float) -> None:
    found = epsilon_of_mu(mu, 1e-5)
    assert found >= 0
    assert not math.isnan(found)
    assert 0 <= delta_of_mu(mu, 1.0) <= 1


def test_nothing_lost_is_epsilon_0() -> None:
    assert epsilon_of_mu(0.0, 1e-5) == 0
    assert delta_of_mu(0.0, 0.0) == 0
    assert epsilon([], 1e-5) == epsilon(events.NO_OP, 1e-5) == 0
    assert mu_of_pure(0.0) == 0


@few
@given(st.floats(1e-9, 40))
def test_a_pure_epsilon_is_never_worse_than_its_mu(pure: float) -> None:
    mu = mu_of_pure(pure)
    with mpmath.workdps(60):
        kink = 1 / (1 + mpmath.exp(pure))  # where randomised response touches the Gaussian curve
        assert mpmath.ncdf(-mpmath.mpf(mu) / 2) <= kink
        assert mpmath.ncdf(-mpmath.mpf(mu) * (1 - mpmath.mpf(1e-9)) / 2) > kink
        level = mpmath.mpf("0.01")  # elsewhere the chords lie above it
        power = 1 - mpmath.ncdf(-mpmath.sqrt(2) * mpmath.erfinv(2 * level - 1) - mu)
        chord = max(1 - mpmath.exp(pure) * level, mpmath.exp(-pure) * (1 - level))
        assert 1 - power <= chord


@pytest.mark.parametrize("order", [2, 5, 17, 64, 256, 1024])
@pytest.mark.parametrize(
    ("rate", "noise"), [(1e-6, 50.0), (1e-3, 0.8), (0.01, 5.0), (0.5, 30.0), (0.9, 2.0)]
)
def test_a_sampled_divergence_is_above_the_truth_and_hardly(
    order: int, rate: float, noise: float
) -> None:
    """Mironov, Talwar, Zhang, 2019, arXiv:1908.10530, equation 6: a sum over whole orders."""
    found = rdp_at(order, events.poisson_sampled(rate, events.gaussian(noise)))
    with mpmath.workdps(80):
        q, z = mpmath.mpf(rate), mpmath.mpf(noise)
        moment = sum(
            mpmath.binomial(order, k)
            * (1 - q) ** (order - k)
            * q**k
            * mpmath.exp((k * k - k) / (2 * z * z))
            for k in range(order + 1)
        )
        truth = mpmath.log(moment) / (order - 1)
        assert found >= truth
        assert found <= truth * (1 + mpmath.mpf(1e-11)) + mpmath.mpf(1e-11)


@few
@given(
    st.sampled_from(accounting.WHOLE_ORDERS),
    st.floats(-9, -0.01).map(lambda power: 10**power),
    st.floats(-1, 4).map(lambda power: 10**power),
)
def test_the_sum_that_is_done_here_is_dp_accounting_s(
    order: float, rate: float, noise: float
) -> None:
    event = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    (known,) = dp_accounting.rdp.RdpAccountant([order]).compose(event).rdp
    found = rdp_at(order, events.poisson_sampled(rate, events.gaussian(noise)))
    assert found == pytest.approx(known, rel=1e-9, abs=1e-11)


def test_a_sample_with_endless_noise_costs_no_more_than_rounding() -> None:
    for noise in (1e155, 1e200):
        assert 0 < rdp_at(8, events.poisson_sampled(0.5, events.gaussian(noise))) < 1e-11


@few
@given(st.integers(2, 1024), st.floats(0.1, 60), deltas)
def test_divergence_and_epsilon_undo_each_other(order: int, epsilon: float, delta: float) -> None:
    divergence = rdp_of_epsilon(order, epsilon, delta)
    if divergence > 0:
        again = epsilon_of_rdp(order, divergence, delta)
        assert again == pytest.approx(epsilon, rel=1e-9)


def test_the_conversion_is_the_library_s() -> None:
    from dp_accounting.rdp import rdp_privacy_accountant as library

    for order, divergence, delta in ((2, 1.0, 1e-5), (17, 0.3, 1e-6), (128, 0.01, 1e-4)):
        (theirs, _) = library.compute_epsilon([order], [divergence], delta)
        assert epsilon_of_rdp(order, divergence, delta) == pytest.approx(theirs, rel=1e-12)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 500),
    st.floats(0.02, 1),
    st.floats(1, 8),
    st.sampled_from(["steps", "noise", "rate"]),
)
def test_more_steps_less_noise_and_larger_samples_cost_more(
    steps: int, rate: float, noise: float, what: str
) -> None:
    def cost(more: float) -> float:
        k = round(steps * more) + 1 if what == "steps" else steps
        z = noise / more if what == "noise" else noise
        q = min(1.0, rate * more) if what == "rate" else rate
        step = events.poisson_sampled(q, events.gaussian(z))
        return epsilon(events.self_composed(k, step), 1e-5, "rdp")

    assert cost(1.0) <= cost(1.5) + 1e-12


def test_costs_are_counted_together_in_any_order_and_shape() -> None:
    one, two = events.gaussian(3), events.laplace(20)
    together = epsilon(events.composed(one, two, two), 1e-5)
    assert epsilon([two, one, two], 1e-5) == pytest.approx(together, abs=1e-9)
    assert epsilon([one, events.self_composed(2, two)], 1e-5) == pytest.approx(together, abs=1e-9)


def test_without_protection_epsilon_is_infinite() -> None:
    for accountant in ("pld", "rdp"):
        cost = events.self_composed(3, events.NON_PRIVATE)
        assert epsilon([events.gaussian(1), cost], 1e-5, accountant) == math.inf


def test_pld_stays_within_memory_where_there_is_hardly_any_noise() -> None:
    found = epsilon(events.gaussian(0.01), 1e-5)
    assert found == pytest.approx(epsilon_of_mu(100.0, 1e-5), rel=1e-3)


@pytest.mark.parametrize("accountant", ["pld", "rdp"])
def test_what_an_accountant_cannot_count_is_said(accountant: str) -> None:
    nested = events.poisson_sampled(0.5, events.poisson_sampled(0.5, events.gaussian(1)))
    with pytest.raises(BadInput, match="cannot count"):
        epsilon(nested, 1e-5, accountant)  # type: ignore[arg-type]


@pytest.mark.parametrize("delta", [0, 1, -1e-5, 1.5, math.nan, True])
def test_a_delta_out_of_range_is_refused(delta: float) -> None:
    for use in (
        lambda: epsilon(events.gaussian(1), delta),
        lambda: epsilon_of_mu(1.0, delta),
        lambda: mu_of_epsilon(1.0, delta),
        lambda: epsilon_of_rdp(2, 1.0, delta),
        lambda: rdp_of_epsilon(2, 1.0, delta),
    ):
        with pytest.raises(BadInput, match="delta"):
            use()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, True])
def test_an_epsilon_or_mu_out_of_range_is_refused(bad: float) -> None:
    with pytest.raises(BadInput):
        mu_of_epsilon(bad, 1e-5)
    with pytest.raises(BadInput):
        mu_of_pure(bad)
    if bad is not True and bad != math.inf:
        with pytest.raises(BadInput):
            epsilon_of_mu(bad, 1e-5)


def test_a_figure_says_who_counted_it_and_when_it_holds() -> None:
    found = accounting.accounted(events.gaussian(1), 1e-5)
    assert "4.377" in str(found)
    assert "dp-accounting 0.6" in str(found)
    assert "fixed beforehand" in str(found)
    assert "Renyi" in str(accounting.accounted(events.gaussian(1), 1e-5, "rdp"))
