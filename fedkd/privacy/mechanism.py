"""Says what a mechanism is: the price of training and answering, and what is let out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from fedkd.knowledge import Array
from fedkd.privacy.events import Cost
from fedkd.privacy.ledger import Ledger

Rng: TypeAlias = np.random.Generator


@dataclass(frozen=True, slots=True)
class PublicFacts:
    """All that a price may depend on: nothing in here is a statistic of any record.

    `patients` is n, which is public under the relation "all of one patient's records replaced by
    null": nobody can tell from it whether a certain patient is among them.
    """

    patients: int
    classes: int
    rounds: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a speaker is trained privately: public numbers, fixed before any record is read.

    One gradient a unit (`patient` or `record`), clipped to `clip`, in each of `steps` steps, which
    take each unit in with probability `sampling_rate`; noise of `noise_multiplier * clip` on their
    sum.
    """

    patients: int
    steps: int
    noise_multiplier: float
    clip: float
    sampling_rate: float
    learning_rate: float
    optimizer: Literal["sgd", "adam"]
    momentum: float
    weight_decay: float
    unit: Literal["patient", "record"]

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the log holds them."""
        return asdict(self)


class Mechanism(NamedTuple):
    """How a site's speaker comes to be and speaks, and the price: each cost sees public facts.

    `filter` is the kind of privacy filter that can charge its costs, `unit` whom one bounds: a
    patient, or a record. `cost_at` gives what training
    costs at a noise multiplier, `plan` the training that a ledger can pay, for at most an epsilon
    of its own; both are None where nothing is trained privately. `answer_cost` is paid for each
    new question, over so many queries. `release` turns what the speaker says, [Q, C], into what
    leaves.
    """

    name: str
    private: bool
    filter: str
    unit: str
    cost_at: Callable[[PublicFacts, float], Cost] | None
    plan: Callable[[PublicFacts, Ledger, float | None], TrainingPlan] | None
    training_cost: Callable[[PublicFacts, TrainingPlan | None], Cost]
    answer_cost: Callable[[PublicFacts, int], Cost]
    release: Callable[[Array, Rng], Array]
