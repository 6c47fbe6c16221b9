"""LiRA finds a model that knows its records by heart, and finds nothing where nothing is."""

import numpy as np
import pytest
from scipy import stats

from fedkd.knowledge import BadInput
from fedkd.privacy.attacks import (
    auc,
    likelihood_ratio,
    lira,
    negative_loss,
    online,
    score_near,
    shadow_masks,
    through_a_copy,
)
from tests.privacy_attacks.memoriser import blobs, logistic, nearest

RECORDS = 160


def coins(seed, records=RECORDS):
    return np.random.default_rng(seed).random(records) < 0.5


@pytest.mark.parametrize(("model", "features"), [(nearest, 40), (logistic, 100)])
def test_it_finds_a_planted_overfitted_model(model, features):
    inputs, labels = blobs(RECORDS, features=features)
    member, fit = coins(1), model(inputs, labels)
    scores = online(fit(member, 0), fit, inputs, labels)
    assert auc(scores[member], scores[~member]) >= 0.85


def test_it_finds_more_than_the_loss_alone():
    inputs, labels = blobs(RECORDS, features=100)
    member, fit = coins(1), logistic(inputs, labels, strength=0.1)
    target = fit(member, 0)
    scores = online(target, fit, inputs, labels)
    loss = negative_loss(target(inputs), labels)
    assert auc(scores[member], scores[~member]) > auc(loss[member], loss[~member]) + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_it_stays_near_a_half_on_records_that_nobody_learnt_from(seed):
    """Target and shadows as before; those asked about are strangers with shuffled labels."""
    inputs, labels = blobs(RECORDS)
    target = nearest(inputs, labels)(coins(1), 0)
    strangers, truth = blobs(400, seed=50 + seed)
    shuffled = np.random.default_rng(seed).permutation(truth)
    fit = nearest(strangers, shuffled)
    scores = online(target, fit, strangers, shuffled, seed=seed)
    chosen = coins(7 + seed, 400)
    assert abs(auc(scores[chosen], scores[~chosen]) - 0.5) < 0.09


@pytest.mark.parametrize("seed", range(3))
def test_it_stays_near_a_half_on_a_model_that_learnt_from_nobody(seed):
    """The model is as good as any, and owes nothing to either side."""
    inputs, labels = blobs(2 * RECORDS, seed=seed)
    fresh, codes = blobs(RECORDS, seed=100 + seed)
    target = logistic(fresh, codes, strength=0.01)(np.ones(RECORDS, dtype=bool), 0)
    fit = logistic(inputs, labels, strength=0.01)
    scores, chosen = online(target, fit, inputs, labels, seed=seed), coins(seed, 2 * RECORDS)
    assert abs(auc(scores[chosen], scores[~chosen]) - 0.5) < 0.1


def test_fewer_than_sixteen_shadows_are_refused_before_any_is_trained():
    def never(member, seed):
        raise AssertionError("a shadow was trained")

    with pytest.raises(BadInput, match="15 shadow models"):
        online(lambda inputs: inputs, never, np.zeros((4, 2)), np.zeros(4, int), shadows=15)


def test_each_record_is_in_half_of_the_shadows_and_no_two_records_go_together():
    masks = shadow_masks(500, 16, np.random.default_rng(0))
    assert (masks.sum(axis=0) == 8).all()
    assert len(np.unique(masks, axis=1).T) > 450
    assert abs(masks.mean(axis=1) - 0.5).max() < 0.1  # a shadow learns from about half


def test_the_ratio_is_that_of_two_gaussians():
    rng = np.random.default_rng(0)
    inside = shadow_masks(50, 20, rng)
    said = rng.normal(size=(20, 50)) + 3 * inside
    target = rng.normal(size=50)
    found = likelihood_ratio(target, said, inside)
    expected = np.zeros(50)
    for kind, sign in ((inside, 1), (~inside, -1)):
        mean = np.array([said[kind[:, n], n].mean() for n in range(50)])
        rest = [said[kind[:, n], n] - mean[n] for n in range(50)]
        deviation = np.sqrt(np.concatenate(rest).dot(np.concatenate(rest)) / (50 * 9))
        expected += sign * stats.norm.logpdf(target, mean, deviation)
    assert found == pytest.approx(expected)


def test_with_many_shadows_each_record_has_a_variance_of_its_own():
    rng = np.random.default_rng(0)
    width = np.array([0.1, 10.0])
    inside = shadow_masks(2, 64, rng)
    said = width * rng.normal(size=(64, 2)) + inside
    narrow, wide = likelihood_ratio(np.ones(2), said, inside)
    assert narrow > 20  # a step of ten deviations
    assert abs(wide) < 2
    few = likelihood_ratio(np.ones(2), said[:63], inside[:63])
    assert abs(few[0]) < 2  # one variance for both


def test_shadows_that_all_say_the_same_prove_no_certainty():
    inside = shadow_masks(10, 16, np.random.default_rng(0))
    assert np.isfinite(likelihood_ratio(np.zeros(10), np.zeros((16, 10)), inside)).all()


def test_a_record_that_every_shadow_learnt_from_is_an_error():
    with pytest.raises(ValueError, match="all shadows or none"):
        likelihood_ratio(np.zeros(2), np.zeros((16, 2)), np.ones((16, 2), dtype=bool))


def test_queries_near_a_record_betray_it_too():
    inputs, labels = blobs(RECORDS)
    public, _ = blobs(300, seed=9)
    member, fit = coins(1), nearest(inputs, labels)
    masks = shadow_masks(RECORDS, 16, np.random.default_rng(0))
    score = score_near(inputs, labels, public, np.random.default_rng(2), share=0.05)
    shadows = [fit(mask, 0) for mask in masks]
    scores = lira(fit(member, 0), shadows, masks, score)
    assert auc(scores[member], scores[~member]) >= 0.75


def distil(queries):
    """A copy that knows the answers to the queries and nothing else: the nearest ones' mean."""

    def learn(answers, seed):
        def copy(asked):
            squares = ((asked[:, None, :] - queries[None]) ** 2).sum(axis=2)
            weight = np.exp(-(squares - squares.min(axis=1, keepdims=True)) / 2.0**2)
            return weight @ answers / weight.sum(axis=1, keepdims=True)

        return copy

    return learn


@pytest.mark.parametrize(("hidden", "low", "high"), [(False, 0.7, 1.0), (True, 0.4, 0.6)])
def test_a_copy_of_released_answers_betrays_members_unless_the_answers_say_nothing(
    hidden, low, high
):
    inputs, labels = blobs(RECORDS)
    queries = inputs + np.random.default_rng(3).normal(size=inputs.shape)

    def fit(member, seed):
        speaker = nearest(inputs, labels)(member, seed)
        return (lambda asked: np.full((len(asked), 3), 1 / 3)) if hidden else speaker

    heard = through_a_copy(fit, queries, distil(queries))
    member = coins(1)
    scores = online(heard(member, 0), heard, inputs, labels)
    assert low <= auc(scores[member], scores[~member]) <= high


def test_the_copy_hears_nothing_but_answers_to_the_queries():
    inputs, labels = blobs(RECORDS)
    queries, asked = inputs[:20] + 0.5, []

    def fit(member, seed):
        def speaker(about):
            asked.append(about)
            return nearest(inputs, labels)(member, seed)(about)

        return speaker

    copy = through_a_copy(fit, queries, distil(queries))(coins(1), 0)
    copy(inputs)
    assert len(asked) == 1
    assert asked[0] is queries
