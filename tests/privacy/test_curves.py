"""What to expect is what was measured around an epsilon, or unknown: nothing is made up."""

import json
import runpy
from pathlib import Path

import pytest

from fedkd.knowledge import BadInput
from fedkd.privacy.curves import Curve, Point, curve_of, curves, in_words

BENCH = Path(__file__).resolve().parents[2] / "docs" / "bench"
POINTS = (
    Point(1.0, 0.8, 0.03), Point(2.0, 0.84, 0.02), Point(4.0, 0.86, None), Point(None, 0.9, 0.01),
)  # fmt: skip
CURVE = Curve(
    "wards", "Four wards", "auroc", 2, ("logistic",), (100, 200, 300), (3, 4), 100, 1.0,
    POINTS, "abc", "make",
)  # fmt: skip


@pytest.mark.parametrize(
    ("epsilon", "means"),
    [
        (1.0, [0.8]), (1.0 + 1e-9, [0.8]), (2, [0.84]), (4.0, [0.86]),
        (1.5, [0.8, 0.84]), (3.9, [0.84, 0.86]), (50.0, [0.86, 0.9]),
    ],
)  # fmt: skip
def test_the_points_next_to_an_epsilon_are_given_and_none_between(
    epsilon: float, means: list[float]
) -> None:
    told = CURVE.expectation(epsilon, 200, 2, 100, 1.0)
    assert told["unknown"] is None
    assert [point["mean"] for point in told["points"]] == means


@pytest.mark.parametrize(
    ("epsilon", "patients", "classes", "why"),
    [
        (0.5, 200, 2, "so small an epsilon"),
        (1.0, 99, 2, "patients a site"),
        (1.0, 401, 2, "patients a site"),
        (1.0, 200, 3, "2 classes, not 3"),
    ],
)
def test_what_was_not_measured_is_unknown(
    epsilon: float, patients: int, classes: int, why: str
) -> None:
    told = CURVE.expectation(epsilon, patients, classes, 100, 1.0)
    assert told["points"] == []
    assert why in told["unknown"]
    (line,) = in_words(told)
    assert line.startswith("unknown")


@pytest.mark.parametrize(("steps", "rate"), [(49, 1.0), (201, 1.0), (100, 0.5), (100, 0.1)])
def test_another_training_than_the_measured_one_is_unknown(steps: int, rate: float) -> None:
    told = CURVE.expectation(1.0, 200, 2, steps, rate)
    assert told["points"] == []
    assert "100 steps on all patients (--steps 100 --rate 1), not in" in told["unknown"]


def test_it_is_said_where_it_was_measured_and_that_it_is_no_promise() -> None:
    told = CURVE.expectation(1.5, 200, None, 50, 1.0)
    first, second = in_words(told)
    assert "0.800 ± 0.030 at epsilon 1 and 0.840 ± 0.020 at epsilon 2" in first
    assert "Four wards" in first
    assert "2 seeds" in first
    assert "not a promise" in first
    assert "abc" in second
    last, _ = in_words(CURVE.expectation(9.0, 200, 2, 200, 1.0))
    assert "0.860 at epsilon 4 and 0.900 ± 0.010 without privacy" in last


def test_a_curve_that_is_not_kept_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="heart_disease"):
        curve_of("cholera")


def test_the_kept_curves_are_those_of_the_bench() -> None:
    made = runpy.run_path(str(BENCH / "curves.py"))
    kept = json.loads((BENCH / "privacy.json").read_text())
    assert json.loads(made["KEPT"].read_text()) == made["curves"](kept)
    for name, curve in curves().items():
        assert curve.points[-1].epsilon is None
        assert curve.steps == (400 if name == "fashion_mnist_cnn" else 100)
        training = curve.steps, curve.sampling_rate
        told = curve.expectation(1.0, round(curve.typical), curve.classes, *training)
        assert told["unknown"] is None, name
