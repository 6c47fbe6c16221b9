"""What the tests of learning share: small spaces, records and lessons."""

from collections.abc import Callable

import numpy as np
import pytest

from fedkd.data import Records
from fedkd.distill import LearningPlan
from fedkd.distill.laws import Toy
from fedkd.distill.losses.kl import kl


@pytest.fixture(scope="session")
def table() -> Toy:
    return Toy.of("table")


@pytest.fixture(scope="session")
def image() -> Toy:
    return Toy.of("image")


@pytest.fixture
def plan() -> Callable[..., LearningPlan]:
    def make(**keys: object) -> LearningPlan:
        standard = {"epochs": 3, "batch": 16, "learning_rate": 5e-3, "loss": kl()}
        return LearningPlan(**{**standard, **keys})

    return make


@pytest.fixture
def some() -> Callable[[Toy, int, int], Records]:
    """`count` records of a toy, drawn by `seed`."""

    def draw(toy: Toy, count: int, seed: int) -> Records:
        rows = np.random.default_rng(seed).permutation(len(toy.records))[:count]
        return toy.records.take(rows)

    return draw
