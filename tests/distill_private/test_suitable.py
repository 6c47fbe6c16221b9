"""What may be trained privately: nothing that a record can leave a trace in beside its gradient."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedkd.distill.models.cnn import cnn
from fedkd.distill.models.gradient_boosting import gradient_boosting
from fedkd.distill.models.logistic import logistic
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.resnet import resnet
from fedkd.distill.models.tabular import tabular
from fedkd.distill.private import check_suitable, train_privately
from fedkd.knowledge import BadInput


class RunningMean(nn.Linear):
    """Writes the batch's mean down, in a buffer of its own."""

    def __init__(self) -> None:
        super().__init__(5, 3)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * inputs.mean(0).detach())
        return super().forward(inputs - self.mean)


class Counter(nn.Linear):
    """Counts its rows in a buffer that it makes anew."""

    def __init__(self) -> None:
        super().__init__(5, 3)
        self.register_buffer("rows", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        self.rows = self.rows + len(inputs)
        return super().forward(inputs)


class Remembers(nn.Linear):
    """Keeps its batch where no buffer is looked for."""

    def __init__(self) -> None:
        super().__init__(5, 3)
        self.last: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        before, self.last = self.last, inputs.detach().mean(0)
        return super().forward(inputs if before is None else inputs - before)


class Centred(nn.Linear):
    """Takes the batch's mean away: no trace stays, but rows see each other."""

    def __init__(self) -> None:
        super().__init__(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs - inputs.mean(0, keepdim=True))


class Ranks(nn.Linear):
    """Rows see each other where no gradient shows it."""

    def __init__(self) -> None:
        super().__init__(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.argsort(0).argsort(0).float())


def with_layer(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), layer, nn.ReLU(), nn.Flatten(), nn.Linear(4, 3))


def on_channels(layer: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 2), layer, nn.Flatten(), nn.Linear(16, 3)
    )


UNSUITABLE = {
    "batch norm": (
        lambda: with_layer(nn.BatchNorm1d(4)),
        "the layer 1, BatchNorm1d, which normalises over the batch",
    ),
    "batch norm without weights": (
        lambda: with_layer(nn.BatchNorm1d(4, affine=False)),
        "the layer 1, BatchNorm1d",
    ),
    "batch norm without statistics": (
        lambda: with_layer(nn.BatchNorm1d(4, track_running_stats=False)),
        "the layer 1, BatchNorm1d",
    ),
    "synchronised": (lambda: with_layer(nn.SyncBatchNorm(4)), "the layer 1, SyncBatchNorm"),
    "instance norm with statistics": (
        lambda: on_channels(nn.InstanceNorm1d(4, affine=False, track_running_stats=True)),
        "the layer 2, InstanceNorm1d, which keeps a running mean of the records",
    ),
    "a running mean of one's own": (
        RunningMean,
        r"the layer \(the whole model\), RunningMean, which writes down mean",
    ),
    "a counter": (Counter, "which writes down rows"),
    "spectral norm": (
        lambda: with_layer(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))),
        "the layer 1.parametrizations.weight.0, _SpectralNorm, which writes down _[uv]",
    ),
    "a memory": (Remembers, "remembers the rows it has seen|looking at others"),
    "the batch's mean": (Centred, "looking at others"),
    "ranks": (Ranks, "looking at others"),
}


@pytest.mark.parametrize("name", UNSUITABLE)
def test_a_model_that_keeps_or_compares_records_is_refused(
    name, table, of_module, records, plan
) -> None:
    build, match = UNSUITABLE[name]
    model = of_module(table, build)
    with pytest.raises(BadInput, match=match) as refusal:
        check_suitable(model)
    assert "GroupNorm" in str(refusal.value)
    noise = np.random.default_rng(0).standard_normal
    with pytest.raises(BadInput, match=match):
        train_privately(model, records(table, [1, 2]), plan(), noise, noise)


@pytest.mark.filterwarnings("ignore")
def test_opacus_lets_two_of_these_pass() -> None:
    # opacus 1.6: it looks at layers that have weights. When this fails, the fault is mended there.
    validators = pytest.importorskip("opacus.validators")
    for module in (
        with_layer(nn.BatchNorm1d(4, affine=False)),
        on_channels(nn.InstanceNorm1d(4, affine=False, track_running_stats=True)),
    ):
        assert validators.ModuleValidator.validate(module, strict=False) == []
        module.train()(torch.randn(6, 5))
        means = [buffer for name, buffer in module.named_buffers() if name.endswith("mean")]
        assert float(means[0].abs().max()) > 0  # the records' mean, without noise


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 4),
        nn.LayerNorm(4),
        nn.Dropout(0.5),
        nn.RMSNorm(4),
        nn.Identity(),
    ],
)
def test_what_looks_at_one_row_at_a_time_is_let_through(layer, table, of_module) -> None:
    check_suitable(of_module(table, lambda: with_layer(layer)))


def test_instance_norm_without_statistics_is_let_through(image, of_module) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.InstanceNorm1d(8, affine=True), nn.Flatten(), nn.Linear(64, 3))

    check_suitable(of_module(image, build))


def test_every_bundled_network_is_suitable(table, image) -> None:
    lot = np.random.default_rng(0)
    for model in (
        logistic(table, lot),
        mlp(table, lot, dropout=0.2),
        tabular(table, lot, dropout=0.2),
        cnn(image, lot),
        resnet(image, lot),
    ):
        check_suitable(model)


def test_trees_are_refused_with_where_they_can_go(table) -> None:
    boosted = gradient_boosting(table, np.random.default_rng(0))
    with pytest.raises(BadInput, match=r"ScikitClassifier.*mechanism=pate"):
        check_suitable(boosted)


def test_a_model_with_nothing_to_train_is_refused(table, of_module) -> None:
    model = of_module(table, lambda: nn.Linear(5, 3).requires_grad_(False))
    with pytest.raises(BadInput, match="no weight to train"):
        check_suitable(model)


def test_the_check_leaves_the_model_as_it_was(table) -> None:
    model = mlp(table, np.random.default_rng(0), dropout=0.5)
    before, state = model.weights(), torch.get_rng_state()
    check_suitable(model)
    assert all(np.array_equal(before[name], array) for name, array in model.weights().items())
    assert all(p.grad is None for p in model.skeleton.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_a_plan_is_made_without_loading_torch() -> None:
    code = (
        "import sys; from fedkd.distill.private import PrivateTraining; "
        "PrivateTraining(patients=3, steps=1, noise_multiplier=1.0); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
