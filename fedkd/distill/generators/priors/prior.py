"""Says what a prior is: a rule that draws pictures from random numbers and from nothing else."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from fedkd.knowledge import Array

# N pictures, C channels, H rows, W columns.

Rng: TypeAlias = np.random.Generator


class Canvas(NamedTuple):
    """How large a picture is: C, H, W."""

    channels: int
    height: int
    width: int

    def axes(self) -> tuple[Array, Array]:
        """Columns [W] and rows [H] from -1 to 1, where a picture is as wide as it is high."""
        return np.linspace(-1, 1, self.width), np.linspace(-1, 1, self.height)


Prior: TypeAlias = Callable[[Rng, int, Canvas], Array]
"""Draws [N, C, H, W] float64 in [0, 1]. All arithmetic is in float64 and the caller rounds to 8
bits at the end, so that another machine's last bit of a cosine does not move a pixel."""


def colours(rng: Rng, n: int, channels: int, darkest: float = 0.0) -> Array:
    """One colour for each of `n` things [N, C]: a grey, and in colour pictures a tint of it."""
    grey = darkest + (1 - darkest) * rng.random((n, 1))
    if channels == 1:
        return grey
    strength = rng.random((n, 1))
    return grey * (1 - strength * rng.random((n, channels)))


def blurred(pictures: Array) -> Array:
    """Each pixel's weighted mean with its neighbours: (1, 2, 1) / 4 along rows and columns."""
    for axis in (-1, -2):
        last = pictures.shape[axis] - 1
        before = np.take(pictures, np.maximum(np.arange(last + 1) - 1, 0), axis)
        after = np.take(pictures, np.minimum(np.arange(last + 1) + 1, last), axis)
        pictures = (before + 2 * pictures + after) / 4
    return pictures
