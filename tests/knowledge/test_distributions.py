"""Distributions are on the simplex, and stay as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.knowledge import (
    TOLERANCE,
    Distributions,
    NotDistributions,
    digest_of_bytes,
    normalised,
)

ABOUT = digest_of_bytes(b"queries")


def good(queries=4, classes=3, dtype=np.float64):
    return np.random.default_rng(0).dirichlet(np.ones(classes), size=queries).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_rows_on_the_simplex_are_taken(classes, dtype):
    assert Distributions(good(5, classes, dtype), ABOUT).probs.dtype == dtype


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1e-3, -1e-300, 1.5], ids=str)
def test_a_number_that_is_no_probability_is_refused(value):
    probs = good()
    probs[2, 1] = value
    with pytest.raises(NotDistributions, match="row 2"):
        Distributions(probs, ABOUT)


@given(st.integers(0, 3), st.sampled_from([1e-3, -1e-3, 2e-4, -2e-4, 0.5]))
def test_a_row_that_is_off_is_refused_and_named(row, off):
    probs = np.full((4, 4), 0.25)
    probs[row, 0] += off
    with pytest.raises(NotDistributions, match=f"row {row}"):
        Distributions(probs, ABOUT)


def test_a_row_within_the_tolerance_is_taken():
    Distributions(np.array([[0.5, 0.5 + TOLERANCE / 2]]), ABOUT)


@pytest.mark.parametrize(
    "probs",
    [
        np.array([0.5, 0.5]),
        np.full((1, 2, 2), 0.5),
        np.ones((3, 1)),
        np.ones((3, 0)),
        np.array([[0, 1]]),
        np.array([[0.5, 0.5]], dtype=np.float16),
        np.array([[0.5, 0.5]], dtype=complex),
        np.array([["0.5", "0.5"]]),
        np.array([[0.5, 0.5]], dtype=object),
        np.array([[True, False]]),
    ],
    ids=lambda probs: f"{probs.dtype}{probs.shape}",
)
def test_another_rank_type_or_number_of_classes_is_refused(probs):
    with pytest.raises(NotDistributions):
        Distributions(probs, ABOUT)


def test_what_was_handed_over_may_change_without_effect():
    probs = good()
    kept = Distributions(probs, ABOUT)
    digest = kept.digest
    probs[:] = 0
    assert kept.digest == digest
    assert kept.probs.sum() == pytest.approx(4)


def test_nobody_writes_into_distributions():
    kept = Distributions(good(), ABOUT)
    with pytest.raises(ValueError, match="read-only"):
        kept.probs[0, 0] = 1


def test_a_masked_number_is_not_overlooked():
    probs = np.ma.masked_invalid(np.array([[0.5, 0.5], [np.nan, 1.0]]))
    with pytest.raises(NotDistributions):
        Distributions(probs, ABOUT)


def test_normalised_rows_sum_to_one_and_nothing_is_uniform():
    rows = normalised(np.array([[2.0, 6.0], [0.0, 0.0], [0.0, 1e-300]]))
    np.testing.assert_allclose(rows, [[0.25, 0.75], [0.5, 0.5], [0, 1]])
