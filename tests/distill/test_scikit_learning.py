"""How a scikit-learn classifier learns from records and lessons."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fedkd.distill import as_classifier
from fedkd.distill.laws import MODEL_LAWS, Toy
from fedkd.distill.models.random_forest import random_forest
from fedkd.distill.models.scikit import scikit
from fedkd.distill.models.scikit_classifier import LEAST_WEIGHT, drawn, spread


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Recorder(ClassifierMixin, BaseEstimator):
    """Keeps what it was fitted on."""

    seen = None

    def fit(self, X, y, sample_weight=None):  # noqa: N803 - scikit-learn's own name
        Recorder.seen = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):  # noqa: N803 - as above
        return np.full((len(X), len(self.classes_)), 1 / len(self.classes_))


@pytest.mark.parametrize("weight", [0.25, 1.0, 3.0])
def test_a_lesson_weighs_as_much_as_the_plan_says(table: Toy, plan, weight: float) -> None:
    model = as_classifier(Recorder, table.space, rng())
    model.fit(table.records, table.lesson, plan(kl_weight=weight), rng(1))
    _, labels, weights = Recorder.seen
    own = len(table.records)
    assert np.array_equal(weights[:own], np.ones(own))
    assert np.array_equal(labels[:own], table.records.labels)
    assert weights[own:].sum() == pytest.approx(weight * own)


def test_each_query_is_taught_as_the_consensus_says(table: Toy, plan) -> None:
    as_classifier(Recorder, table.space, rng()).fit(None, table.lesson, plan(), rng(1))
    inputs, labels, weights = Recorder.seen
    told = table.lesson.consensus.probs
    assert len(labels) == told.size
    assert np.allclose(weights, told[np.arange(len(told)).repeat(3), labels], atol=1e-6)
    assert np.array_equal(inputs[::3], table.space.scaled(table.lesson.queries.inputs))


def test_a_lesson_of_weight_zero_is_plain_fitting(table: Toy, plan) -> None:
    model = random_forest(table.space, rng(), trees=5)
    plain = model.fit(table.records, None, plan(), rng(1)).probs(table.records.inputs)
    mixed = model.fit(table.records, table.lesson, plan(kl_weight=0.0), rng(1))
    assert np.array_equal(plain, mixed.probs(table.records.inputs))


def test_unlikely_classes_get_no_row() -> None:
    consensus = np.array([[1 - LEAST_WEIGHT / 2, LEAST_WEIGHT / 2], [0.5, 0.5]])
    rows = spread(np.zeros((2, 1)), consensus, total=2.0)
    assert rows.labels.tolist() == [0, 0, 1]
    assert rows.weights.tolist() == [1.0, 0.5, 0.5]


def test_drawn_classes_have_the_frequencies_of_the_consensus() -> None:
    consensus = np.tile([0.2, 0.0, 0.8], (10, 1))
    rows = drawn(np.arange(10)[:, None], consensus, total=20_000, rng=rng())
    assert np.bincount(rows.labels, minlength=3) / 20_000 == pytest.approx([0.2, 0, 0.8], abs=0.02)
    assert set(np.bincount(rows.inputs[:, 0])) == {2000}


NO_WEIGHTS = {
    "neighbours": KNeighborsClassifier(3),
    "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
}


@pytest.mark.parametrize("law", MODEL_LAWS)
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_an_estimator_without_sample_weights_keeps_the_laws(name: str, law: str) -> None:
    MODEL_LAWS[law](lambda space, lot: scikit(space, lot, estimator=NO_WEIGHTS[name]))


def test_a_random_state_inside_a_pipeline_is_seeded(table: Toy, plan) -> None:
    forest = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=3, n_jobs=2))
    model = scikit(table.space, rng(), estimator=forest)
    fitted = model.fit(table.records, None, plan(), rng(1)).fitted
    inner = fitted.get_params()
    assert inner["randomforestclassifier__random_state"] is not None
    assert inner["randomforestclassifier__n_jobs"] == 1


def test_a_class_that_a_site_never_saw_gets_nothing(table: Toy, plan) -> None:
    two = table.records.take(table.records.labels != 1)
    fitted = random_forest(table.space, rng(), trees=5).fit(two, None, plan(), rng(1))
    probs = fitted.probs(table.records.inputs)
    assert (probs[:, 1] == 0).all()
    assert np.allclose(probs.sum(axis=1), 1)


def test_a_forest_that_never_learnt_answers_uniformly(table: Toy) -> None:
    probs = random_forest(table.space, rng()).probs(table.records.inputs)
    assert np.allclose(probs, 1 / 3)


def test_a_refit_restores_the_same_model(table: Toy, plan) -> None:
    model = random_forest(table.space, rng(), trees=5)
    once = model.fit(table.records, table.lesson, plan(), rng(1))
    again = once.fit(table.records, table.lesson, plan(), rng(1))
    assert np.array_equal(once.probs(table.records.inputs), again.probs(table.records.inputs))
