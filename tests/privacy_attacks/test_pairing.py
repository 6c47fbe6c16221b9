"""Pairs: like with like, patients whole, and each shadow as large as the model that is attacked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.privacy.attacks import paired, shadow_masks


def rng():
    return np.random.default_rng(0)


codes = st.lists(st.integers(0, 3), min_size=0, max_size=40).map(
    lambda values: np.array(values, dtype=np.int64)
)


@given(codes, codes)
def test_pairs_are_of_one_label_and_as_many_as_there_can_be(mine, theirs):
    found = paired(mine, None, theirs, None, rng())
    labels = np.concatenate([mine, theirs])
    assert found.pairs == sum(min((mine == c).sum(), (theirs == c).sum()) for c in range(4))
    for pair in range(found.pairs):
        (member,) = found.rows[found.unit == 2 * pair]
        (other,) = found.rows[found.unit == 2 * pair + 1]
        assert member < len(mine) <= other
        assert labels[member] == labels[other]
    assert len(np.unique(found.rows)) == len(found.rows)
    everybody = np.union1d(found.rest, found.rows[found.unit % 2 == 0])
    assert everybody.tolist() == list(range(len(mine)))


@given(codes, codes)
def test_a_shadow_learns_from_as_many_as_the_model_did(mine, theirs):
    found = paired(mine, None, theirs, None, rng())
    masks = shadow_masks(found.pairs, 16, rng())
    inside = found.inside(masks)
    for mask, who in zip(masks, inside, strict=True):
        rows = found.learnt_from(mask)
        assert len(np.unique(rows)) == len(rows) == len(mine)
        assert set(rows) == set(found.rest) | set(found.rows[who[found.unit]])


def test_the_model_itself_is_the_shadow_that_took_every_member():
    found = paired(np.array([0, 0, 1]), None, np.array([1, 0]), None, rng())
    assert found.learnt_from(np.ones(found.pairs, dtype=bool)).tolist() == [0, 1, 2]


def test_a_patient_goes_with_a_patient_of_as_many_rows():
    labels, patients = np.array([0, 0, 0, 1]), np.array([5, 5, 6, 7])
    others, theirs = np.array([0, 0, 0, 1, 1]), np.array([8, 8, 9, 10, 10])
    found = paired(labels, patients, others, theirs, rng())
    assert found.pairs == 2  # (5, 8) and (6, 9); 7 has one row and 10 has two
    assert found.rest.tolist() == [3]
    rows = [sorted(found.rows[found.unit == unit].tolist()) for unit in range(4)]
    assert rows == [[2], [6], [0, 1], [4, 5]]
    scores = found.by_unit(np.arange(6.0))
    assert len(scores) == 4
    together = scores[2:] if found.unit[0] < 2 and len(rows[0]) == 1 else scores[:2]
    assert (together % 1 == 0.5).all()  # means of two


def test_where_privacy_is_for_records_only_patients_of_one_are_compared():
    labels, patients = np.array([0, 0, 0]), np.array([5, 5, 6])
    others, theirs = np.array([0, 0, 0]), np.array([8, 8, 9])
    found = paired(labels, patients, others, theirs, rng(), most_rows=1)
    assert (found.pairs, found.rest.tolist()) == (1, [0, 1])


def test_the_same_rng_gives_the_same_pairs_and_another_one_others():
    labels = np.zeros(30, dtype=np.int64)
    first, again = (paired(labels, None, labels, None, rng()) for _ in range(2))
    assert first.rows.tolist() == again.rows.tolist()
    other = paired(labels, None, labels, None, np.random.default_rng(1))
    assert first.rows.tolist() != other.rows.tolist()


@pytest.mark.parametrize("side", ["member", "other"])
def test_either_of_a_pair_is_as_likely_to_come_from_any_row(side):
    """No row is favoured: over seeds each member is paired with each other equally often."""
    labels = np.zeros(4, dtype=np.int64)
    counts = np.zeros((4, 4))
    for seed in range(800):
        found = paired(labels, None, labels, None, np.random.default_rng(seed))
        for pair in range(4):
            a, b = (found.rows[found.unit == 2 * pair + s][0] for s in (0, 1))
            counts[a, b - 4] += 1
    assert abs(counts.sum(axis=int(side == "member")) - 800).max() == 0
    assert abs(counts - 200).max() < 60
