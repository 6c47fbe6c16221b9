"""Building blocks of the bundled torch models; none of them keeps statistics of a batch."""

import torch
from torch import Tensor, nn

from fedkd.knowledge import BadInput, Space

CHANNELS = (1, 3, 4)
"""How many numbers a pixel may have: grey, colour, colour and transparency."""


class Images(nn.Module):
    """Turns images [N, H, W], [N, H, W, channels] or [N, channels, H, W] into the last of these."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.channels, self.channels_last = channels_of(space)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, channels, H, W]."""
        if images.dim() == 3:
            return images.unsqueeze(1)
        return images.movedim(-1, 1) if self.channels_last else images


class Residual(nn.Module):
    """The sum of what goes in and what `body` makes of it (He et al., 2016, 1512.03385)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut or nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """`shortcut(inputs) + body(inputs)`."""
        added: Tensor = self.shortcut(inputs) + self.body(inputs)
        return added


def channels_of(space: Space) -> tuple[int, bool]:
    """How many channels the images of `space` have, and whether they come last."""
    if space.kind == "image" and len(space.shape) == 2:
        return 1, False
    if space.kind == "image" and len(space.shape) == 3:
        if space.shape[-1] in CHANNELS:
            return space.shape[-1], True
        if space.shape[0] in CHANNELS:
            return space.shape[0], False
    raise BadInput(
        f"inputs of kind {space.kind} and shape {space.shape}",
        "images of shape [H, W], [H, W, channels] or [channels, H, W]",
        "take a model for such inputs: mlp, logistic or random_forest read every kind",
    )


def width_after(space: Space, layers: nn.Module) -> int:
    """How many numbers `layers` make of one input of `space`."""
    with torch.no_grad():
        return int(layers(torch.zeros(1, *space.shape)).numel())
