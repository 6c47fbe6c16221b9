"""A random forest, for any kind of input."""

from typing import Annotated

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import Range, Space


def random_forest(
    space: Space,
    rng: Rng,
    *,
    trees: Annotated[int, Range(1, 100000)] = 200,
    leaf: Annotated[int, Range(1, 100000)] = 2,
) -> Classifier:
    """`trees` trees of at least `leaf` rows a leaf: Breiman, 2001, 10.1023/A:1010933404324."""
    from sklearn.ensemble import RandomForestClassifier

    from fedkd.distill.models.scikit import scikit

    forest = RandomForestClassifier(n_estimators=trees, min_samples_leaf=leaf)
    return scikit(space, rng, estimator=forest)
