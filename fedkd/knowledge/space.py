"""Says what one query looks like: its shape, type, range and public scaling."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fedkd.knowledge.digests import Array


class NotInSpace(ValueError):
    """Inputs that no party of this federation has agreed to look at."""


@dataclass(frozen=True, slots=True)
class Space:
    """What a query set's inputs, and every hospital's records, look like.

    `shape` is the shape of one input, without the leading number of inputs; `low` and `high`
    close the range of every entry. A model sees `(x - offset) / divisor`: the scaling is public
    and fixed, so that no statistic of any record travels or differs between hospitals.
    """

    kind: Literal["image", "table", "text"]
    shape: tuple[int, ...]
    dtype: Literal["uint8", "float32"]
    low: float
    high: float
    classes: tuple[str, ...]
    offset: float = 0.0
    divisor: float = 1.0

    def __post_init__(self) -> None:
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(f"found shape {self.shape}, expected positive sizes")
        if len(self.classes) < 2:
            raise ValueError(f"found {len(self.classes)} classes, expected at least 2")
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(f"found range [{self.low}, {self.high}], expected low < high")
        if not (np.isfinite(self.divisor) and self.divisor > 0):
            raise ValueError(f"found divisor {self.divisor}, expected a positive number")
        if not np.isfinite(self.offset):
            raise ValueError(f"found offset {self.offset}, expected a finite number")

    def check(self, inputs: Array) -> None:
        """Raises `NotInSpace` unless `inputs` [N, ...] has this space's type, shape and range."""
        if inputs.dtype != np.dtype(self.dtype):
            raise NotInSpace(f"found inputs of type {inputs.dtype}, expected {self.dtype}")
        if inputs.shape[1:] != self.shape:
            raise NotInSpace(f"found inputs of shape {inputs.shape[1:]}, expected {self.shape}")
        if len(inputs) and not np.isfinite(inputs).all():
            raise NotInSpace("found inputs that are not finite, expected finite numbers")
        if len(inputs) and (inputs.min() < self.low or inputs.max() > self.high):
            raise NotInSpace(
                f"found inputs from {inputs.min()} to {inputs.max()}, "
                f"expected them within [{self.low}, {self.high}]"
            )

    def scaled(self, inputs: Array) -> Array:
        """What a model sees of `inputs` [N, ...]: float32, publicly scaled."""
        seen: Array = (inputs.astype(np.float32) - np.float32(self.offset)) / np.float32(
            self.divisor
        )
        return seen

    def to_json(self) -> dict[str, Any]:
        """Plain values, to be kept in a site's folder."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "low": self.low,
            "high": self.high,
            "classes": list(self.classes),
            "offset": self.offset,
            "divisor": self.divisor,
        }

    @staticmethod
    def from_json(kept: dict[str, Any]) -> "Space":
        """The space that `to_json` wrote."""
        return Space(**{**kept, "shape": tuple(kept["shape"]), "classes": tuple(kept["classes"])})
