"""Each rule on numbers that can be checked by hand; what all rules keep is in tests/laws."""

import numpy as np
import pytest

from fedkd.knowledge.aggregate.entropy_reduced import entropy_reduced
from fedkd.knowledge.aggregate.log_mean import log_mean
from fedkd.knowledge.aggregate.mean import mean
from fedkd.knowledge.aggregate.median import median
from fedkd.knowledge.filter.none import none
from fedkd.knowledge.laws import answers_of, skewed
from fedkd.knowledge.measures import mean_entropy

THREE = np.array([[[0.8, 0.2]], [[0.6, 0.4]], [[0.1, 0.9]]])


def common(rule, *given):
    return rule.combine(rule.init(), answers_of(*given))[1].common.probs


def test_the_mean_by_hand():
    np.testing.assert_allclose(common(mean(), THREE), [[0.5, 0.5]], atol=1e-6)
    weighted = common(mean(), THREE, np.array([1.0, 1.0, 2.0]))
    np.testing.assert_allclose(weighted, [[0.4, 0.6]], atol=1e-6)
    answered = np.array([[True], [False], [True]])
    silent = common(mean(), THREE, None, answered)
    np.testing.assert_allclose(silent, [[0.45, 0.55]], atol=1e-6)


def test_the_log_mean_is_a_geometric_mean():
    two = np.array([[[0.8, 0.2]], [[0.2, 0.8]]])
    np.testing.assert_allclose(common(log_mean(), two), [[0.5, 0.5]], atol=1e-6)
    veto = np.array([[[1.0, 0.0]], [[0.4, 0.6]]])
    assert common(log_mean(floor=1e-12), veto)[0, 1] < 1e-5


def test_the_median_by_hand():
    np.testing.assert_allclose(common(median(), THREE), [[0.6, 0.4]], atol=1e-6)


@pytest.mark.parametrize("temperature", [0.02, 0.05, 0.1])
def test_entropy_reduction_keeps_the_argmax_and_loses_entropy(temperature):
    said = skewed(6)
    before, after = common(mean(), said), common(entropy_reduced(temperature), said)
    margin = np.sort(before, axis=1)
    clear = margin[:, -1] - margin[:, -2] > 1e-3
    np.testing.assert_array_equal(before.argmax(1)[clear], after.argmax(1)[clear])
    assert mean_entropy(after) < mean_entropy(before)


def test_no_filter_leaves_nobody_out():
    answers = answers_of(THREE)
    _, kept = none().keep({}, answers)
    assert kept.answers is answers
    assert not kept.left_out
