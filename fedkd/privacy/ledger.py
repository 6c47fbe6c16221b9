"""Keeps what a population of patients may still pay: replayed from the log, never stored apart."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fedkd.privacy.mechanism import Cost


class BudgetExhausted(Exception):
    """The budget does not cover this cost: nothing was charged, nothing was said."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """A privacy filter for one population of patients.

    `epsilon` None is an open budget: it covers everything and protects nobody. A bounded budget
    covers no cost that this version cannot count, and it can count none yet: it fails closed.
    """

    population: str
    epsilon: float | None = None
    delta: float | None = None
    charged: tuple[Cost, ...] = ()

    def charge(self, cost: Cost) -> "Ledger":
        """The ledger after `cost`, or `BudgetExhausted`."""
        if self.epsilon is not None:
            raise BudgetExhausted(
                f"found cost {cost.get('event')!r} against epsilon {self.epsilon:g}, expected a "
                f"cost that the budget of {self.population} covers"
            )
        return replace(self, charged=(*self.charged, cost))

    def replay(self, costs: Iterable[Cost]) -> "Ledger":
        """The ledger after costs that were charged before, as the log remembers them."""
        return replace(self, charged=(*self.charged, *costs))
