"""Keeps what a population of patients may still pay: replayed from the log, never stored apart."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

from fedkd.knowledge import BadInput
from fedkd.privacy.accounting import Accounted, accounted, edge
from fedkd.privacy.events import Cost, canonical, in_words
from fedkd.privacy.filters import (
    DEAREST,
    FILTERS,
    BudgetExhausted,
    Filter,
    NotChargeable,
    filter_of,
)

UNITS = ("patient", "record")
RELATIONS = ("replace_special",)
"""All of a unit's records are replaced by null: costs of adding or removing, a public number."""

_BEYOND = DEAREST * 2**64
"""The sum of a ledger that holds a charge which its filter cannot count."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """A privacy filter for one population of patients.

    While charges are accepted, everything that was let out together is (epsilon, delta)-DP for the
    population, however each question was chosen. What is promised is the budget: what is spent at
    a moment that answers had a say in is for display.

    `epsilon` None is an open budget: it covers everything and protects nobody. A bounded budget
    covers no cost that its filter cannot count. Without a delta it covers what is free, no more.
    """

    population: str
    epsilon: float | None = None
    delta: float | None = None
    filter: str = "gdp"
    order: float | None = None
    unit: str = "patient"
    relation: str = "replace_special"
    charged: tuple[Cost, ...] = ()
    _grains: int = field(init=False, repr=False, compare=False)
    """The sum of `charged`, kept beside it so that a charge is one addition."""

    def __post_init__(self) -> None:
        for what, value, known in (
            ("filter", self.filter, FILTERS),
            ("unit", self.unit, UNITS),
            ("relation", self.relation, RELATIONS),
        ):
            if value not in known:
                raise BadInput(f"{what} {value!r}", f"one of {', '.join(known)}")
        if not isinstance(self.population, str) or not self.population:
            raise BadInput(f"population {self.population!r}", "a name, not empty")
        _expect_number("epsilon", self.epsilon, 0, math.inf)
        _expect_number("delta", self.delta, math.ulp(0.0), math.nextafter(1.0, 0.0))
        if self.epsilon and self._filter().limit(self.epsilon) == 0:
            raise BadInput(
                f"order {self.order} for epsilon {self.epsilon:g} at delta {self.delta}, which "
                "turning a divergence at that order into epsilon already exceeds",
                "an order at which something can be spent",
                "let the plan choose the order, or take more epsilon",
            )
        object.__setattr__(self, "_grains", self._sum(self.charged))

    @classmethod
    def opened(cls, body: Mapping[str, Any]) -> "Ledger":
        """The ledger that an opening record opens; `BadInput` where it is no such record.

        Records of earlier versions name no filter, unit or relation, and have an open budget.
        """
        names = ("population", "epsilon", "delta", "filter", "order", "unit", "relation")
        given = {name: body[name] for name in names if name in body}
        if "population" not in given or "epsilon" not in given:
            raise BadInput(
                f"an opening record with {', '.join(sorted(map(str, body))) or 'nothing'}",
                "at least population, epsilon and delta",
            )
        if given["epsilon"] is not None and given.get("delta") is None:
            raise BadInput(
                f"epsilon {given['epsilon']} and no delta",
                "both",
                "take a delta below one over the number of patients",
            )
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """The opening record: all that was fixed when the budget was opened."""
        return {
            "population": self.population,
            "unit": self.unit,
            "relation": self.relation,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "filter": self.filter,
            "order": self.order,
        }

    def charge(self, cost: Cost) -> "Ledger":
        """The ledger after `cost`, or `BudgetExhausted`: then nothing was charged."""
        if self.epsilon is None:
            return self._after((cost,), 0)
        price = self._price(cost)
        if not self._fits(price):
            raise BudgetExhausted(
                f"a cost of {in_words(cost)} with epsilon {self.spent():.6g} spent of "
                f"{self.epsilon:g}",
                f"a cost that the rest of the budget of {self.population} covers: filter "
                f"{self.filter}, epsilon {self.left():.6g} for one plan",
                "more noise or fewer steps cost less; what is spent never comes back",
            )
        return self._after((cost,), price)

    def covers(self, cost: Cost) -> bool:
        """Whether `charge` would accept this cost now."""
        try:
            return self.epsilon is None or self._fits(self._price(cost))
        except NotChargeable:
            return False

    def replay(self, costs: Iterable[Cost]) -> "Ledger":
        """The ledger after costs that were charged before, as the log remembers them.

        Nothing is refused here: it has happened. Where it was more than the budget covers, or
        cannot be counted, nothing is left.
        """
        costs = tuple(costs)
        return self._after(costs, self._sum(costs))

    def spent(self) -> float:
        """The epsilon, in nats, that the charges come to under the ledger's own filter.

        At most the budget while no charge passed it. For display: at a moment that depended on
        answers it is no (epsilon, delta) claim (Rogers, Roth, Ullman, Vadhan, 2016,
        arXiv:1605.08294); the budget is. Infinite under an open budget, once anything was paid.
        """
        if self.epsilon is None:
            return math.inf if any(_costs_something(cost) for cost in self.charged) else 0.0
        if self._grains == 0:
            return 0.0
        if self._grains >= _BEYOND or self.delta is None:
            return math.inf
        spent = self._filter().epsilon(self._grains)
        return min(spent, self.epsilon) if self._grains <= self._limit() else spent

    def spent_by(self, accountant: str = "pld") -> Accounted | None:
        """The same charges as one plan, fixed beforehand: often less, and labelled so.

        None where they cannot be counted that way. No filter: it says nothing about what was
        chosen on the way.
        """
        if accountant not in ("pld", "rdp"):
            raise BadInput(f"accountant {accountant!r}", "pld or rdp")
        if self.delta is None:
            return None
        try:
            return accounted(self.charged, self.delta, "rdp" if accountant == "rdp" else "pld")
        except BadInput:
            return None

    def left(self) -> float:
        """The epsilon, in nats, that this budget has left for one more plan; 0: nothing.

        Under `gdp` squares of mu add up, so that budget 4 with 2 spent has 3.28 left; under `rdp`
        it is the budget minus `spent`, in which the conversion to epsilon is paid but once. A plan
        whose noise is solved for it, under the same filter, is accepted.
        """
        if self.epsilon is None:
            return math.inf
        rest = self._limit() - self._grains
        if rest <= 0 or self.delta is None:
            return 0.0
        if self._grains == 0:
            return self.epsilon
        limit = self._filter().limit
        covered = edge(0.0, self.epsilon, lambda epsilon: limit(epsilon) <= rest)
        return (
            covered if self.filter == "gdp" else max(0.0, min(covered, self.epsilon - self.spent()))
        )

    def _fits(self, price: int) -> bool:
        return self._grains + price <= self._limit()

    def _filter(self) -> Filter:
        """At the ledger's delta; where it has none, nothing above a price of 0 is covered."""
        return filter_of(self.filter, self.delta or 0.5, self.order)

    def _limit(self) -> int:
        if not self.epsilon or self.delta is None:
            return 0
        return self._filter().limit(self.epsilon)

    def _price(self, cost: Cost) -> int:
        """In grains; `NotChargeable` also where it is no cost, so that a bad one is refused."""
        try:
            read = canonical(cost)
        except BadInput as error:
            raise NotChargeable(error.found, error.expected, error.remedy) from None
        return self._filter().price(read)

    def _sum(self, costs: Iterable[Cost]) -> int:
        if self.epsilon is None:
            return 0
        total = 0
        for cost in costs:
            try:
                total += self._price(cost)
            except NotChargeable:
                total += _BEYOND
        return total

    def _after(self, costs: tuple[Cost, ...], price: int) -> "Ledger":
        after: Ledger = object.__new__(type(self))
        for one in fields(self):
            object.__setattr__(after, one.name, getattr(self, one.name))
        object.__setattr__(after, "charged", (*self.charged, *costs))
        object.__setattr__(after, "_grains", self._grains + price)
        return after


def _costs_something(cost: Cost) -> bool:
    return cost.get("event") != "NoOp"


def _expect_number(what: str, value: object, low: float, high: float) -> None:
    if value is None:
        return
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and low <= number <= high):
        raise BadInput(f"{what} {value!r}", f"a finite number in [{low:g}, {high:g}], or null")
