"""Draws objects on a plain ground: a few parts, often mirrored, textured or soft at the edges."""

import numpy as np

from fedkd.distill.generators.priors.noise import noise
from fedkd.distill.generators.priors.parts import outlines
from fedkd.distill.generators.priors.prior import Canvas, Rng, blurred, colours
from fedkd.knowledge import Array

MOST_PARTS = 7


def shapes(rng: Rng, n: int, canvas: Canvas) -> Array:
    """One to seven outlines on black, a quarter of the later ones cut out of what lies below.

    60 % have a 1/f texture of random strength, half are mirrored left to right, and edges are
    blurred up to twice (under 28 pixels less). Written with clothes in mind: for another kind
    of picture a federation does better with a prior of its own.
    """
    pictures = np.zeros((n, *canvas))
    parts = 1 + (MOST_PARTS * rng.random(n)).astype(int)
    for number in range(MOST_PARTS):
        part = outlines(rng, n, canvas, smallest=0.12, largest=0.95, spread=0.6)
        part &= (number < parts)[:, None, None]
        cut_out = (rng.random((n, 1)) < 0.25) & (number > 0)
        colour = np.where(cut_out, 0, colours(rng, n, canvas.channels, darkest=0.15))
        np.copyto(pictures, colour[:, :, None, None], where=part[:, None])
    strength = rng.random((n, 1, 1, 1)) * (rng.random((n, 1, 1, 1)) < 0.6)
    pictures *= 1 - strength + strength * noise(rng, n, canvas)
    mirrored = rng.random(n) < 0.5
    pictures[mirrored] = np.maximum(pictures[mirrored], pictures[mirrored, :, :, ::-1])
    most = min(2, min(canvas.height, canvas.width) // 14)
    softness = ((most + 1) * rng.random(n)).astype(int)
    for times in range(1, most + 1):
        soft = softness >= times
        pictures[soft] = blurred(pictures[soft])
    return pictures
