"""Says what the libraries get wrong today: each test fails on the day that one is mended.

Where one fails after an upgrade, nothing is broken: read what it guards against, and see whether
the guard can go.
"""

import math
import warnings
from collections.abc import Callable

import dp_accounting
import pytest
from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
    ZCDpEvent,
)
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant

from fedkd.knowledge import BadInput
from fedkd.privacy import accounting, events, filters

NULL, ONE = NeighboringRelation.REPLACE_SPECIAL, NeighboringRelation.REPLACE_ONE


# dp_accounting 0.6.0


def test_pld_counts_randomised_response_once_however_often_it_was_done() -> None:
    once = dp_accounting.RandomizedResponseDpEvent(0.25, 2)
    ten = SelfComposedDpEvent(once, 10)
    assert PLDAccountant(ONE).compose(ten).get_epsilon(1e-5) == pytest.approx(1.946, abs=1e-3)
    assert RdpAccountant([1e9], ONE).compose(ten).rdp[0] == pytest.approx(19.46, abs=1e-2)
    with pytest.raises(BadInput, match="event 'RandomizedResponse'"):  # so it is no cost of ours
        events.canonical({"event": "RandomizedResponse", "noise_parameter": 0.25})


def test_gaussian_noise_under_replace_one_is_read_in_two_ways() -> None:
    event = GaussianDpEvent(1.0)

    def said(accountant: type, relation: NeighboringRelation) -> float:
        found = accountant(neighboring_relation=relation).compose(event)
        return float(found.get_epsilon(1e-5))

    assert said(RdpAccountant, ONE) == pytest.approx(4.7285, abs=1e-3)
    assert said(PLDAccountant, ONE) == pytest.approx(9.9973, abs=1e-3)
    # Under the relation that is ours, both mean the same noise.
    assert said(RdpAccountant, NULL) == pytest.approx(4.7285, abs=1e-3)
    assert said(PLDAccountant, NULL) == pytest.approx(4.3772, abs=1e-3)


def test_rdp_takes_a_noise_that_is_no_number_and_says_epsilon_0() -> None:
    event = GaussianDpEvent(math.nan)
    found = RdpAccountant(neighboring_relation=NULL).compose(event)
    assert found.get_epsilon(1e-5) == 0
    rate = PoissonSampledDpEvent(math.nan, GaussianDpEvent(1.0))
    assert RdpAccountant(neighboring_relation=NULL).supports(rate)
    with pytest.raises(BadInput):
        events.cost_of(event)
    with pytest.raises(BadInput):
        events.cost_of(rate)


@pytest.mark.parametrize(
    ("event", "by_rdp"),
    [
        (ZCDpEvent(0.1), True),
        (PoissonSampledDpEvent(0.5, SelfComposedDpEvent(GaussianDpEvent(1.0), 2)), True),
        (PoissonSampledDpEvent(0.5, PoissonSampledDpEvent(0.5, GaussianDpEvent(1.0))), False),
        (
            dp_accounting.SampledWithoutReplacementDpEvent(100, 10, GaussianDpEvent(1.0)),
            False,
        ),
    ],
    ids=["zCDP", "a sample of several", "a sample of a sample", "without replacement"],
)
def test_what_each_accountant_cannot_count(event: dp_accounting.DpEvent, by_rdp: bool) -> None:
    assert not PLDAccountant(NULL).supports(event)
    assert RdpAccountant(neighboring_relation=NULL).supports(event) == by_rdp


def test_rdp_between_whole_orders_is_far_off_where_half_the_records_take_part() -> None:
    """A ledger is opened at whole orders only: there a divergence is a finite sum."""
    event = PoissonSampledDpEvent(0.5, GaussianDpEvent(30.0))
    low, between, high = RdpAccountant([2, 2.5, 3], NULL).compose(event).rdp
    assert low < high < 0.0005
    assert between > 0.01
    with pytest.raises(BadInput, match=r"order 2\.5"):
        filters.rdp(1e-5, 2.5)


# opacus 1.6.0


def test_opacus_gdp_says_less_than_was_lost() -> None:
    from opacus.accountants import GaussianAccountant

    with pytest.warns(UserWarning, match="underestimate"):
        found = GaussianAccountant()
    found.history = [(0.6, 0.001, 10000)]
    assert found.get_epsilon(delta=1e-6) == pytest.approx(1.7098, abs=1e-3)  # 3.1522 in truth


def test_opacus_rdp_ends_at_order_63() -> None:
    from opacus.accountants import RDPAccountant

    assert max(RDPAccountant.DEFAULT_ALPHAS) == 63
    found = RDPAccountant()
    found.history = [(100.0, 1.0, 1)]
    with pytest.warns(UserWarning, match="Optimal order is the largest"):
        assert found.get_epsilon(1e-5) == pytest.approx(0.1060, abs=1e-3)
    ours = accounting.epsilon(events.gaussian(100), 1e-5, "rdp")
    assert ours == pytest.approx(0.0311, abs=1e-3)


def test_opacus_rdp_says_a_negative_epsilon() -> None:
    from opacus.accountants import RDPAccountant

    found = RDPAccountant()
    found.history = [(100.0, 1.0, 1)]
    with warnings.catch_warnings(action="ignore"):
        assert found.get_epsilon(0.1) < 0
    assert accounting.epsilon(events.gaussian(100), 0.1, "rdp") == 0


def test_opacus_claims_poisson_sampling_for_batches_that_are_not() -> None:
    """2.86 for an epoch of shuffled batches; what can be proved is one full release, 4.38."""
    import torch
    from opacus import PrivacyEngine
    from torch.utils.data import DataLoader, TensorDataset

    model = torch.nn.Linear(3, 2)
    with warnings.catch_warnings(action="ignore"):
        engine = PrivacyEngine()
        model, optimizer, loader = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), 0.1),
            data_loader=DataLoader(
                TensorDataset(torch.zeros(1000, 3), torch.zeros(1000).long()), batch_size=100
            ),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            poisson_sampling=False,
        )
        for inputs, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    assert engine.accountant.history == [(1.0, 0.1, 10)]
    assert engine.accountant.get_epsilon(1e-5) == pytest.approx(2.8648, abs=1e-3)
    assert accounting.epsilon(events.gaussian(1), 1e-5) == pytest.approx(4.3772, abs=1e-3)


@pytest.mark.parametrize(("drop_last", "batches"), [(False, 16), (True, 15)])
def test_opacus_samples_at_a_rate_of_its_own(drop_last: bool, batches: int) -> None:
    loader = _loader(1000, drop_last)
    assert 1 / loader.sample_rate == batches  # not 64 / 1000


def test_opacus_divides_by_zero_where_a_batch_is_larger_than_the_records() -> None:
    with pytest.raises(ZeroDivisionError):
        _loader(50, drop_last=True)


def _loader(records: int, drop_last: bool):  # type: ignore[no-untyped-def]
    import torch
    from opacus.data_loader import DPDataLoader
    from torch.utils.data import DataLoader, TensorDataset

    rows = TensorDataset(torch.zeros(records, 3))
    return DPDataLoader.from_data_loader(DataLoader(rows, batch_size=64, drop_last=drop_last))


def test_one_over_a_rate_loses_a_step() -> None:
    """Opacus counts the steps of an epoch as int(1 / q)."""
    assert sum(int(1 / (1 / steps)) < steps for steps in range(1, 2000)) == 141


@pytest.mark.parametrize(
    "make",
    [
        lambda nn: nn.BatchNorm1d(4, affine=False),
        lambda nn: nn.InstanceNorm1d(4, track_running_stats=True),
    ],
    ids=["BatchNorm1d(affine=False)", "InstanceNorm1d(track_running_stats=True)"],
)
def test_opacus_passes_layers_that_keep_a_mean_of_the_records(make: Callable) -> None:  # type: ignore[type-arg]
    import torch
    from opacus.validators import ModuleValidator

    layer = make(torch.nn)
    assert ModuleValidator.validate(layer) == []
    before = layer.running_mean.clone()
    layer(torch.ones(8, 4, 5))
    assert not torch.equal(layer.running_mean, before)


def test_opacus_secure_mode_cannot_start() -> None:
    from opacus import PrivacyEngine

    with pytest.raises(ImportError, match="torchcsprng"):
        PrivacyEngine(secure_mode=True)
