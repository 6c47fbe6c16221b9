"""A small convolutional network for images."""

from typing import Annotated

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import Range, Space


def cnn(
    space: Space,
    rng: Rng,
    *,
    width: Annotated[int, Range(1, 4096)] = 8,
    hidden: Annotated[int, Range(1, 65536)] = 64,
) -> Classifier:
    """Two 3x3 convolutions of stride 2 (`width`, then twice as many channels), `hidden` units.

    Any size of image; 52,138 parameters on 28x28 grey images with ten classes.
    """
    from torch import nn

    from fedkd.distill.models.torch_classifier import TorchClassifier
    from fedkd.distill.networks import Images, channels_of, width_after

    channels, _ = channels_of(space)

    def build() -> nn.Module:
        seen = nn.Sequential(
            Images(space),
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        features = width_after(space, seen)
        return nn.Sequential(
            *seen,
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, len(space.classes)),
        )

    return TorchClassifier.of(space, f"cnn(width={width}, hidden={hidden})", build, rng)
