"""What the tests of private training share: spaces, records of patients, and odd modules."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedkd.data import Records
from fedkd.distill.models.torch_classifier import TorchClassifier
from fedkd.distill.private import PrivateTraining
from fedkd.distill.private.rows import Rows
from fedkd.knowledge import Space

TABLE = Space("table", (5,), "float32", -4.0, 4.0, ("no", "yes", "maybe"))
IMAGE = Space("image", (8, 8), "uint8", 0, 255, ("a", "b", "c"), 128.0, 64.0)


@pytest.fixture(scope="session")
def table() -> Space:
    return TABLE


@pytest.fixture(scope="session")
def image() -> Space:
    return IMAGE


def _records(space: Space, counts: Sequence[int], seed: int = 0) -> Records:
    lot = np.random.default_rng(seed)
    rows = sum(counts)
    inputs = lot.uniform(space.low, space.high, (rows, *space.shape)).astype(space.dtype)
    labels = lot.integers(len(space.classes), size=rows)
    patients = np.repeat(np.arange(len(counts)) * 7 + 3, list(counts))
    order = lot.permutation(rows)
    return Records(inputs[order], labels[order], patients[order])


@pytest.fixture(scope="session")
def records() -> Callable[..., Records]:
    """Records of as many patients as there are counts, in any order."""
    return _records


@pytest.fixture(scope="session")
def rows() -> Callable[..., Rows]:
    """The same as what is clipped."""

    def make(space: Space, counts: Sequence[int], seed: int = 0) -> Rows:
        lot = torch.Generator().manual_seed(seed)
        inputs = 2 * torch.randn(sum(counts), *space.shape, generator=lot)
        labels = torch.randint(len(space.classes), (sum(counts),), generator=lot)
        each = torch.tensor(list(counts))
        patient = torch.repeat_interleave(torch.arange(len(counts)), each)
        return Rows.from_columns(inputs, labels, patient, each)

    return make


@pytest.fixture(scope="session")
def plan() -> Callable[..., PrivateTraining]:
    """A plan whose one step says what it was given: plain descent with a rate of one."""

    def make(**keys: object) -> PrivateTraining:
        standard = {
            "patients": 20,
            "steps": 1,
            "noise_multiplier": 1.0,
            "learning_rate": 1.0,
            "momentum": 0.0,
            "optimizer": "sgd",
            "weight_decay": 0.0,
        }
        return PrivateTraining(**{**standard, **keys})

    return make


@pytest.fixture(scope="session")
def of_module() -> Callable[[Space, Callable[[], nn.Module]], TorchClassifier]:
    """A classifier of a module of one's own."""

    def make(space: Space, build: Callable[[], nn.Module]) -> TorchClassifier:
        return TorchClassifier.of(space, "own", build, np.random.default_rng(0))

    return make


class Plain(nn.Module):
    """Written by hand, so that no layer of it is known."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 4), nn.Linear(4, 3)
        self.slope = nn.Parameter(torch.full((4,), 0.3))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        return self.second(torch.where(hidden > 0, hidden, self.slope * hidden))


class Recurrent(nn.Module):
    """A table read as a sequence: torch runs this row by row under vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.reads, self.says = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.says(self.reads(inputs.unsqueeze(2))[0][:, -1])


class Careful(nn.Module):
    """Looks at its inputs in Python, which torch cannot batch over rows."""

    def __init__(self) -> None:
        super().__init__()
        self.says = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.abs().max().item() < 0:
            raise ValueError("never")
        return self.says(inputs.tanh())


class Shared(nn.Module):
    """One layer, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.says = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.says(self.turn(self.turn(inputs).tanh()))


@pytest.fixture(scope="session")
def odd() -> dict[str, type[nn.Module]]:
    return {"plain": Plain, "recurrent": Recurrent, "shared": Shared, "careful": Careful}
