"""A small residual network for images."""

from typing import TYPE_CHECKING, Annotated

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import Range, Space

if TYPE_CHECKING:
    from torch import nn


def resnet(
    space: Space,
    rng: Rng,
    *,
    width: Annotated[int, Range(4, 1024)] = 16,
    blocks: Annotated[int, Range(1, 32)] = 1,
) -> Classifier:
    """Three stages of `blocks` residual blocks, with `width`, two and four times as many channels.

    He et al., 2016, 1512.03385, with group normalisation (Wu and He, 2018, 1803.08494) in place
    of batch normalisation: no statistic of a batch is kept, mixed learning does not blend those
    of records with those of queries, and the model can be trained privately.
    """
    from torch import nn

    from fedkd.distill.models.torch_classifier import TorchClassifier
    from fedkd.distill.networks import Images, channels_of

    channels, _ = channels_of(space)

    def build() -> nn.Module:
        stages: list[nn.Module] = []
        before = width
        for stage in range(3):
            now = width * 2**stage
            for block in range(blocks):
                stages.append(_block(before, now, stride=2 if stage and not block else 1))
                before = now
        return nn.Sequential(
            Images(space),
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            *stages,
            _norm(before),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(before, len(space.classes)),
        )

    return TorchClassifier.of(space, f"resnet(width={width}, blocks={blocks})", build, rng)


def _norm(channels: int) -> "nn.Module":
    from torch import nn

    groups = next(groups for groups in (4, 3, 2, 1) if channels % groups == 0)
    return nn.GroupNorm(groups, channels)


def _block(before: int, now: int, stride: int) -> "nn.Module":
    # Pre-activation, so that the shortcut stays untouched: He et al., 2016, 1603.05027.
    from torch import nn

    from fedkd.distill.networks import Residual

    body = nn.Sequential(
        _norm(before),
        nn.ReLU(),
        nn.Conv2d(before, now, 3, stride=stride, padding=1, bias=False),
        _norm(now),
        nn.ReLU(),
        nn.Conv2d(now, now, 3, padding=1, bias=False),
    )
    same = before == now and stride == 1
    return Residual(body, None if same else nn.Conv2d(before, now, 1, stride=stride, bias=False))
