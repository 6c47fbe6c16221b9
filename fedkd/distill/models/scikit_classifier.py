"""Makes a scikit-learn classifier a hospital's own model: fitted afresh on records and lesson."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import threadpool_limits

from fedkd.data import Records
from fedkd.distill.models.building import called
from fedkd.distill.models.classifier import LearningPlan, Rng, check_inputs, check_learnable
from fedkd.knowledge import Array, BadInput, Lesson, Space, normalised

# N rows, F features, Q queries, C classes.

LEAST_WEIGHT = 1e-3
"""A class that the consensus holds less likely than this gets no row."""


@dataclass(frozen=True, slots=True)
class Rows:
    """What an estimator is fitted on: `inputs` [N, F], `labels` [N], `weights` [N]."""

    inputs: Array
    labels: Array
    weights: Array

    def then(self, more: "Rows") -> "Rows":
        """These rows, and `more` after them."""
        names = ("inputs", "labels", "weights")
        return Rows(*(np.concatenate([getattr(self, n), getattr(more, n)]) for n in names))


@dataclass(frozen=True, slots=True, eq=False)
class ScikitClassifier:
    """A classifier that fits a clone of `template`; `fitted` is None before the first turn.

    Before that it answers uniformly: it knows nothing. A class that it never saw gets probability
    0. It has no weights: a site restores it by fitting it again, never from a pickle.
    """

    space: Space
    architecture: str
    template: Any
    fitted: Any = None

    @staticmethod
    def of(space: Space, template: Any) -> "ScikitClassifier":
        """An unfitted classifier; `template` is cloned, so that nobody else can change it."""
        name = called(type(template), template.get_params(deep=False))
        shown = "x".join(map(str, space.shape))
        architecture = f"{name} [{space.kind} {shown} -> {len(space.classes)}]"
        return ScikitClassifier(space, architecture, clone(template))

    @property
    def parameters(self) -> None:
        """None: there are no weights to send."""
        return

    def fit(
        self, records: Records | None, lesson: Lesson | None, plan: LearningPlan, rng: Rng
    ) -> "ScikitClassifier":
        """Fitted on the records and on the lesson's rows, forgetting what was fitted before.

        The lesson's rows weigh `plan.kl_weight` times as much as all the records together. Each
        query comes once a class, weighted by the consensus; an estimator that takes no
        `sample_weight` gets as many rows with one class each, drawn from the consensus.
        """
        check_learnable(self.space, records, lesson, plan)
        if plan.epochs == 0:
            return self
        weighted = has_fit_parameter(self.template, "sample_weight")
        rows = None if records is None else self._rows_of(records)
        if lesson is not None and (rows is None or plan.kl_weight > 0):
            total = len(lesson.queries) if rows is None else plan.kl_weight * len(rows.labels)
            asked = self._seen(lesson.queries.inputs)
            consensus = lesson.consensus.probs.astype(np.float64)
            told = (
                spread(asked, consensus, total) if weighted else drawn(asked, consensus, total, rng)
            )
            rows = told if rows is None else rows.then(told)
        if rows is None:
            raise BadInput("nothing to fit", "records, or a lesson")
        return replace(self, fitted=self._fit(rows, weighted, rng))

    def probs(self, inputs: Array) -> Array:
        """Output distributions, float32 [N, C], each row on the simplex."""
        check_inputs(self.space, inputs)
        said = np.zeros((len(inputs), len(self.space.classes)))
        if self.fitted is not None and len(inputs):
            with threadpool_limits(1):
                said[:, self.fitted.classes_] = self.fitted.predict_proba(self._seen(inputs))
        probs: Array = normalised(said).astype(np.float32)
        return probs

    def weights(self) -> None:
        """None: it is restored by fitting it again."""
        return

    def with_weights(self, weights: Mapping[str, Array]) -> "ScikitClassifier":
        """Always a `BadInput`: there are no weights to be given."""
        raise BadInput(f"weights for {self.architecture}", "none", "fit it again to restore it")

    def _seen(self, inputs: Array) -> Array:
        return self.space.scaled(inputs).reshape(len(inputs), -1)

    def _rows_of(self, records: Records) -> Rows:
        return Rows(self._seen(records.inputs), records.labels, np.ones(len(records)))

    def _fit(self, rows: Rows, weighted: bool, rng: Rng) -> Any:
        # Many estimators refuse to fit a single class; what they would say is plain.
        alone = len(np.unique(rows.labels)) == 1
        estimator = DummyClassifier(strategy="prior") if alone else clone(self.template)
        seed = int(rng.integers(0, 2**31 - 1))
        for name, value in estimator.get_params(deep=True).items():
            if name.rpartition("__")[2] == "random_state":
                estimator.set_params(**{name: seed})
            if name.rpartition("__")[2] == "n_jobs" and value is not None:
                estimator.set_params(**{name: 1})
        weights = {"sample_weight": rows.weights} if weighted and not alone else {}
        with threadpool_limits(1):
            return estimator.fit(rows.inputs, rows.labels, **weights)


def spread(asked: Array, consensus: Array, total: float) -> Rows:
    """Each of `asked` [Q, F] once a class, weighted by `consensus` [Q, C]; `total` in sum."""
    kept = np.where(consensus >= LEAST_WEIGHT, consensus, 0)
    queries, labels = np.nonzero(kept)
    weights = normalised(kept)[queries, labels]
    return Rows(asked[queries], labels.astype(np.int64), weights * (total / len(asked)))


def drawn(asked: Array, consensus: Array, total: float, rng: Rng) -> Rows:
    """`total` rows out of `asked` [Q, F], as evenly as possible, a class drawn for each."""
    count = max(1, round(total))
    turns = -(-count // len(asked))
    queries = np.concatenate([rng.permutation(len(asked)) for _ in range(turns)])[:count]
    below = np.cumsum(consensus[queries], axis=1)
    labels = (below < rng.random((count, 1)) * below[:, -1:]).sum(axis=1).astype(np.int64)
    return Rows(asked[queries], labels, np.ones(count))
