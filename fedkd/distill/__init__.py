"""How models learn: from records, from lessons, or from both in the same step.

Importing this room loads neither torch nor scikit-learn: they come with the first model.
"""

from typing import TYPE_CHECKING, Any

from fedkd.distill.gates.gate import Gate, gated
from fedkd.distill.models import (
    Classifier,
    ClassifierFactory,
    DistillLoss,
    DivergedTraining,
    LearningPlan,
    Rng,
    as_classifier,
)
from fedkd.distill.saving import load_weights, save_weights
from fedkd.distill.student import teach

if TYPE_CHECKING:
    from fedkd.distill.cohort import cohortable, fit_cohort
    from fedkd.distill.models.torch_classifier import TorchClassifier

__all__ = [
    "Classifier",
    "ClassifierFactory",
    "DistillLoss",
    "DivergedTraining",
    "Gate",
    "LearningPlan",
    "Rng",
    "TorchClassifier",
    "as_classifier",
    "cohortable",
    "fit_cohort",
    "gated",
    "load_weights",
    "save_weights",
    "teach",
]

_WITH_TORCH = {
    "TorchClassifier": "fedkd.distill.models.torch_classifier",
    "cohortable": "fedkd.distill.cohort",
    "fit_cohort": "fedkd.distill.cohort",
}


def __getattr__(name: str) -> Any:
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WITH_TORCH[name]), name)
