"""Scores and counts: what an attack says of a record, and how well it tells."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkd.privacy.attacks import (
    auc,
    clopper_pearson,
    mix_of_answers,
    mix_of_labels,
    negative_loss,
    scaled,
    total_variation,
    true_positives_at,
)
from fedkd.privacy.attacks.intervals import at_least, at_most


def test_the_scores_are_those_of_the_papers():
    probs = np.array([[0.9, 0.06, 0.04], [0.2, 0.5, 0.3]])
    labels = np.array([0, 2])
    assert negative_loss(probs, labels) == pytest.approx(np.log([0.9, 0.3]))
    assert scaled(probs, labels) == pytest.approx(np.log([0.9 / 0.1, 0.3 / 0.7]))


def test_a_certain_answer_has_a_finite_score():
    probs = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    labels = np.array([0, 0])
    assert np.isfinite(negative_loss(probs, labels)).all()
    assert scaled(probs, labels)[0] == -scaled(probs, labels)[1] > 10


def test_a_score_reads_and_does_not_write():
    probs = np.array([[0.7, 0.3]])
    scaled(probs, np.array([0]))
    assert probs.tolist() == [[0.7, 0.3]]


def test_auc_counts_pairs_and_halves_ties():
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([1.0]), np.array([1.0])) == 0.5
    assert auc(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 0.75


@given(st.lists(st.integers(0, 5), min_size=1), st.lists(st.integers(0, 5), min_size=1))
def test_auc_is_the_share_of_pairs_that_are_in_order(inside, outside):
    a, b = np.array(inside, dtype=float), np.array(outside, dtype=float)
    pairs = (a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean()
    assert auc(a, b) == pytest.approx(pairs)


def test_nobody_to_compare_with_is_an_error():
    with pytest.raises(ValueError, match="0 others"):
        auc(np.ones(3), np.ones(0))
    with pytest.raises(ValueError, match="0 members"):
        true_positives_at(np.ones(0), np.ones(3))


def test_true_positives_at_one_percent_allow_one_false_alarm_in_a_hundred():
    outside = np.arange(100.0)
    found = true_positives_at(np.array([98.5, 98.0, 99.5, 120.0]), outside)
    assert (found.hits, found.false_alarms) == (3, 1)
    assert found.rate == 0.75
    few = true_positives_at(np.array([98.5, 120.0]), outside[:99])
    assert few.false_alarms == 0  # below a hundred others one would be too many
    assert few.hits == 2


def test_a_tie_with_the_threshold_counts_for_neither():
    found = true_positives_at(np.ones(50), np.ones(200))
    assert (found.hits, found.false_alarms) == (0, 0)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=300),
    st.lists(st.integers(0, 9), min_size=1, max_size=300),
)
def test_there_are_never_more_false_alarms_than_allowed(inside, outside):
    found = true_positives_at(np.array(inside), np.array(outside))
    assert found.false_alarms <= 0.01 * found.others
    assert found.interval.low <= found.rate <= found.interval.high


def test_the_interval_is_that_of_clopper_and_pearson():
    """R: binom.test(7, 20)$conf.int, binom.test(0, 10)$conf.int."""
    assert clopper_pearson(7, 20) == pytest.approx((0.1539092, 0.5921885), abs=1e-6)
    assert clopper_pearson(0, 10) == pytest.approx((0.0, 0.3084971), abs=1e-6)
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_limit_is_wrong_as_seldom_as_it_says(share):
    hits = np.random.default_rng(0).binomial(60, share, size=2000)
    low = np.array([at_least(int(h), 60, 0.05) for h in range(61)])[hits]
    high = np.array([at_most(int(h), 60, 0.05) for h in range(61)])[hits]
    assert (low > share).mean() < 0.05 + 0.015
    assert (high < share).mean() < 0.05 + 0.015


@pytest.mark.parametrize("counts", [(3, 2, 0.1), (-1, 2, 0.1), (1, 2, 0.0), (1, 2, 1.0)])
def test_counts_that_cannot_be_are_refused(counts):
    with pytest.raises(ValueError, match="expected 0 <= hits <= trials"):
        at_least(*counts)


def test_answers_betray_the_mix_of_labels():
    answers = np.array([[0.8, 0.2], [0.6, 0.4]])
    assert mix_of_answers(answers) == pytest.approx([0.7, 0.3])
    assert mix_of_labels(np.array([0, 0, 1, 0]), 2).tolist() == [0.75, 0.25]
    assert total_variation(mix_of_answers(answers), np.array([0.75, 0.25])) == pytest.approx(0.05)
