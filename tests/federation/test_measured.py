"""What an evaluation logs in counts: each patient once, each place apart, each answer in a bin."""

import numpy as np
import pytest

from fedkd.data import Records
from fedkd.federation.evaluating import Grouping
from fedkd.federation.evaluation import Seen
from fedkd.federation.measured import THRESHOLDS, by_place, of_question, reliability, tables
from fedkd.knowledge.measures import expected_calibration_error
from fedkd.privacy.count_limits import NoiseLaw


def answers(seed: int, count: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(classes), count), rng.integers(0, classes, count)


def test_an_examination_counts_each_patient_once_at_each_place() -> None:
    probs, labels = answers(0, 40, 2)
    patients = np.repeat(np.arange(20), 2)
    sites = np.where(patients < 12, "a", "b")
    test = Records(np.zeros((40, 1)), labels, patients, sites)
    told = by_place(probs, test, ["a"], ["no", "yes"])
    every, a, b = told["measured"]
    assert [one["took_part"] for one in (every, a, b)] == [None, True, False]
    assert [np.sum(one["cells"]) for one in (every, a, b)] == [20, 12, 8]
    assert np.array_equal(np.add(a["cells"], b["cells"]), every["cells"])
    place = THRESHOLDS.index(0.35)
    first = np.arange(0, 40, 2)
    positive = np.sum(np.array(every["cells"])[place + 1 :], axis=0)
    said = probs[first, 1] >= 0.35
    assert positive.tolist() == [int(np.sum(said & (labels[first] == c))) for c in (0, 1)]


@pytest.mark.parametrize("classes", [2, 5])
def test_the_bins_give_the_calibration_error(classes: int) -> None:
    probs, labels = answers(1, 300, classes)
    bins = reliability(probs, labels)
    assert sum(one["count"] for one in bins) == 300
    error = sum(abs(one["right"] - one["confidence"] * one["count"]) for one in bins) / 300
    assert error == pytest.approx(expected_calibration_error(probs, labels), abs=1e-12)
    assert all(one["low"] <= one["confidence"] <= one["high"] for one in bins)


def test_what_a_site_answered_is_logged_in_shares_and_never_in_counts() -> None:
    counts = np.array([[[30, 4], [6, 20]]])
    seen = {"a": Seen(counts, NoiseLaw("geometric", 2.0), 0)}
    every, a = of_question(seen, Grouping(None, None), [0.5], ["no", "yes"])
    assert (every["where"], a["where"], a["took_part"]) == ("all", "a", True)
    (row,) = a["figures"]["thresholds"]
    assert "cells" not in a
    assert "counts" not in row
    assert row["sensitivity"]["low"] < 20 / 24 < row["sensitivity"]["high"]
    assert of_question({}, Grouping(None, None), [0.5], ["no", "yes"]) == []


def test_a_set_of_ones_own_is_logged_in_counts() -> None:
    seen = [Seen(np.array([[[3, 1], [0, 2]]]), NoiseLaw("none", 0.0), 1)] * 2
    (table,) = tables(seen, Grouping(None, None), where="Budapest", took_part=False)
    assert table["cells"] == [[6, 2], [0, 4]]
    assert table["took_part"] is False
