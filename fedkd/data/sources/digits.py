"""Reads the handwritten digits that scikit-learn carries: 8x8 pictures, no download."""

import numpy as np

from fedkd.data.records import Card, Dataset, Records
from fedkd.knowledge import Space

CARD = Card(
    name="digits",
    version="scikit-learn copy of the 1998 test part",
    modality="grey images 8x8 of handwritten digits",
    licence="CC BY 4.0",
    legal_basis="No health data: handwriting samples published for research by their collectors.",
    origin="UCI Machine Learning Repository 80, Optical Recognition of Handwritten Digits, "
    "test part, as bundled with scikit-learn",
    citation="Alpaydin and Kaynak, 1998, doi:10.24432/C50P49",
)


def digits() -> Dataset:
    """1,797 images uint8 [N, 1, 8, 8] of the values 0 to 16, ten classes, no test part."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[:, None]
    classes = tuple(str(digit) for digit in range(10))
    space = Space("image", (1, 8, 8), "uint8", 0, 16, classes, offset=8.0, divisor=8.0)
    return Dataset(CARD, space, Records(images, bunch.target.astype(np.int64)))
