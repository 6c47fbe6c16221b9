"""A hospital's own model, one a file; torch and scikit-learn load when one of theirs is built."""

from fedkd.distill.models.building import as_classifier
from fedkd.distill.models.classifier import (
    Classifier,
    ClassifierFactory,
    DistillLoss,
    DivergedTraining,
    LearningPlan,
    Rng,
)

__all__ = [
    "Classifier",
    "ClassifierFactory",
    "DistillLoss",
    "DivergedTraining",
    "LearningPlan",
    "Rng",
    "as_classifier",
]
