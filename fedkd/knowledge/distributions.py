"""Holds what is said: one output distribution for each query of a named query set."""

from dataclasses import dataclass

import numpy as np

from fedkd.knowledge.digests import Array, Digest, digest_of_arrays

TOLERANCE = 1e-4
"""How far a row's sum may be from 1: float32 sums of a thousand classes stay within 1e-5."""


class NotDistributions(ValueError):
    """Numbers that are not one probability distribution for each query."""


def read_only(array: Array) -> Array:
    """A copy of `array` that nobody can write to."""
    copy = np.array(array, order="C", copy=True)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True, slots=True, eq=False)
class Distributions:
    """Output distributions about one query set.

    `probs` [Q, C] float32 or float64, each row on the simplex within `TOLERANCE`; kept as a
    read-only copy. `about` is the digest of the query set that was asked.
    """

    probs: Array
    about: Digest

    def __post_init__(self) -> None:
        # the copy is checked, not the argument: what was checked is what is kept
        object.__setattr__(self, "probs", read_only(self.probs))
        check_distributions(self.probs)

    @property
    def digest(self) -> Digest:
        """Names these numbers and the query set they speak about; the run does not enter."""
        return digest_of_arrays({"kind": "distributions", "about": self.about}, {"p": self.probs})


def check_distributions(probs: Array) -> None:
    """Raises `NotDistributions`, saying which row is wrong, unless [Q, C] lies on the simplex."""
    if probs.ndim != 2 or probs.dtype not in (np.float32, np.float64):
        raise NotDistributions(
            f"found shape {probs.shape} of type {probs.dtype}, expected floats of shape [Q, C]"
        )
    if probs.shape[1] < 2:
        raise NotDistributions(f"found {probs.shape[1]} classes, expected at least 2")
    finite = np.isfinite(probs).all(axis=1)
    if not finite.all():
        raise NotDistributions(f"row {int(np.argmin(finite))} holds a number that is not finite")
    inside = ((probs >= 0) & (probs <= 1 + TOLERANCE)).all(axis=1)
    if not inside.all():
        raise NotDistributions(f"row {int(np.argmin(inside))} holds a number outside [0, 1]")
    off = np.abs(probs.sum(axis=1, dtype=np.float64) - 1)
    if len(off) and off.max() > TOLERANCE:
        row = int(off.argmax())
        raise NotDistributions(
            f"row {row} is off a sum of 1 by {off[row]:.2g}, expected at most {TOLERANCE}"
        )


def normalised(weights: Array) -> Array:
    """Rows of non-negative `weights` [..., C] divided by their sums; a row of zeros is uniform."""
    total = weights.sum(axis=-1, keepdims=True)
    uniform = np.full_like(weights, 1.0 / weights.shape[-1])
    return np.where(total > 0, weights / np.where(total > 0, total, 1), uniform)
