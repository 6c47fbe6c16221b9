"""Any scikit-learn classifier of the user's own as a hospital's model."""

from typing import Any

from fedkd.distill.models.building import called
from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import BadInput, Space


def scikit(space: Space, rng: Rng, *, estimator: Any) -> Classifier:
    """`estimator`: a scikit-learn classifier, its class, or its class with keys; never changed.

    It needs `predict_proba`. It is fitted afresh on every turn, so `rng` is not drawn from here.
    """
    from sklearn.base import BaseEstimator, is_classifier

    from fedkd.distill.models.scikit_classifier import ScikitClassifier

    built = estimator
    if not isinstance(estimator, BaseEstimator) and callable(estimator):
        built = estimator()
    if not isinstance(built, BaseEstimator) or not is_classifier(built):
        raise BadInput(f"{called(type(built))} as an estimator", "a scikit-learn classifier")
    if not hasattr(built, "predict_proba"):
        raise BadInput(
            f"{called(type(built))}, which has no predict_proba",
            "a classifier that answers with distributions",
            "wrap it in sklearn.calibration.CalibratedClassifierCV",
        )
    return ScikitClassifier.of(space, built)
