"""Draws the outlines that objects are put together from: rotated ellipses, bars and wedges."""

import numpy as np

from fedkd.distill.generators.priors.prior import Canvas, Rng
from fedkd.knowledge import Array

# N pictures, H rows, W columns.


def ellipse(u: Array, v: Array) -> Array:
    """Whether (u, v) lies in the unit disc."""
    return np.asarray(u * u + v * v < 1)


def bar(u: Array, v: Array) -> Array:
    """Whether (u, v) lies in the unit square."""
    return np.asarray(np.maximum(np.abs(u), np.abs(v)) < 1)


def wedge(u: Array, v: Array) -> Array:
    """Whether (u, v) lies in a square that tapers towards positive u."""
    v = np.abs(v)
    return np.asarray(np.maximum(v, (np.abs(u) + v) / 1.2) < 1)


OUTLINES = (ellipse, bar, wedge)


def outlines(
    rng: Rng, n: int, canvas: Canvas, *, smallest: float, largest: float, spread: float
) -> Array:
    """One outline in each of `n` pictures: bool [N, H, W].

    Half axes are log-uniform from `smallest` to `largest` (1 is half a picture), the second one
    15 to 100 % of the first; centres are uniform within `spread` of the middle.
    """
    columns, rows = canvas.axes()
    centre = (2 * rng.random((n, 2)) - 1) * spread
    angle = np.pi * rng.random(n)
    long = smallest * (largest / smallest) ** rng.random(n)
    short = long * (0.15 + 0.85 * rng.random(n))
    kind = (len(OUTLINES) * rng.random(n)).astype(int)
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    across = columns - centre[:, :1]  # [N, W]
    down = rows - centre[:, 1:]  # [N, H]
    # a rotation is a sum of one term a column and one a row: two vectors make each picture
    u = (across * cosine / long[:, None], down * sine / long[:, None])
    v = (-across * sine / short[:, None], down * cosine / short[:, None])
    inside = np.empty((n, canvas.height, canvas.width), dtype=bool)
    for number, outline in enumerate(OUTLINES):
        chosen = np.flatnonzero(kind == number)
        inside[chosen] = outline(_sum(u, chosen), _sum(v, chosen))
    return inside


def _sum(terms: tuple[Array, Array], chosen: Array) -> Array:
    across, down = terms
    summed: Array = across[chosen, None, :] + down[chosen, :, None]
    return summed
