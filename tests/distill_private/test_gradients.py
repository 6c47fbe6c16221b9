"""Clipped gradients, one a patient: every way gives what a slow loop gives, and none exceeds."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from fedkd.distill.models.cnn import cnn
from fedkd.distill.models.logistic import logistic
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.resnet import resnet
from fedkd.distill.models.tabular import tabular
from fedkd.distill.private import closed as formulas
from fedkd.distill.private import gradients, sums
from fedkd.distill.private.closed import closed
from fedkd.distill.private.each import alone, batched
from fedkd.distill.private.gradients import clipped_sum, rows_at_once, way_of
from fedkd.distill.private.rows import Gradients, NoSuchWay, Rows, Way
from fedkd.distill.reproducible import seeded

ALL = 10**6
SMALL = settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def by_hand(module: nn.Module, rows: Rows, clip: float) -> Tensor:
    """A loop that anybody can check: one patient, one backward pass, one clipping."""
    trained = [p for p in module.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in trained), dtype=torch.float64)
    for patient in range(len(rows.counts)):
        mine = rows.patient == patient
        module.zero_grad()
        functional.cross_entropy(module(rows.inputs[mine]), rows.labels[mine]).backward()
        slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([slope.flatten() for slope in slopes]).double()
        total += flat * min(1.0, clip / max(float(flat.norm()), 1e-300))
    return total


def summed(way: Way, rows: Rows, clip: float, most: int = ALL) -> Tensor:
    return clipped_sum(way, rows.cut(most), clip, most)


def close(found: Tensor, expected: Tensor, clip: float, patients: int) -> bool:
    return float((found - expected).norm()) <= 1e-5 * min(
        clip * patients, max(float(expected.norm()), 1e-3 * clip)
    )


@contextmanager
def in_small_blocks(small: bool) -> Iterator[None]:
    """Nothing is few enough to be written out, and every sum is cut: as for large models."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(formulas, "BLOCK", 0)
            patch.setattr(sums, "BLOCK", 40)
        yield


def small_modules(table, image, odd) -> dict[str, nn.Module]:
    lot = np.random.default_rng(0)
    frozen = mlp(table, lot, hidden=4, layers=2).module()
    frozen[1].weight.requires_grad_(False)
    frozen[3].bias.requires_grad_(False)
    with seeded(1):
        own = {
            "places": nn.Sequential(  # a linear layer on several places of a row
                nn.Linear(8, 4), nn.Tanh(), nn.LayerNorm(4), nn.Flatten(), nn.Linear(32, 3)
            ),
            "conv": nn.Sequential(
                nn.Unflatten(1, (2, 4)),
                nn.Conv2d(2, 3, (2, 3), stride=(1, 2), padding=(1, 0)),
                nn.GELU(),
                nn.Conv2d(3, 3, (2, 1), padding=(0, 1), dilation=(2, 1)),
                nn.AdaptiveAvgPool2d((2, 2)),
                nn.Flatten(),
                nn.Linear(12, 3, bias=False),
            ),
            "depthwise": nn.Sequential(
                nn.Unflatten(1, (8, 1)), nn.Conv2d(8, 8, (1, 3), groups=8), nn.Flatten(),
                nn.Linear(48, 3),
            ),
            "instance": nn.Sequential(nn.InstanceNorm1d(8), nn.Flatten(), nn.Linear(64, 3)),
            "in place": nn.Sequential(
                nn.Flatten(), nn.Linear(64, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)
            ),
            "prelu": nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.PReLU(), nn.Linear(4, 3)),
            **{name: build() for name, build in odd.items()},
        }  # fmt: skip
    return {
        "logistic": logistic(table, lot).module(),
        "mlp": mlp(table, lot, hidden=6, layers=2).module(),
        "frozen": frozen,
        "tabular": tabular(table, lot, width=4, blocks=1).module(),
        "cnn": cnn(image, lot, width=2, hidden=4).module(),
        "resnet": resnet(image, lot, width=4).module(),
        "logistic on images": logistic(image, lot).module(),
        **own,
    }


WAY_OF = {
    "logistic": "closed",
    "mlp": "closed",
    "frozen": "closed",
    "tabular": "closed",
    "cnn": "closed",
    "resnet": "closed",
    "logistic on images": "closed",
    "places": "closed",
    "conv": "closed",
    "depthwise": "batched",
    "instance": "batched",
    "in place": "batched",
    "prelu": "batched",
    "plain": "batched",
    "recurrent": "batched",
    "shared": "batched",
    "careful": "alone",
}
ON_TABLES = ("logistic", "mlp", "frozen", "tabular", "plain", "recurrent", "shared", "careful")


@pytest.fixture(scope="module")
def modules(table, image, odd) -> dict[str, nn.Module]:
    made = small_modules(table, image, odd)
    assert made.keys() == WAY_OF.keys()
    return made


@pytest.mark.parametrize("name", WAY_OF)
@SMALL
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    clip=st.sampled_from([1e-3, 0.3, 1.0, 10.0]),
    most=st.sampled_from([1, 3, ALL]),
    small=st.booleans(),
)
def test_every_way_gives_what_a_slow_loop_gives(
    name, modules, rows, table, image, counts, seed, clip, most, small
) -> None:
    module = modules[name]
    given_rows = rows(table if name in ON_TABLES else image, counts, seed)
    expected = by_hand(module, given_rows, clip)
    for way in (closed, batched, alone):
        try:
            with in_small_blocks(small):
                found = summed(way(copy.deepcopy(module)), given_rows, clip, most)
        except (NoSuchWay, RuntimeError):
            continue
        assert close(found, expected, clip, len(counts)), way.__name__


@pytest.mark.parametrize("name", WAY_OF)
def test_the_fastest_way_that_fits_is_taken(name, modules, rows, table, image) -> None:
    module = copy.deepcopy(modules[name])
    trial = rows(table if name in ON_TABLES else image, [1, 2, 3])
    way = way_of(module, trial)
    assert way.name == WAY_OF[name]
    expected = by_hand(modules[name], trial, 1.0)
    assert close(summed(way, trial, 1.0), expected, 1.0, 3)


@pytest.mark.parametrize("inputs", [3, 60, 700])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("counts", [[1] * 30, [3, 2, 1, 5] * 5, [70, 1, 2, 2, 3], [300, 40]])
def test_a_linear_layer_is_right_whichever_of_its_formulas_is_shorter(
    inputs, counts, small
) -> None:
    lot = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(inputs, 12), nn.ReLU(), nn.Linear(12, 3))
    each = torch.tensor(counts)
    patient = torch.repeat_interleave(torch.arange(len(counts)), each)
    numbers = torch.randn(sum(counts), inputs, generator=lot)
    labels = torch.randint(3, (sum(counts),), generator=lot)
    given_rows = Rows.from_columns(numbers, labels, patient, each)
    expected = by_hand(module, given_rows, 0.5)
    for most in (ALL, 64):
        with in_small_blocks(small):
            found = summed(closed(copy.deepcopy(module)), given_rows, 0.5, most)
        assert close(found, expected, 0.5, len(counts))


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_opacus_gives_the_same_for_one_row_a_patient(image, rows) -> None:
    grad_sample = pytest.importorskip("opacus.grad_sample")
    module = cnn(image, np.random.default_rng(0), width=2, hidden=4).module()
    given_rows = rows(image, [1] * 9)
    theirs = grad_sample.GradSampleModule(copy.deepcopy(module).train(), loss_reduction="sum")
    functional.cross_entropy(
        theirs(given_rows.inputs), given_rows.labels, reduction="sum"
    ).backward()
    each = torch.cat([p.grad_sample.flatten(1) for p in theirs.parameters()], dim=1).double()
    factors = (0.4 / each.norm(dim=1)).clamp(max=1.0)
    found = summed(closed(module), given_rows, 0.4)
    assert close(found, factors @ each, 0.4, 9)


# No patient is worth more than the clip ----------------------------------------------------


def huge(rows: Rows, by: float) -> Rows:
    return Rows.from_columns(rows.inputs * by, rows.labels, rows.patient, rows.counts)


def alternating(rows: Rows, by: float) -> Rows:
    """Rows of one patient that nearly repeat each other, with different labels."""
    inputs = rows.inputs.clone()
    inputs[1::2] = inputs[::2][: len(inputs[1::2])] * (1 + 1e-6)
    labels = torch.arange(len(rows)) % 2
    return Rows.from_columns(inputs * by, labels, rows.patient, rows.counts)


@pytest.mark.parametrize(
    "name", ["logistic", "mlp", "tabular", "cnn", "resnet", "places", "plain", "careful"]
)
@pytest.mark.parametrize("by", [0.0, 1e-38, 1e4, 1e30, 3e38])
@pytest.mark.parametrize("kind", [huge, alternating])
@pytest.mark.parametrize("small", [False, True])
def test_no_patient_adds_more_than_the_clip(
    name, by, kind, small, modules, rows, table, image
) -> None:
    given_rows = kind(rows(table if name in ON_TABLES else image, [2, 4, 2, 1, 1]), by)
    for clip in (1e-3, 1.0):
        for make in (closed,) if small else (closed, batched, alone):
            try:
                way = make(copy.deepcopy(modules[name]))
                with in_small_blocks(small):
                    worth_at_most(clip, way, given_rows)
            except (NoSuchWay, RuntimeError):
                continue


def worth_at_most(clip: float, way: Way, given_rows: Rows) -> None:
    each = torch.eye(len(given_rows.counts)).bool()
    one = [summed(way, given_rows.of(mask), clip) for mask in each]
    norms = torch.stack([added.norm() for added in one])
    assert bool((norms <= clip * (1 + 1e-6)).all()), (way.name, norms)
    # Beside others a patient adds no more than alone.
    everybody = summed(way, given_rows, clip)
    left = [everybody - summed(way, given_rows.of(~mask), clip) for mask in each]
    assert max(float(added.norm()) for added in left) <= clip * (1 + 1e-3), way.name


@pytest.mark.parametrize("size", [1.0, 1e4, 1e7, 1e10, 1e14, 1e18])
@pytest.mark.parametrize("count", [2, 4, 12])
def test_rows_that_take_each_other_back_are_worth_no_more(size, count) -> None:
    # What is left of them is lost in rounding: it may count for less, never for more.
    with seeded(0):
        module = nn.Linear(300, 3)
        inputs = size * torch.randn(1, 300).expand(count, 300)
    torch.nn.init.zeros_(module.weight)
    torch.nn.init.zeros_(module.bias)
    inputs = inputs * (1 - 2 * (torch.arange(count) % 2)).unsqueeze(1)
    inputs[1] = torch.nextafter(inputs[1], torch.zeros(()))
    each = torch.tensor([count])
    labels, patient = torch.zeros(count).long(), torch.zeros(count).long()
    given_rows = Rows.from_columns(inputs, labels, patient, each)
    for small in (False, True):
        with in_small_blocks(small):
            for clip in (1e-2, 1.0):
                for make in (closed, batched, alone):
                    found = summed(make(copy.deepcopy(module)), given_rows, clip)
                    assert float(found.norm()) <= clip * (1 + 1e-6), make.__name__


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e18])
def test_no_weights_let_a_patient_exceed(scale, rows, table) -> None:
    module = mlp(table, np.random.default_rng(0), hidden=6, layers=3).module()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(scale)
    given_rows = rows(table, [1, 3, 2])
    for make in (closed, batched, alone):
        way = make(copy.deepcopy(module))
        for mask in torch.eye(3).bool():
            assert float(summed(way, given_rows.of(mask), 0.5).norm()) <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("make", [closed, batched, alone])
def test_a_gradient_that_is_not_finite_counts_as_zero(make, rows, table) -> None:
    module = mlp(table, np.random.default_rng(0), hidden=6).module()
    given_rows = rows(table, [2, 1, 3, 1])
    inputs = given_rows.inputs.clone()
    inputs[0], inputs[2] = math.inf, math.nan  # the first two patients'
    poisoned = Rows.from_columns(inputs, given_rows.labels, given_rows.patient, given_rows.counts)
    way = make(module)
    found = summed(way, poisoned, 1.0)
    expected = summed(way, given_rows.of(torch.tensor([False, False, True, True])), 1.0)
    assert torch.allclose(found, expected, atol=1e-7)
    everybody = Rows.from_columns(
        torch.full_like(inputs, math.nan), given_rows.labels, given_rows.patient, given_rows.counts
    )
    assert float(summed(way, everybody, 1.0).abs().max()) == 0.0
    assert float(summed(way, everybody, 1.0, most=2).abs().max()) == 0.0


def test_a_patient_of_many_rows_counts_once(rows, table) -> None:
    module = logistic(table, np.random.default_rng(0)).module()
    few = rows(table, [1, 1])
    many = Rows.from_columns(
        few.inputs[[0] * 40 + [1]], few.labels[[0] * 40 + [1]],
        torch.tensor([0] * 40 + [1]), torch.tensor([40, 1]),
    )  # fmt: skip
    for most in (ALL, 16, 1):
        found = summed(closed(copy.deepcopy(module)), many, 0.2, most)
        assert torch.allclose(found, by_hand(module, few, 0.2), atol=1e-7)


def test_without_a_clip_it_is_the_plain_gradient(rows, table) -> None:
    module = mlp(table, np.random.default_rng(0)).module()
    given_rows = rows(table, [1] * 12)
    functional.cross_entropy(module(given_rows.inputs), given_rows.labels).backward()
    plain = torch.cat([p.grad.flatten() for p in module.parameters()]).double()
    found = summed(closed(copy.deepcopy(module)), given_rows, 1e9) / 12
    assert torch.allclose(found, plain, atol=1e-7)


# How it is done -----------------------------------------------------------------------------


def test_rows_are_cut_between_patients(rows, table) -> None:
    given_rows = rows(table, [2, 3, 1, 9, 4, 1])
    parts = list(given_rows.cut(5))
    assert [part.counts.tolist() for part in parts] == [[2, 3], [1], [9], [4, 1]]
    assert torch.equal(torch.cat([part.labels for part in parts]), given_rows.labels)
    assert all(int(part.patient[0]) == 0 for part in parts)
    assert list(given_rows.of(torch.zeros(6).bool()).cut(5)) == []


def test_memory_is_bounded_by_how_many_rows_are_taken_at_once(rows, image) -> None:
    trial = rows(image, [1, 2, 3])
    small = logistic(image, np.random.default_rng(0)).module()
    large = resnet(image, np.random.default_rng(0), width=64).module()
    at_once = {}
    for name, module in {"small": small, "large": large}.items():
        way = closed(copy.deepcopy(module))
        at_once[name] = rows_at_once(module, way, trial)
        assert 4 * 3 * way.written * at_once[name] <= gradients.MOST_BYTES
    assert at_once["small"] == gradients.MOST_ROWS
    assert at_once["large"] < 100


def test_a_way_that_is_wrong_for_a_model_is_not_taken(rows, table, monkeypatch) -> None:
    def too_small(module: nn.Module) -> Way:
        right = closed(module)

        def wrong(given_rows: Rows) -> Gradients:
            found = right.gradients(given_rows)
            return Gradients(found.norms * 0.25, found.total)

        return right._replace(gradients=wrong)

    monkeypatch.setattr(gradients, "WAYS", (too_small, batched, alone))
    module = mlp(table, np.random.default_rng(0)).module()
    assert way_of(module, rows(table, [1, 2, 3])).name == "batched"


def test_a_layer_that_reaches_no_logit_gets_no_gradient(rows, image) -> None:
    # All that the first layer makes is multiplied by nothing.
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        module[1].bias.fill_(-1e6)
    trial = rows(image, [1, 2, 3])
    for way in (closed, batched, alone):
        found = summed(way(copy.deepcopy(module)), trial, 1.0)
        assert close(found, by_hand(module, trial, 1.0), 1.0, 3)
        assert float(found[: 64 * 4 + 4].abs().max()) == 0.0
