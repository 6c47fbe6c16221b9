"""Gradient-boosted trees, for tables above all."""

from typing import Annotated

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import Range, Space


def gradient_boosting(
    space: Space,
    rng: Rng,
    *,
    rounds: Annotated[int, Range(1, 100000)] = 60,
    rate: Annotated[float, Range(1e-4, 1)] = 0.1,
    leaf: Annotated[int, Range(1, 100000)] = 5,
) -> Classifier:
    """Histogram gradient boosting: `rounds` of trees, learning `rate`, at least `leaf` rows a leaf.

    Ke et al., 2017, LightGBM, as scikit-learn has it; without early stopping, which would hold
    out records at random. One tree a class and round: slow on many classes.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    from fedkd.distill.models.scikit import scikit

    boosting = HistGradientBoostingClassifier(
        max_iter=rounds, learning_rate=rate, min_samples_leaf=leaf, early_stopping=False
    )
    return scikit(space, rng, estimator=boosting)
