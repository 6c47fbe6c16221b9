"""The derived learning rate leaves as much noise in a weight as it says, and looks at no record."""

import math

import numpy as np
import pytest

from fedkd.privacy import Ledger, PublicFacts
from fedkd.privacy.learning_rate import LONGEST_STEP, NOISE_IN_A_WEIGHT, derived_learning_rate
from fedkd.privacy.mechanisms.dp_training import dp_training


def rate(**keys: float) -> float:
    standard = {
        "patients": 200, "steps": 100, "sampling_rate": 1.0, "noise_multiplier": 40.0, "clip": 1.0,
    }  # fmt: skip
    optimizer = str(keys.pop("optimizer", "sgd"))
    return derived_learning_rate(
        optimizer,
        keys.pop("momentum", 0.9),
        **{**standard, **keys},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("clip", [0.3, 1.0, 5.0])
@pytest.mark.parametrize(("momentum", "sampling_rate"), [(0.0, 1.0), (0.9, 1.0), (0.5, 0.1)])
def test_the_noise_that_steps_leave_in_a_weight_is_the_one_that_is_named(
    clip: float, momentum: float, sampling_rate: float
) -> None:
    steps, patients, noise_multiplier = 400, 200, 40.0
    learning_rate = rate(
        steps=steps, momentum=momentum, sampling_rate=sampling_rate, clip=clip, patients=patients,
        noise_multiplier=noise_multiplier,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    velocity, weights = np.zeros(2000), np.zeros(2000)
    for _ in range(steps):  # descent on noise alone
        noised = noise_multiplier * clip * rng.standard_normal(2000) / (sampling_rate * patients)
        velocity = momentum * velocity + noised
        weights -= learning_rate * velocity
    assert weights.std() == pytest.approx(NOISE_IN_A_WEIGHT, rel=0.1)


def test_hardly_any_noise_allows_no_endless_steps() -> None:
    for clip in (0.1, 1.0, 10.0):
        step = rate(noise_multiplier=1e-3, clip=clip, momentum=0.0) * clip
        assert step == pytest.approx(LONGEST_STEP)


def test_with_adam_a_weight_travels_a_fixed_way() -> None:
    rates = [
        rate(optimizer="adam", steps=steps, noise_multiplier=z) for steps, z in ((60, 1), (600, 9))
    ]
    assert [rates[0] * 60, rates[1] * 600] == pytest.approx([1.2, 1.2])


def test_a_plan_without_a_learning_rate_has_one_that_grows_with_patients_and_epsilon() -> None:
    def planned(patients: int, epsilon: float, **keys: float) -> float:
        ledger = Ledger("ward", epsilon, 1e-5, filter="gdp", unit="patient")
        plan = dp_training(**keys).plan  # type: ignore[arg-type]
        assert plan is not None
        made = plan(PublicFacts(patients, 2), ledger, None)
        return made.learning_rate  # type: ignore[union-attr]

    assert planned(400, 1.0) == pytest.approx(2 * planned(200, 1.0))
    assert planned(200, 4.0) > 2 * planned(200, 1.0)
    assert planned(200, 1.0, learning_rate=0.25) == 0.25
    # 100 full steps at epsilon 1: z = 10 / mu, and mu is 0.268 (tests/privacy/test_golden.py)
    assert planned(200, 1.0) == pytest.approx(0.1 * NOISE_IN_A_WEIGHT * 200 * 0.268 / 100, rel=1e-2)
    assert math.isfinite(planned(1, 1.0))
