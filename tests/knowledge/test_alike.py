"""A query that stands many times in a set is found, however its copies are moved a little."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.knowledge import alike, most_alike

LOW, HIGH = -4.0, 6.0
THOUSANDTH = (HIGH - LOW) / 1000


def near_each(inputs, tolerance):
    """For each of `inputs`, how many are alike to it, by comparing all with all."""
    apart = np.abs(inputs[:, None].astype(np.float64) - inputs[None]).max(axis=2)
    return (apart <= tolerance).sum(axis=1)


@st.composite
def copied(draw):
    """A record on some grid, its copies moved by less than half a thousandth, and strangers."""
    seed = draw(st.integers(0, 2**32 - 1))
    features, copies = draw(st.integers(1, 20)), draw(st.integers(1, 60))
    grid = draw(st.sampled_from([0.5, 1.0, 1 / 3, 2**-10])) * THOUSANDTH
    most = draw(st.sampled_from([0.0, 1e-3, 0.3, 0.4999])) * THOUSANDTH
    rng = np.random.default_rng(seed)
    record = np.round(rng.uniform(LOW + 1, HIGH - 1, features) / grid) * grid
    signs = rng.choice([-1.0, 1.0], (copies, features))
    moved = record + most * draw(st.sampled_from([signs, signs * rng.random(signs.shape)]))
    strangers = rng.uniform(LOW, HIGH, (draw(st.integers(0, 40)), features))
    inputs = np.concatenate([moved, strangers])[rng.permutation(copies + len(strangers))]
    return inputs.astype(np.float32), copies


@given(copied())
def test_no_jitter_of_less_than_half_a_thousandth_hides_a_copy(made):
    inputs, copies = made
    assert most_alike(inputs, LOW, HIGH) >= copies


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 4), st.sampled_from([2, 8, 40])
)
def test_the_count_is_that_of_comparing_all_with_all(seed, rows, features, spread):
    rng = np.random.default_rng(seed)
    inputs = (rng.integers(0, 2 * spread, (rows, features)) * THOUSANDTH * 0.45).astype(np.float32)
    assert most_alike(inputs, LOW, HIGH) == near_each(inputs, THOUSANDTH * 1.0005).max()


def test_a_record_on_the_edges_of_bins_is_one_record():
    """Whoever rounds down finds 4 of the 1,000: each entry falls to either side of its edge."""
    rng = np.random.default_rng(0)
    record = np.round(rng.uniform(100, 900, 13)) * THOUSANDTH + LOW
    inputs = (record + rng.uniform(-1e-5, 1e-5, (1000, 13))).astype(np.float32)
    rounded = np.floor((inputs - LOW) / THOUSANDTH).astype(int)
    assert np.unique(rounded, axis=0, return_counts=True)[1].max() < 10
    assert most_alike(inputs, LOW, HIGH) == 1000


def test_what_is_too_much_to_compare_is_counted_too_high(monkeypatch):
    rng = np.random.default_rng(0)
    inputs = (rng.integers(0, 3, (200, 30)) * 0.9 * THOUSANDTH).astype(np.float32)
    truth = near_each(inputs, THOUSANDTH).max()
    assert most_alike(inputs, LOW, HIGH) == truth < 10
    monkeypatch.setattr(alike, "MOST_COMPARISONS", 1000)
    assert most_alike(inputs, LOW, HIGH) == 200


@pytest.mark.parametrize(
    "inputs",
    [
        np.random.default_rng(0).uniform(0, 1, (2000, 13)),
        # most entries black, as of pictures
        np.random.default_rng(0).uniform(-3, 1, (2000, 28, 28)).clip(0),
        np.random.default_rng(0).integers(0, 2, (2000, 40)),
    ],
    ids=["numbers", "pictures", "many categories"],
)
def test_an_honest_set_repeats_nothing(inputs):
    assert most_alike(inputs.astype(np.float32), 0, 1) == 1


def test_rows_of_few_categories_are_counted_as_they_repeat():
    rows = np.repeat(np.eye(4, dtype=np.float32), [5, 90, 3, 2], axis=0)
    assert most_alike(rows, 0, 1) == 90
    assert most_alike(np.zeros((7, 1, 2, 2), np.uint8), 0, 255) == 7
    assert most_alike(np.zeros((1, 3), np.uint8), 0, 255) == 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.integers(1, 20), st.sampled_from([2, 9]))
def test_of_whole_numbers_the_count_is_by_level(seed, rows, features, spread):
    """A flip of a pixel by one level is no other query: a thousandth of 256 levels is less."""
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, spread, (rows, features)).astype(np.uint8)
    inputs[0] = 255
    assert most_alike(inputs, 0, 255) == near_each(inputs, 1).max()


def test_a_picture_with_flipped_pixels_is_one_picture():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (28, 28))
    flipped = picture + (rng.random((500, 28, 28)) < 0.1)
    others = rng.integers(0, 256, (500, 28, 28))
    inputs = np.concatenate([flipped, others]).astype(np.uint8)
    assert most_alike(inputs, 0, 255) == 500


def test_a_level_of_few_is_no_rounding():
    inputs = np.random.default_rng(0).integers(0, 2, (200, 8, 8)).astype(np.uint8)
    assert most_alike(inputs, 0, 1) == 1
    assert most_alike(np.repeat(inputs, 3, axis=0), 0, 1) == 3


def test_a_wide_column_hides_no_difference_in_a_narrow_one():
    high = np.array([1.0, 1.0, 10_000.0])
    inputs = (np.random.default_rng(0).random((2000, 3)) * high).astype(np.float32)
    assert most_alike(inputs, 0.0, 10_000.0) > 10  # by one range for all
    assert most_alike(inputs, np.zeros(3), high) == 1
    many = np.concatenate([inputs, np.repeat(inputs[:1], 30, axis=0)])
    assert most_alike(many, np.zeros(3), high) == 31


def test_what_lies_outside_of_its_column_counts_as_its_end():
    """No narrow range makes a set of one query out of numbers that no record has."""
    inputs = np.full((40, 2), 0.5, np.float32)
    inputs[:, 1] = np.linspace(100, 900, 40)
    assert most_alike(inputs, np.zeros(2), np.ones(2)) == 40


def test_many_groups_have_one_limit_together(monkeypatch):
    """Each of fifty groups would be below it."""
    rng = np.random.default_rng(0)
    groups = np.arange(50).repeat(40) * 10 * THOUSANDTH
    inputs = groups[:, None] + rng.integers(0, 3, (2000, 30)) * 0.9 * THOUSANDTH + LOW
    inputs = inputs.astype(np.float32)
    truth = near_each(inputs, THOUSANDTH).max()
    assert most_alike(inputs, LOW, HIGH) == truth < 10
    monkeypatch.setattr(alike, "MOST_COMPARISONS", 20_000)
    assert most_alike(inputs, LOW, HIGH) == 40
