"""Holds what all image sources share: the space of 8-bit pictures."""

from fedkd.knowledge import Space


def image_space(
    shape: tuple[int, ...], classes: tuple[str, ...], *, mean: float = 0.5, std: float = 0.5
) -> Space:
    """uint8 pictures [channels, height, width]; a model sees `(pixel / 255 - mean) / std`.

    `mean` and `std` are public constants; by default a model sees -1 to 1.
    """
    offset, divisor = 255 * mean, 255 * std
    return Space("image", shape, "uint8", 0, 255, classes, offset=offset, divisor=divisor)
