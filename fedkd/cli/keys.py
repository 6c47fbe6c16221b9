"""Declares the top-level configuration keys: what type each value has, and in which range."""

from dataclasses import dataclass
from typing import Annotated

from fedkd.knowledge import OneOf, Range

Positive = Annotated[int, Range(1, None)]
# Above these a site refuses (federation/site.py, Accepts); the closing question is one more round.
Rounds = Annotated[int, Range(1, 9_999)]
Epochs = Annotated[int, Range(0, 10_000)]
Batch = Annotated[int, Range(1, 100_000)]
Queries = Annotated[int, Range(1, 1_000_000)]
Rate = Annotated[float, Range(1e-8, 10.0)]
Share = Annotated[float, Range(0.0, 1.0)]


@dataclass(frozen=True, slots=True)
class Sites:
    """Where the sites keep their state; `dir` None: inside the run, as a rehearsal in any case.

    `rehearsal` false: lasting sites whose budgets are papers that their officers signed.
    """

    dir: str | None
    rehearsal: bool = True


@dataclass(frozen=True, slots=True)
class Clients:
    """Who takes part: `count` None means as many as the data have sites."""

    count: Positive | None
    models: list[str]
    cohort: Annotated[str, OneOf(("off", "auto"))]
    fraction: Annotated[float, Range(0.01, 1.0)]


@dataclass(frozen=True, slots=True)
class Training:
    """How a hospital learns; `steps` says whether an epoch passes over records or lesson."""

    local_epochs: Epochs
    lesson_epochs: Epochs
    batch: Batch
    learning_rate: Rate
    weight_decay: Share
    steps: Annotated[str, OneOf(("records", "lesson", "longest"))]


@dataclass(frozen=True, slots=True)
class Student:
    """How the server's student learns; `model` None means the data's reference model."""

    model: str | None
    epochs: Epochs
    batch: Batch
    learning_rate: Rate
    weight_decay: Share


@dataclass(frozen=True, slots=True)
class Budget:
    """What a site's ledger may spend in its lifetime."""

    epsilon: Annotated[float, Range(1e-6, None)] | None
    delta: Annotated[float, Range(1e-15, 0.1)] | None


@dataclass(frozen=True, slots=True)
class Baselines:
    """What is trained beside the federation for comparison: pooled records, and FedAvg."""

    enabled: bool
    fedavg_rounds: Rounds
    fedavg_learning_rates: list[Rate] | None
    fedavg_local_epochs: list[Annotated[int, Range(1, 10_000)]]


@dataclass(frozen=True, slots=True)
class Audit:
    """Who cosigns whose log, how many of them suffice, and for how many seconds their word holds.

    `threshold` None lets one cosigner of each log be absent. With `cosigners` 0 nobody cosigns.
    """

    cosigners: Annotated[int, Range(0, 32)]
    threshold: Positive | None
    most_age: Annotated[int, Range(1, None)]
    mldsa: bool


@dataclass(frozen=True, slots=True)
class Configuration:
    """The keys that are no group."""

    seed: Annotated[int, Range(0, 2**32 - 1)]
    rounds: Rounds
    out: str | None
    engine: Annotated[str, OneOf(("inprocess", "ray"))]
    device: Annotated[str, OneOf(("cpu",))]  # others are not tried
    quorum: Annotated[float, Range(0.01, 1.0)]
    deadline: Annotated[float, Range(0.1, None)]
    sites: Sites
    clients: Clients
    training: Training
    student: Student
    budget: Budget
    baselines: Baselines
    audit: Audit
    report: bool = True


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: `data` and `path` belong to `query=mismatched`."""

    kind: Annotated[str, OneOf(("public", "mismatched", "synthetic"))]
    size: Queries
    data: str | None
    path: str | None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a site is taught of the consensus."""

    kind: Annotated[str, OneOf(("plain", "minimum_subtracted"))]


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong on purpose: at which share of the sites, in which rounds (None: all)."""

    kind: Annotated[str, OneOf(("none", "dropout", "late", "crash", "nonsense"))]
    fraction: Share
    rounds: list[Positive] | None


@dataclass(frozen=True, slots=True)
class DataExtras:
    """Keys of a data yaml that are not its source's arguments."""

    records: Positive | None = None
    validation: Annotated[float, Range(0.0, 0.9)] | None = None
    test_size: Positive | Annotated[float, Range(0.01, 0.9)] | None = None
    reference_model: str | None = None


@dataclass(frozen=True, slots=True)
class MechanismExtras:
    """Keys of a mechanism yaml that are not its function's arguments: what this plan may spend."""

    epsilon: Annotated[float, Range(1e-6, None)] | None = None


@dataclass(frozen=True, slots=True)
class LossExtras:
    """Keys of a loss yaml that are not its function's arguments."""

    weight: Annotated[float, Range(0.0, 100.0)] = 1.0
    temperature: Annotated[float, Range(0.05, 50.0)] = 1.0


PLAIN_GROUPS: dict[str, type] = {
    "query": Query,
    "lesson": Lesson,
    "faults": Faults,
}
"""Groups whose yaml needs no `_target_`."""

EXTRAS: dict[str, type] = {
    "data": DataExtras,
    "loss": LossExtras,
    "mechanism": MechanismExtras,
}
"""What a group's yaml may hold beside its target's arguments."""

GROUPS = (
    "partition",
    "query",
    "aggregate",
    "filter",
    "gate",
    "generator",
    "codec",
    "lesson",
    "loss",
    "mechanism",
    "faults",
    "data",
)
"""The groups that are chosen by `group=name`; conf/model is named inside other keys."""

OPTIONAL_GROUPS = ("gate", "generator", "filter")
"""Groups that may be absent from a configuration: nothing of the kind is used."""
