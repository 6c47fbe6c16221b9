"""A prior that a federation wrote: stripes."""

import numpy as np


def stripes(rng, n, canvas):
    pictures = np.zeros((n, *canvas))
    pictures[..., ::2] = rng.random((n, canvas.channels, 1, 1))
    return pictures


def too_bright(rng, n, canvas):
    return 1 + rng.random((n, *canvas))


def misshapen(rng, n, canvas):
    return rng.random((n, canvas.height, canvas.width))


NO_FUNCTION = 3
