"""A multilayer perceptron, for any kind of input."""

import math
from typing import Annotated

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import Range, Space


def mlp(
    space: Space,
    rng: Rng,
    *,
    hidden: Annotated[int, Range(1, 65536)] = 64,
    layers: Annotated[int, Range(0, 64)] = 1,
    dropout: Annotated[float, Range(0, 0.95)] = 0.0,
) -> Classifier:
    """`layers` hidden layers of `hidden` units with ReLU: the model that is fastest in a cohort."""
    from torch import nn

    from fedkd.distill.models.torch_classifier import TorchClassifier

    def build() -> nn.Module:
        stack: list[nn.Module] = [nn.Flatten()]
        width = math.prod(space.shape)
        for _ in range(layers):
            stack += [nn.Linear(width, hidden), nn.ReLU()]
            stack += [nn.Dropout(dropout)] if dropout else []
            width = hidden
        return nn.Sequential(*stack, nn.Linear(width, len(space.classes)))

    name = f"mlp(hidden={hidden}, layers={layers}, dropout={dropout:g})" if layers else "logistic"
    return TorchClassifier.of(space, name, build, rng)
