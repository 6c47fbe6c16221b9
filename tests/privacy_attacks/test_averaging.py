"""Averaging helps who gets fresh answers, and gets the ledger's stored answer for its trouble."""

import numpy as np
import pytest

from fedkd.privacy.attacks import auc_by_answers, averaged, mean_answer, near, stored

COUNTS = (1, 10, 100)


def confidences(records=2000, seed=0):
    """What a model says of members and others, [N, 2], as overfitted models do."""
    rng = np.random.default_rng(seed)
    member = rng.random(records) < 0.5
    own = 1 / (1 + np.exp(-(1.0 + 1.8 * member + rng.normal(size=records))))
    return np.stack([own, 1 - own], axis=1), np.zeros(records, dtype=np.int64), member


def noised(said, rng):
    """The answers with noise of deviation .5 on every number."""
    return said + 0.5 * rng.normal(size=said.shape)


def test_each_fresh_answer_makes_the_attack_better():
    said, labels, member = confidences()
    found = auc_by_answers(noised, said, labels, member, COUNTS, np.random.default_rng(1))
    assert found[1] < found[10] - 0.05 < found[100] - 0.1
    bare = auc_by_answers(lambda it, rng: it, said, labels, member, (1,), np.random.default_rng(1))
    assert found[100] < bare[1] < found[100] + 0.1


def test_the_stored_answer_makes_it_pointless():
    said, labels, member = confidences()
    release = stored(noised)
    found = auc_by_answers(release, said, labels, member, COUNTS, np.random.default_rng(1))
    assert found[100] == pytest.approx(found[1], abs=1e-9)
    assert found[10] == pytest.approx(found[1], abs=1e-9)


def test_another_question_is_another_answer():
    release, rng = stored(noised), np.random.default_rng(0)
    first, other = np.full((3, 2), 0.5), np.full((3, 2), 0.6)
    assert (release(first, rng) == release(first, rng)).all()
    assert (release(first, rng) != release(other, rng)).any()


def test_the_noise_of_a_mean_falls_with_the_root_of_the_answers():
    rng = np.random.default_rng(0)
    said = np.full((4000, 2), 0.5)
    assert averaged(noised, said, 1, rng).std() == pytest.approx(0.5, rel=0.05)
    assert averaged(noised, said, 25, rng).std() == pytest.approx(0.1, rel=0.05)


def test_the_mean_of_answers_keeps_their_type():
    answers = [np.array([[0.25, 0.75]], dtype=np.float32), np.array([[0.75, 0.25]], np.float32)]
    assert mean_answer(answers).tolist() == [[0.5, 0.5]]
    assert mean_answer(answers).dtype == np.float32


def test_a_query_near_a_record_has_only_values_that_inputs_had():
    rng = np.random.default_rng(0)
    records = rng.integers(0, 16, size=(30, 4, 4)).astype(np.uint8)
    public = rng.integers(16, 32, size=(5, 4, 4)).astype(np.uint8)
    asked = list(near(records, public, 3, 0.2, rng))
    assert len(asked) == 3
    for inputs in asked:
        assert (inputs.dtype, inputs.shape) == (records.dtype, records.shape)
        taken = inputs >= 16
        assert (inputs[~taken] == records[~taken]).all()
        assert taken.any(axis=(1, 2)).all()  # none is the record itself
        assert 0.1 < taken.mean() < 0.35
