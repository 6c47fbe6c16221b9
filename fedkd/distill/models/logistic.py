"""Logistic regression: one linear layer, for any kind of input."""

from fedkd.distill.models.classifier import Classifier, Rng
from fedkd.knowledge import Space


def logistic(space: Space, rng: Rng) -> Classifier:
    """Multinomial logistic regression, trained by gradient steps: warm starts, sends no records."""
    from fedkd.distill.models.mlp import mlp

    return mlp(space, rng, hidden=1, layers=0)
