"""Says how a model is trained privately, in public numbers alone."""

import math
from dataclasses import dataclass
from typing import Literal

from fedkd.knowledge import BadInput


@dataclass(frozen=True, slots=True)
class PrivateTraining:
    """All that a private training may depend on besides the records: nothing here is read off them.

    `patients` is n, the public number of patients (records may hold fewer: some were taken out).
    Each of `steps` steps takes every patient in (`sampling_rate` 1), or each one by itself with
    that probability; one gradient a patient, clipped to `clip` in the Euclidean norm; Gaussian
    noise of standard deviation `noise_multiplier * clip` on their sum; and the sum over
    `sampling_rate * patients` is what the optimizer is given. With `unit` record every row counts
    as a person of its own, and that is then all that is protected.

    What the optimizer does with the noised sums is free. Adam is the default because its steps
    are as long whatever the clip, the noise and the number of patients are: in all, a weight
    travels at most about `steps * learning_rate`, and 1.2 (0.02 for 60 steps, 0.006 for 200) is
    far enough for inputs of publicly scaled size. `momentum` is that of `sgd`.

    The cost of it, under the relation "all records of one patient replaced by null", is `steps`
    Gaussian mechanisms of that noise multiplier, Poisson-sampled where the rate is below 1.
    """

    patients: int
    steps: int
    noise_multiplier: float
    clip: float = 1.0
    sampling_rate: float = 1.0
    learning_rate: float = 0.02
    optimizer: Literal["sgd", "adam"] = "adam"
    momentum: float = 0.9
    weight_decay: float = 0.0
    unit: Literal["patient", "record"] = "patient"

    def __post_init__(self) -> None:
        for name in ("patients", "steps"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise BadInput(f"{name}={count!r}", "a whole number of at least 1")
        for name in ("noise_multiplier", "clip", "learning_rate", "sampling_rate"):
            number = getattr(self, name)
            if not (math.isfinite(number) and number > 0):
                raise BadInput(f"{name}={number}", "a finite number above 0")
        if self.sampling_rate > 1:
            raise BadInput(
                f"sampling_rate={self.sampling_rate}", "a probability: above 0, at most 1"
            )
        if not 0 <= self.momentum < 1:
            raise BadInput(f"momentum={self.momentum}", "a number from 0, below 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise BadInput(f"weight_decay={self.weight_decay}", "a finite number of at least 0")
        if self.optimizer not in ("sgd", "adam"):
            raise BadInput(f"optimizer={self.optimizer!r}", "sgd | adam")
        if self.unit not in ("patient", "record"):
            raise BadInput(f"unit={self.unit!r}", "patient | record")

    @property
    def divisor(self) -> float:
        """What a sum is divided by: the number of patients that a step is expected to take in."""
        return self.sampling_rate * self.patients
