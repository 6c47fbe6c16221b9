"""Small modules whose layers keep something of a record: what private training must refuse."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from fedkd.distill.models.classifier import Classifier
from fedkd.distill.models.torch_module import torch_module
from fedkd.knowledge import Space

# N inputs, F features, C classes.


class Counting(nn.Module):
    """A layer of a user's own that writes down how large its inputs were."""

    largest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs [N, F] as they are."""
        if self.training:
            self.largest = torch.maximum(self.largest, inputs.detach().abs().max())
        return inputs


def _net(features: int, classes: int, layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(features, 6), layer, nn.Linear(6, classes))


_LAYERS: Mapping[str, Callable[[], nn.Module]] = {
    "nn.BatchNorm1d": lambda: nn.BatchNorm1d(6),
    "nn.BatchNorm1d without weights": lambda: nn.BatchNorm1d(6, affine=False),
    "nn.InstanceNorm1d with running statistics": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, track_running_stats=True), nn.Flatten()
    ),
    "a layer that writes down what it saw": Counting,
}


def probes(space: Space) -> Mapping[str, Classifier]:
    """A small classifier for `space` around each such layer, by the layer's name."""
    import numpy as np

    features = int(np.prod(space.shape))
    return {
        name: torch_module(
            space,
            np.random.default_rng(0),
            module=lambda layer=layer: _net(features, len(space.classes), layer()),  # type: ignore[misc]  # mypy infers no type for a default in a lambda
        )
        for name, layer in _LAYERS.items()
    }
