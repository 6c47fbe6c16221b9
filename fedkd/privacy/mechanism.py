"""Says what a mechanism is: the price of training and answering, and what is let out."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from fedkd.knowledge import Array
from fedkd.privacy.events import Cost
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.noise import NoiseSource

Unit: TypeAlias = Literal["patient", "record"]
"""Whom a plan protects."""


@dataclass(frozen=True, slots=True)
class PublicFacts:
    """All that a price may depend on: nothing in here is a statistic of any record.

    `patients` is n, which is public under the relation "all of one patient's records replaced by
    null": nobody can tell from it whether a certain patient is among them. `named` says whether
    records say whose they are; where they do not, each one counts as a patient of its own.
    """

    patients: int
    classes: int
    rounds: int | None = None
    named: bool = True


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
    unit: Unit

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the log holds them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How answers are noised: public numbers, fixed before the first of them is given.

    `shards` models, each of other patients, answer together: the mean of their distributions, or
    with `vote` the class that most of them name. Noise of `noise_multiplier` times the
    sensitivity lies on each of at most `batches` batches of new queries.
    """

    patients: int
    shards: int
    batches: int
    noise_multiplier: float
    vote: bool
    unit: Unit

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the log holds them."""
        return asdict(self)


Plan: TypeAlias = TrainingPlan | AnswerPlan


def unit_of(name: str) -> Unit:
    """The unit of this name, which a key's `OneOf` has checked."""
    return "record" if name == "record" else "patient"


class Mechanism(NamedTuple):
    """How a site's speaker comes to be and speaks, and the price: each cost sees public facts.

    `filter` is the kind of privacy filter that can charge its costs, `unit` whom one bounds: a
    patient, or a record. `speaker` says what may answer: a model trained by noised `gradients`,
    `any` classifier (one for each shard of the patients), or one `ordinary` model.

    `cost_at` gives what a whole plan costs at a noise multiplier (its training, or all its
    batches of answers), `plan` the plan that a ledger can pay, for at most an epsilon of its
    own; both are None where nothing is planned. `training_cost` is paid before a model is
    trained, `answer_cost` for each new question, over so many queries that were not answered
    before. `release` turns what is said, [Q, C], or [k, Q, C] by k shards, into what leaves,
    [Q, C], on the simplex. `worst_pair` gives, for so many queries, what two sites that differ
    in one unit may say at most differently: what lies between is the sensitivity. It is None
    where training pays. `learns` says that a speaker also learns from lessons, which costs
    nothing. `shards` is how many models answer together, and `way` what is made of what they
    say: an answer that was given one way is not given again for another.
    """

    name: str
    private: bool
    filter: str
    unit: Unit
    speaker: Literal["gradients", "any", "ordinary"]
    cost_at: Callable[[PublicFacts, float], Cost] | None
    plan: Callable[[PublicFacts, Ledger, float | None], Plan] | None
    training_cost: Callable[[PublicFacts, Plan | None], Cost]
    answer_cost: Callable[[PublicFacts, Plan | None, int], Cost]
    release: Callable[[Array, Plan | None, NoiseSource], Array]
    worst_pair: Callable[[PublicFacts, int], tuple[Array, Array]] | None
    shards: int | None = None
    way: str = ""
    learns: bool = False
