"""Says an epsilon together with all that makes it a claim: a missing field is no claim."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import UnionType
from typing import Any, get_args

from fedkd.knowledge import BadInput
from fedkd.privacy.filters import FILTERS
from fedkd.privacy.ledger import RELATIONS, UNITS
from fedkd.privacy.risk import in_words

HANDLED = ("public", "charged", "NOT charged")
SYSTEM_NOISE = "the operating system's entropy, through a cryptographic generator"
REHEARSAL_NOISE = (
    "not private: rehearsal noise, drawn from a seed; whoever knows the seed can take it away"
)
NOT_ATTACKED = "not attacked"
ROUNDING = 1 + 1e-9
"""How far a display of what is spent may lie above the budget: only the last bits."""


class NoClaim(BadInput):
    """What has to be said beside an epsilon is missing: then the epsilon is not said either."""


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
class Use:
    """One use of a mechanism that was paid for, with its numbers as it was run.

    Where a mechanism has no such number (no clip, no noise multiplier), words say so.
    """

    run: str
    mechanism: str
    sensitivity: str
    noise_multiplier: float | str
    clip: float | str
    sampling_rate: float
    steps: int
    """Noised releases of this use: gradient steps, or batches of answers."""
    sampling: str
    """How samples were drawn, as it was run."""

    def __post_init__(self) -> None:
        _expect_all_said(self)
        for what, value, most in (
            ("noise_multiplier", self.noise_multiplier, math.inf),
            ("clip", self.clip, math.inf),
            ("sampling_rate", self.sampling_rate, 1),
            ("steps", self.steps, math.inf),
        ):
            if not isinstance(value, str):
                _expect_between(what, value, math.ulp(0), most)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The log that a claim rests on, as it was when the claim was made: its name, size and root."""

    origin: str
    size: int
    root: str

    def __post_init__(self) -> None:
        _expect_all_said(self)
        _expect_between("evidence, size", self.size, 1, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What has to be said beside any (epsilon, delta), all of it: a missing field is no claim.

    `epsilon` (nats) and `delta` are those of the budget: the guarantee. `spent` is what the
    charges come to under the ledger's filter, for display alone, since at a moment that depended
    on answers it bounds nothing. What does not apply is said so in words; nothing is left empty,
    save `uses` of a budget of which nothing is spent. After NIST SP 800-226, 2025, Guidelines for
    evaluating differential privacy guarantees.
    """

    epsilon: float
    delta: float
    spent: float
    unit: str
    """patient | record."""
    units: int
    """How many there are: public under this relation."""
    records_per_unit: str
    """How many records one unit may have, and how they are bounded."""
    relation: str
    not_protected: tuple[str, ...]
    """What this says nothing about: traits of the population, other hospitals, ..."""
    trust: str
    """Who is trusted with what, and who is not."""
    uses: tuple[Use, ...]
    accountant: str
    accountant_version: str
    filter: str
    order: float | str
    """The Renyi order at which `rdp` adds; in words under `gdp`, which has none."""
    runs: tuple[str, ...]
    period: str
    population: str
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
    evidence: Evidence

    def __post_init__(self) -> None:
        _expect_all_said(self, may_be_empty=("uses",) if self.spent == 0 else ())
        for name, known in (("unit", UNITS), ("relation", RELATIONS), ("filter", FILTERS)):
            if getattr(self, name) not in known:
                raise NoClaim(f"{name} {getattr(self, name)!r}", f"one of {', '.join(known)}")
        for what, number, low, high in (
            ("epsilon", self.epsilon, math.ulp(0), math.inf),
            ("units", self.units, 1, math.inf),
            ("delta", self.delta, math.ulp(0), math.nextafter(1 / max(self.units, 1), 0)),
            ("spent", self.spent, 0, self.epsilon * ROUNDING),
            ("order", self.order, math.nextafter(1, 2), math.inf),
            ("refusals", self.refusals, 0, math.inf),
        ):
            if not isinstance(number, str):
                _expect_between(what, number, low, high)
        if isinstance(self.order, str) is (self.filter == "rdp"):
            raise NoClaim(f"order {self.order!r} under filter {self.filter}", "a number under rdp")

    @classmethod
    def from_json(cls, body: object) -> "Claim":
        """The claim in a record; `NoClaim` names every field that is missing or unknown."""
        read = _fields_of(cls, body, "a claim")
        for name in ("not_protected", "runs"):
            read[name] = _list(name, read[name])
        for name, kind in (("uses", Use), ("preprocessing", Preparation), ("tuning", Preparation)):
            steps = _list(name, read[name])
            read[name] = tuple(kind(**_fields_of(kind, step, name)) for step in steps)
        read["evidence"] = Evidence(**_fields_of(Evidence, read["evidence"], "evidence"))
        return cls(**read)

    def to_json(self) -> dict[str, Any]:
        """The claim as plain data, to travel with its figure."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @property
    def is_rehearsal(self) -> bool:
        """Whether its noise can be drawn again by whoever knows a seed: it protects nobody yet."""
        return self.noise_source.startswith("not private")

    def sentence(self) -> str:
        """The claim in a paragraph for a data protection officer: the bound, the risk, the gaps."""
        steps = (*self.preprocessing, *self.tuning)
        unpaid = [step.what for step in steps if step.handled == "NOT charged"]
        paid = f" NOT charged, and so outside it: {'; '.join(unpaid)}." if unpaid else ""
        return (
            f"{self.headline()} {in_words(self.epsilon, self.delta, self.filter, self.unit)} "
            f"One {self.unit}: {self.records_per_unit}. Trusted: {self.trust}. "
            f"It says nothing about {'; '.join(self.not_protected)}. "
            f"{_capital(self.several_sites)}.{paid} Attacks: {self.audit}."
        )

    def headline(self) -> str:
        """The bound in one sentence, with what is spent of it and where its noise comes from."""
        rehearsal = f" {_capital(self.noise_source)}." if self.is_rehearsal else ""
        return (
            f"At most epsilon {self.epsilon:.4g} at delta {self.delta:.2g}, ever, for each "
            f"{self.unit} of {self.population}; {self.spent:.4g} of it is spent so far "
            f"(for display: the budget is what is promised).{rehearsal}"
        )


_KINDS: Mapping[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("words", lambda value: isinstance(value, str) and bool(value.strip())),
    int: ("an integer", lambda value: isinstance(value, Integral)),
    float: ("a number", lambda value: isinstance(value, Real)),
    Evidence: ("origin, size and root of a log", lambda value: isinstance(value, Evidence)),
    tuple[str, ...]: ("a list of words, not empty", lambda value: _all_are(str, value)),
    tuple[Preparation, ...]: ("a list of steps, not empty", lambda v: _all_are(Preparation, v)),
    tuple[Use, ...]: ("a list of uses, not empty", lambda value: _all_are(Use, value)),
}


def _all_are(kind: type, value: object) -> bool:
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(isinstance(one, kind) and one != "" for one in value)
    )


def _expect_all_said(record: Any, may_be_empty: tuple[str, ...] = ()) -> None:
    for one in fields(record):
        value = getattr(record, one.name)
        if not (one.name in may_be_empty and value == ()):
            _expect_said(one.name, value, one.type)


def _expect_said(name: str, value: object, kind: Any) -> None:
    """`kind` is the annotation of a field; a truth value is no number."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    said = [_KINDS[one] for one in kinds]
    if isinstance(value, bool) or not any(is_said(value) for _, is_said in said):
        raise NoClaim(
            f"{name} {value!r:.80}",
            " or ".join(what for what, _ in said),
            "say what is missing, in words where there is no number, or say no epsilon",
        )


def _expect_between(what: str, number: float, low: float, high: float) -> None:
    if not (math.isfinite(number) and low <= number <= high):
        raise NoClaim(f"{what} {number!r}", f"a finite number in [{low:g}, {high:g}]")


def _fields_of(kind: type, body: object, what: str) -> dict[str, Any]:
    names = {one.name for one in fields(kind)}
    given = body if isinstance(body, Mapping) else {}
    if set(given) != names:
        missing, unknown = sorted(names - set(given)), sorted(map(str, set(given) - names))
        raise NoClaim(
            f"{what} without {', '.join(missing) or 'gaps'}, with unknown fields: "
            f"{', '.join(unknown) or 'none'}",
            "every field, and no other",
            "say what is missing, or say no epsilon",
        )
    return dict(given)


def _list(name: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise NoClaim(f"{name} {value!r:.80}", "a list")
    return tuple(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Claim | Use | Preparation | Evidence):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
