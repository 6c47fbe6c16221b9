"""Says what a mechanism is: the price of training and answering, and what is let out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fedkd.knowledge import Array

Rng: TypeAlias = np.random.Generator
Cost: TypeAlias = Mapping[str, Any]
"""A differential privacy event as plain data: its name in dp_accounting, and its numbers."""


@dataclass(frozen=True, slots=True)
class PublicFacts:
    """All that a price may depend on: nothing in here is a statistic of any record."""

    classes: int
    rounds: int | None = None


class Mechanism(NamedTuple):
    """How a site's speaker comes to be and speaks, and the price: each cost sees public facts.

    `release` turns what the speaker says, [Q, C], into what leaves.
    """

    name: str
    private: bool
    training_cost: Callable[[PublicFacts], Cost]
    answer_cost: Callable[[PublicFacts, int], Cost]
    release: Callable[[Array, Rng], Array]
