"""Says what a hospital's own model is: whatever can learn, and answer with distributions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np

from fedkd.data import Records
from fedkd.knowledge import Array, Lesson, Space

if TYPE_CHECKING:
    from torch import Tensor

Rng: TypeAlias = np.random.Generator
DistillLoss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""Logits [B, C], target probabilities [B, C] -> scalar, in nats."""


@dataclass(frozen=True, slots=True)
class LearningPlan:
    """How a site learns in one turn.

    Each epoch is one pass over the site's records in batches of `batch`; with a lesson every step
    adds `kl_weight` times `loss` on a batch of the lesson's queries. `loss` is None where no
    lesson is taken.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0
    kl_weight: float = 1.0
    loss: DistillLoss | None = None


class Classifier(Protocol):
    """A hospital's own model: nobody else ever sees more of it than answers.

    Frozen: `fit` returns another classifier. N inputs, C classes.
    """

    @property
    def architecture(self) -> str:
        """Names what can be stacked: equal for models that differ in their weights alone."""

    @property
    def parameters(self) -> int | None:
        """Number of trainable numbers; None where the model has no weights to send."""

    def fit(
        self, records: Records | None, lesson: Lesson | None, plan: LearningPlan, rng: Rng
    ) -> "Classifier":
        """A classifier that has learnt from `records`, from `lesson`, or from both at once."""

    def probs(self, inputs: Array) -> Array:
        """Output distributions, float32 [N, C], each row on the simplex."""

    def weights(self) -> Mapping[str, Array] | None:
        """The learnt arrays; None for a model that is restored by fitting it again."""

    def with_weights(self, weights: Mapping[str, Array]) -> "Classifier":
        """The same architecture with these arrays; `ValueError` where names or shapes differ."""


ClassifierFactory: TypeAlias = Callable[[Space, Rng], Classifier]
"""What a model yaml's `_target_`, called with the yaml's keys, returns: an untrained classifier."""
