"""Writes probabilities as they are: four bytes each, exact, and the default."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fedkd.knowledge import Array, NotDistributions, check_distributions
from fedkd.wire.frames import Malformed


class Codec(NamedTuple):
    """How [Q, C] probabilities become named arrays and come back.

    `decode` (arrays, Q, C) gives distributions or raises `Malformed`, whatever the arrays hold.
    `raw_bytes` (Q, C) is what the arrays weigh. `error` is how far a probability may come back.
    """

    encode: Callable[[Array], dict[str, Array]]
    decode: Callable[[Mapping[str, Array], int, int], Array]
    raw_bytes: Callable[[int, int], int]
    error: float


def float32() -> Codec:
    """Exact for float32 probabilities: `4 Q C` bytes, error 0."""

    def encode(probs: Array) -> dict[str, Array]:
        return {"probs": probs.astype(np.float32)}

    def decode(arrays: Mapping[str, Array], queries: int, classes: int) -> Array:
        if set(arrays) != {"probs"}:
            raise Malformed("an answer holds other arrays than its codec's")
        probs = arrays["probs"]
        if probs.dtype != np.float32 or probs.shape != (queries, classes):
            raise Malformed(f"an answer is not float32 of shape [{queries}, {classes}]")
        try:
            check_distributions(probs)
        except NotDistributions:
            raise Malformed("an answer holds numbers that are no distributions") from None
        return probs

    return Codec(encode, decode, lambda queries, classes: 4 * queries * classes, 0.0)
