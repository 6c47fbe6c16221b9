"""Draws clouds: noise whose amplitude falls with frequency, as in natural pictures."""

import numpy as np

from fedkd.distill.generators.priors.prior import Canvas, Rng
from fedkd.knowledge import Array


def noise(rng: Rng, n: int, canvas: Canvas) -> Array:
    """1/f^a noise, a from 0.5 to 3, each picture stretched to the whole range.

    The channels of a colour picture share a cloud and differ by one of their own.
    Source: Field, 1987, Relations between the statistics of natural images and the response
    properties of cortical cells, JOSA A 4, 2379-2394.
    """
    falls = 0.5 + 2.5 * rng.random((n, 1, 1, 1))
    white = 2 * rng.random((n, *canvas)) - 1
    if canvas.channels > 1:
        own = rng.random((n, 1, 1, 1))
        white = white * own + white[:, :1] * (1 - own)
    rows = np.fft.fftfreq(canvas.height)[:, None]
    columns = np.fft.rfftfreq(canvas.width)[None]
    frequency = np.sqrt(rows**2 + columns**2)
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(white) * frequency**-falls
    spectrum[..., 0, 0] = 0
    clouds = np.fft.irfft2(spectrum, s=(canvas.height, canvas.width))
    low = clouds.min(axis=(1, 2, 3), keepdims=True)
    high = clouds.max(axis=(1, 2, 3), keepdims=True)
    stretched: Array = (clouds - low) / np.maximum(high - low, 1e-12)
    return stretched
