"""Draws strokes: a pen that wanders over a plain ground, as in handwriting."""

import numpy as np

from fedkd.distill.generators.priors.prior import Canvas, Rng, colours
from fedkd.knowledge import Array

MOST_STROKES = 6


def strokes(rng: Rng, n: int, canvas: Canvas) -> Array:
    """A chain of two to six straight strokes of one width and colour, on black."""
    columns, rows = canvas.axes()
    covered = np.zeros((n, canvas.height, canvas.width))
    width = 0.08 + 0.25 * rng.random((n, 1, 1))
    count = 2 + ((MOST_STROKES - 1) * rng.random(n)).astype(int)
    soft = 2 / min(canvas.height, canvas.width)  # one pixel
    start = (2 * rng.random((n, 2)) - 1) * 0.7
    for number in range(MOST_STROKES):
        end = np.clip(start + (2 * rng.random((n, 2)) - 1) * 0.9, -0.85, 0.85)
        distance = _from_segment(columns, rows, start, end)
        ink = np.clip((width - distance) / soft + 0.5, 0, 1)
        np.maximum(covered, ink, out=covered, where=(number < count)[:, None, None])
        start = end
    colour = colours(rng, n, canvas.channels, darkest=0.5)
    pictures: Array = covered[:, None] * colour[:, :, None, None]
    return pictures


def _from_segment(columns: Array, rows: Array, start: Array, end: Array) -> Array:
    """How far each pixel is from the segment between two points [N, 2]: [N, H, W]."""
    along = end - start
    across = columns - start[:, :1]  # [N, W]
    down = rows - start[:, 1:]  # [N, H]
    length = (along**2).sum(axis=1, keepdims=True) + 1e-6
    step_x = across * along[:, :1] / length
    step_y = down * along[:, 1:] / length
    share = np.clip(step_x[:, None, :] + step_y[:, :, None], 0, 1)
    off_x = across[:, None, :] - share * along[:, :1, None]
    off_y = down[:, :, None] - share * along[:, 1:, None]
    distance: Array = np.sqrt(off_x**2 + off_y**2)
    return distance
