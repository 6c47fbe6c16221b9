"""A residual network for tables."""

import math
from typing import Annotated

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import BadInput, Range, Space


def tabular(
    space: Space,
    rng: Rng,
    *,
    width: Annotated[int, Range(1, 65536)] = 64,
    blocks: Annotated[int, Range(1, 64)] = 2,
    dropout: Annotated[float, Range(0, 0.95)] = 0.0,
) -> Classifier:
    """A residual multilayer perceptron: `blocks` blocks of `width` units.

    Gorishniy et al., 2021, Revisiting deep learning models for tabular data, 2106.11959,
    section 3.2, with layer normalisation: no statistic of a batch is kept.
    """
    from torch import nn

    from fedkd.distill.models.torch_classifier import TorchClassifier
    from fedkd.distill.networks import Residual

    if space.kind != "table":
        raise BadInput(f"inputs of kind {space.kind}", "a table", "take mlp, cnn or resnet")

    def block() -> nn.Module:
        body = [nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU()]
        body += [nn.Dropout(dropout)] if dropout else []
        return Residual(nn.Sequential(*body, nn.Linear(2 * width, width)))

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(space.shape), width),
            *[block() for _ in range(blocks)],
            nn.LayerNorm(width),
            nn.ReLU(),
            nn.Linear(width, len(space.classes)),
        )

    name = f"tabular(width={width}, blocks={blocks}, dropout={dropout:g})"
    return TorchClassifier.of(space, name, build, rng)
