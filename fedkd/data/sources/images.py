"""Holds what all image sources share: the space of 8-bit pictures."""

from fedkd.knowledge import Space


def image_space(shape: tuple[int, ...], classes: tuple[str, ...]) -> Space:
    """uint8 pictures [channels, height, width]; a model sees -1 to 1."""
    return Space("image", shape, "uint8", 0, 255, classes, offset=127.5, divisor=127.5)
