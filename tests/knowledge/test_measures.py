"""The measures are scikit-learn's, and those that it has not are computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from fedkd.knowledge import measures


def said(seed, classes, tied):
    """Probabilities and labels of 60 examples, every class among them; tied scores on request."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(classes), size=60)
    if tied:
        counts = rng.multinomial(4, np.full(classes, 1 / classes), size=60)
        probs = counts / 4
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=60 - classes)])
    return probs, labels


CASES = given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())


@CASES
def test_accuracies_and_f1_are_the_librarys(seed, classes, tied):
    probs, labels = said(seed, classes, tied)
    guess = probs.argmax(axis=1)
    weights = np.random.default_rng(seed).random(60)
    assert measures.accuracy(probs, labels) == pytest.approx(metrics.accuracy_score(labels, guess))
    assert measures.accuracy(probs, labels, weights) == pytest.approx(
        metrics.accuracy_score(labels, guess, sample_weight=weights)
    )
    assert measures.balanced_accuracy(probs, labels) == pytest.approx(
        metrics.balanced_accuracy_score(labels, guess)
    )
    assert measures.macro_f1(probs, labels) == pytest.approx(
        metrics.f1_score(labels, guess, average="macro", zero_division=0)
    )


@CASES
def test_auroc_is_the_librarys_ties_included(seed, classes, tied):
    probs, labels = said(seed, classes, tied)
    if classes == 2:
        expected = metrics.roc_auc_score(labels, probs[:, 1])
    else:
        expected = metrics.roc_auc_score(labels, probs, multi_class="ovr", average="macro")
    assert measures.auroc(probs, labels) == pytest.approx(expected)


def test_auroc_of_an_absent_class_is_none():
    assert measures.auroc(np.full((3, 3), 1 / 3), np.array([0, 1, 1])) is None


def test_classes_without_a_record_do_not_count_in_balanced_accuracy():
    probs = np.eye(4)[[0, 0, 1, 3]]
    assert measures.balanced_accuracy(probs, np.array([0, 1, 1, 0])) == pytest.approx(0.5)


def test_calibration_error_by_hand():
    # two bins of two: confidence 0.95, accuracy 0.5; confidence 0.65, accuracy 1
    confidence = np.array([0.95, 0.95, 0.65, 0.65])
    probs = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0, 1, 0, 0])
    found = measures.expected_calibration_error(probs, labels, bins=10)
    assert found == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)


def test_sure_and_right_is_calibrated_sure_and_wrong_is_not():
    probs = np.eye(3)
    assert measures.expected_calibration_error(probs, np.arange(3)) == 0
    assert measures.expected_calibration_error(probs, np.array([1, 2, 0])) == 1


@given(st.integers(0, 1000), st.integers(1, 6))
def test_agreement_is_the_share_of_pairs_that_agree(seed, participants):
    probs = np.random.default_rng(seed).dirichlet(np.ones(3), size=(participants, 8))
    top = probs.argmax(axis=2)
    pairs = [
        np.mean(top[i] == top[j]) for i in range(participants) for j in range(i + 1, participants)
    ]
    assert measures.agreement(probs) == pytest.approx(np.mean(pairs) if pairs else 1)


def test_effective_classes_counts_what_is_shown_evenly():
    assert measures.effective_classes(np.eye(4)) == pytest.approx(4)
    assert measures.effective_classes(np.eye(4)[[0, 0, 0]]) == pytest.approx(1)


def test_entropy_is_in_nats():
    assert measures.mean_entropy(np.array([[0.5, 0.5], [1, 0]])) == pytest.approx(np.log(2) / 2)
