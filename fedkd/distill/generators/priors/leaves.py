"""Draws dead leaves: overlapping plain outlines that cover the picture, a model of no object."""

import numpy as np

from fedkd.distill.generators.priors.parts import outlines
from fedkd.distill.generators.priors.prior import Canvas, Rng, colours
from fedkd.knowledge import Array

LEAVES = 25


def leaves(rng: Rng, n: int, canvas: Canvas) -> Array:
    """25 outlines of any grey on top of each other, on a plain ground.

    The edges and sizes of natural pictures without their things: it knows nothing of the target.
    Source: Lee, Mumford and Huang, 2001, Occlusion models for natural images, IJCV 41, 35-59.
    """
    pictures = np.empty((n, *canvas))
    pictures[:] = colours(rng, n, canvas.channels)[:, :, None, None]
    for _ in range(LEAVES):
        leaf = outlines(rng, n, canvas, smallest=0.1, largest=0.9, spread=1.1)
        colour = colours(rng, n, canvas.channels)
        np.copyto(pictures, colour[:, :, None, None], where=leaf[:, None])
    return pictures
