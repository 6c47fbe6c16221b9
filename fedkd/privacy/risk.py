"""Says what an epsilon means to a person, beside all that makes it a claim."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from scipy.special import ndtr, ndtri

from fedkd.knowledge import BadInput
from fedkd.privacy.accounting import mu_of_epsilon
from fedkd.privacy.filters import FILTERS
from fedkd.privacy.ledger import RELATIONS, UNITS


def recognised(epsilon: float, delta: float, filter: str, false_alarms: float = 0.01) -> float:
    """The share of members, at most, that an attacker tells apart from those who were left out.

    `false_alarms` is the share of those left out whom he takes for members. It bounds every
    attacker who sees all that was let out and knows all other records. Under `gdp` the trade-off
    is the Gaussian one (Dong, Roth, Su, 2022, arXiv:1905.02383, equation 6): Phi(Phi^-1(f) + mu).
    Any (epsilon, delta) gives min(e^epsilon f + delta, 1 - e^-epsilon (1 - delta - f)) (Kairouz,
    Oh, Viswanath, 2015, arXiv:1311.0776).
    """
    _expect_claimable(epsilon, delta)
    if not 0 <= false_alarms <= 1:
        raise BadInput(f"a share {false_alarms!r} of false alarms", "a number in [0, 1]")
    if filter not in FILTERS:
        raise BadInput(f"filter {filter!r}", f"one of {', '.join(FILTERS)}")
    low = math.exp(min(epsilon, 700.0)) * false_alarms + delta
    high = 1 - math.exp(-epsilon) * (1 - delta - false_alarms)
    general = min(1.0, low, high)
    if filter != "gdp":
        return general
    if false_alarms in (0.0, 1.0):
        return false_alarms
    mu = mu_of_epsilon(epsilon, delta)
    return min(general, float(ndtr(ndtri(false_alarms) + mu)))


def in_words(epsilon: float, delta: float, filter: str, unit: str = "patient") -> str:
    """Two sentences for a data protection officer: whom an attacker recognises, and the odds."""
    caught = 100 * recognised(epsilon, delta, filter)
    return (
        f"Of 100 {unit}s whose data were used, an attacker recognises at most {caught:.1f} if he "
        f"accepts one false alarm in 100. {odds_in_words(epsilon, delta)}"
    )


def odds_in_words(epsilon: float, delta: float) -> str:
    """What (epsilon, delta) means, in the only words that it supports."""
    _expect_claimable(epsilon, delta)
    times = math.exp(min(epsilon, 700.0))
    fold = f"{times:.2f}" if times < 100 else f"{times:.3g}"
    return (
        f"The odds that somebody took part rise at most {fold}-fold (e^{epsilon:g}), save with "
        f"probability about {delta:.2g}."
    )


def _expect_claimable(epsilon: float, delta: float) -> None:
    if isinstance(epsilon, bool) or not (0 <= epsilon < math.inf) or not 0 < delta < 1:
        raise BadInput(
            f"epsilon {epsilon!r} at delta {delta!r}",
            "a finite epsilon of at least 0 and a delta in (0, 1)",
            "an open budget bounds no risk: say NOT PRIVATE",
        )


class NoClaim(BadInput):
    """What has to be said beside an epsilon is missing: then the epsilon is not said either."""


HANDLED = ("public", "charged", "NOT charged")


@dataclass(frozen=True, slots=True)
class Preparation:
    """A step before or around training, and whether the records that it saw were paid for."""

    what: str
    handled: str

    def __post_init__(self) -> None:
        _expect_said("preparation, what", self.what, str)
        if self.handled not in HANDLED:
            raise NoClaim(f"preparation handled {self.handled!r}", f"one of {', '.join(HANDLED)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What has to be said beside any (epsilon, delta), all of it: a missing field is no claim.

    After NIST SP 800-226, 2025, Guidelines for evaluating differential privacy guarantees. What
    does not apply is said so in words; nothing is left empty. Epsilons are in nats.
    """

    epsilon: float
    delta: float
    unit: str
    """patient | record."""
    records_per_unit: str
    """How many records one unit may have, and how they are bounded."""
    relation: str
    not_protected: tuple[str, ...]
    """What this says nothing about: traits of the population, other hospitals, ..."""
    trust: str
    """Who is trusted with what, and who is not."""
    mechanism: str
    sensitivity: str
    noise_multiplier: float
    clip: float | str
    """The norm of one unit's contribution; in words where the mechanism has no clip."""
    sampling_rate: float
    steps: int
    sampling: str
    """How samples were drawn, as it was run."""
    accountant: str
    accountant_version: str
    runs: tuple[str, ...]
    period: str
    population: str
    budget_epsilon: float
    budget_delta: float
    filter: str
    refusals: int
    """How often the ledger refused."""
    preprocessing: tuple[Preparation, ...]
    tuning: tuple[Preparation, ...]
    noise_source: str
    audit: str
    """Which attacks were run and what they found; an attack refutes or is silent."""
    subgroup_utility: str
    several_sites: str
    """What holds for somebody whose records are at more than one site."""
    evidence: tuple[str, ...]
    """Entries of the log that this rests on."""

    def __post_init__(self) -> None:
        for one in fields(self):
            _expect_said(one.name, getattr(self, one.name), one.type)
        for name, known in (("unit", UNITS), ("relation", RELATIONS), ("filter", FILTERS)):
            if getattr(self, name) not in known:
                raise NoClaim(f"{name} {getattr(self, name)!r}", f"one of {', '.join(known)}")
        for what, number, low, high in (
            ("epsilon", self.epsilon, 0, math.inf),
            ("delta", self.delta, math.ulp(0), 1),
            ("noise_multiplier", self.noise_multiplier, math.ulp(0), math.inf),
            ("clip", self.clip if not isinstance(self.clip, str) else 1, math.ulp(0), math.inf),
            ("sampling_rate", self.sampling_rate, math.ulp(0), 1),
            ("steps", self.steps, 1, math.inf),
            ("refusals", self.refusals, 0, math.inf),
            ("budget_epsilon", self.budget_epsilon, self.epsilon, math.inf),
            ("budget_delta", self.budget_delta, self.delta, 1),
        ):
            if not (math.isfinite(number) and low <= number <= high):
                raise NoClaim(f"{what} {number!r}", f"a finite number in [{low:g}, {high:g}]")

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Claim":
        """The claim in a record; `NoClaim` names every field that is missing or unknown."""
        names = {one.name for one in fields(cls)}
        if set(body) != names:
            missing, unknown = sorted(names - set(body)), sorted(map(str, set(body) - names))
            raise NoClaim(
                f"a claim without {', '.join(missing) or 'gaps'}, with unknown fields: "
                f"{', '.join(unknown) or 'none'}",
                "every field of a claim, and no other",
                "say what is missing, or say no epsilon",
            )
        lists = ("not_protected", "runs", "evidence")
        read: dict[str, Any] = {
            name: tuple(body[name]) if name in lists else body[name] for name in names
        }
        for name in ("preprocessing", "tuning"):
            read[name] = tuple(Preparation(**step) for step in body[name])
        return cls(**read)

    def to_json(self) -> dict[str, Any]:
        """The claim as plain data, to travel with its figure."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def in_words(self) -> str:
        """The claim in a paragraph, for a person."""
        uncharged = [
            step.what
            for step in (*self.preprocessing, *self.tuning)
            if step.handled == "NOT charged"
        ]
        paid = f" NOT charged, and so outside it: {'; '.join(uncharged)}." if uncharged else ""
        return (
            f"Epsilon {self.epsilon:.4g} at delta {self.delta:.2g} for each {self.unit} of "
            f"{self.population} ({self.records_per_unit}), of a budget of "
            f"{self.budget_epsilon:g}, under filter {self.filter}. "
            f"{in_words(self.epsilon, self.delta, self.filter, self.unit)} "
            f"It says nothing about {'; '.join(self.not_protected)}.{paid}"
        )


_KINDS: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("words", lambda value: isinstance(value, str) and bool(value.strip())),
    int: ("an integer", lambda value: isinstance(value, Integral)),
    float: ("a number", lambda value: isinstance(value, Real)),
    tuple[str, ...]: ("a list of words, not empty", lambda value: _all_are(str, value)),
    tuple[Preparation, ...]: ("a list of steps, not empty", lambda v: _all_are(Preparation, v)),
}


def _all_are(kind: type, value: object) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(isinstance(one, kind) and one != "" for one in value)
    )


def _expect_said(name: str, value: object, kind: Any) -> None:
    """`kind` is the annotation of a field; a truth value is no number."""
    kinds = (float, str) if kind == float | str else (kind,)
    said = [_KINDS[one] for one in kinds]
    if isinstance(value, bool) or not any(is_said(value) for _, is_said in said):
        raise NoClaim(
            f"{name} {value!r:.80}",
            " or ".join(what for what, _ in said),
            "say what is missing, in words where there is no number, or say no epsilon",
        )
