"""Says what a hospital's own model is: whatever can learn, and answer with distributions."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from fedkd.data import Records
from fedkd.knowledge import Array, BadInput, Lesson, NotInSpace, Space

if TYPE_CHECKING:
    from torch import Tensor

Rng: TypeAlias = np.random.Generator
DistillLoss: TypeAlias = Callable[["Tensor", "Tensor"], "Tensor"]
"""Logits [B, C], target probabilities [B, C] -> scalar, in nats: the mean of the rows' losses."""


class DivergedTraining(ArithmeticError):
    """A training that left the finite numbers: nothing of it is kept."""


@dataclass(frozen=True, slots=True)
class LearningPlan:
    """How a site learns in one turn.

    Every step takes one batch of `batch` records; with a lesson it adds `kl_weight` times `loss`
    on a batch of as many queries. A lesson without records is learnt by `loss` alone, whatever
    `kl_weight` is. `loss` is None where no lesson is taken.

    `steps` says what one epoch passes over once: the site's `records`, the `lesson`'s queries,
    or the `longest` of both; the other one is gone through as often as that takes. With one of
    them alone an epoch is a pass over that one. `records` keeps a site's work in proportion to
    its size whatever the query set is; few records with many queries need one of the others.
    Zero epochs leave a model as it is. A scikit-learn classifier reads `kl_weight` alone.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0
    kl_weight: float = 1.0
    loss: DistillLoss | None = None
    steps: Literal["records", "lesson", "longest"] = "records"

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch < 1:
            raise BadInput(f"{self.epochs} epochs in batches of {self.batch}", "0 or more, 1 up")
        for name, least in (("learning_rate", 0.0), ("weight_decay", 0.0), ("kl_weight", 0.0)):
            number = getattr(self, name)
            if not (math.isfinite(number) and number >= least):
                raise BadInput(f"{name}={number}", f"a finite number of at least {least:g}")
        if self.steps not in ("records", "lesson", "longest"):
            raise BadInput(f"steps={self.steps!r}", "records | lesson | longest")

    def step_count(self, records: int, queries: int) -> int:
        """How many steps a turn takes on that many records and queries (0: none there)."""
        if self.steps == "longest":
            rows = max(records, queries)
        else:
            first, other = (records, queries) if self.steps == "records" else (queries, records)
            rows = first or other
        return self.epochs * math.ceil(rows / self.batch)


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


def check_inputs(space: Space, inputs: Array) -> None:
    """Raises `NotInSpace` unless a model of `space` can read `inputs` [N, ...].

    Their range is for whoever let them in to check (`Space.check`).
    """
    if inputs.dtype != np.dtype(space.dtype) or inputs.shape[1:] != space.shape:
        raise NotInSpace(
            f"found inputs of type {inputs.dtype} and shape {inputs.shape[1:]}, "
            f"expected {space.dtype} and {space.shape}"
        )


def check_learnable(
    space: Space, records: Records | None, lesson: Lesson | None, plan: LearningPlan
) -> None:
    """Raises, before any effect, unless a model of `space` can learn from these."""
    classes = len(space.classes)
    if records is None and lesson is None:
        raise BadInput("neither records nor a lesson", "something to learn from")
    if records is not None:
        check_inputs(space, records.inputs)
        if not len(records):
            raise BadInput("no record", "at least one", "pass None to learn from a lesson alone")
        if records.labels.min() < 0 or records.labels.max() >= classes:
            low, high = records.labels.min(), records.labels.max()
            raise BadInput(f"labels from {low} to {high}", f"codes from 0 to {classes - 1}")
    if lesson is not None:
        check_inputs(space, lesson.queries.inputs)
        if lesson.consensus.probs.shape[1] != classes:
            found = lesson.consensus.probs.shape[1]
            raise BadInput(f"a lesson about {found} classes", f"{classes} classes")
