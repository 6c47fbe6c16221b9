"""Pays for a turn at a site: each cost is charged to the ledger, on disk, before its effect."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedkd.audit import Log
from fedkd.federation.site import SiteSettings
from fedkd.knowledge import BadInput
from fedkd.privacy import BudgetExhausted, Cost, Ledger, Mechanism, PublicFacts, TrainingPlan
from fedkd.wire import Question


@dataclass(frozen=True, slots=True)
class Paid:
    """A training that was paid for: the key of the entry that says so, and the plan it paid."""

    charge: str
    plan: TrainingPlan


class Purse:
    """What a population may still pay, replayed from the site's own log each time."""

    def __init__(
        self, log: Log, settings: SiteSettings, mechanism: Mechanism, facts: PublicFacts
    ) -> None:
        self._log, self._settings = log, settings
        self._mechanism, self._facts = mechanism, facts

    def ledger(self) -> Ledger:
        """The ledger as the log remembers it: its opening, and all that was charged since."""
        return ledger_of(self._log, self._settings.population)

    def pay(self, question: Question, *, trained: bool) -> Paid | None:
        """Charges what this question costs that was not charged before, or raises.

        `trained` says that the speaker of this run is kept. Where it is not, its training is
        charged, once more if a process died on the way: what was spent never comes back. Returns
        what a private training may now use; `BudgetExhausted` where the ledger does not cover it,
        and then nothing was charged at all.
        """
        ledger = self.ledger()
        charges: list[tuple[str, Cost, TrainingPlan | None]] = []
        training = f"{question.run}/train/charge"
        paid: Paid | None = None
        if self._mechanism.plan is None:
            if self._log.entry(training) is None:
                cost = self._mechanism.training_cost(self._facts, None)
                charges.append((training, cost, None))
        elif not trained:
            attempts = 1
            while self._log.entry(training) is not None:
                attempts += 1
                training = f"{question.run}/train/charge/{attempts}"
            plan = self._planned(ledger)
            charges.append((training, self._mechanism.training_cost(self._facts, plan), plan))
            paid = Paid(training, plan)
        if not question.closing and self._log.entry(f"{question.key}/charge") is None:
            cost = self._mechanism.answer_cost(self._facts, question.size)
            charges.append((f"{question.key}/charge", cost, None))
        for _, cost, _ in charges:
            ledger = ledger.charge(cost)
        with self._log.writing():
            for key, cost, planned in charges:
                self._log.append(key, "budget.charged", self._body(question, cost, planned))
        return paid

    def _planned(self, ledger: Ledger) -> TrainingPlan:
        assert self._mechanism.plan is not None  # noqa: S101 - `pay` has seen to it
        if ledger.left() <= 0:
            raise BudgetExhausted(
                f"a budget of {ledger.population} with nothing left", "one that covers a training"
            )
        try:
            return self._mechanism.plan(self._facts, ledger, self._settings.plan_epsilon)
        except BadInput as error:
            raise BudgetExhausted(error.found, error.expected, error.remedy) from None

    def _body(self, question: Question, cost: Cost, plan: TrainingPlan | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "population": self._settings.population,
            "cost": dict(cost),
            "question": question.key,
        }
        return body if plan is None else {**body, "plan": plan.to_json()}


def ledger_of(log: Log, population: str) -> Ledger:
    """The ledger of a population, replayed from the log that opened it."""
    opened = log.entry(f"budget/{population}")
    if opened is None:
        raise KeyError(f"found no budget of {population} in the log, expected budget.opened")
    return Ledger.opened(opened.body).replay(
        entry.body["cost"]
        for entry in log.entries("budget.charged")
        if entry.body["population"] == population
    )


def opening(settings: SiteSettings, mechanism: Mechanism, facts: PublicFacts) -> Mapping[str, Any]:
    """The opening record of a site's budget: what is fixed before anything is spent.

    The order of an `rdp` filter is the one that suits the plan; it stays for the budget's life.
    """
    from fedkd.privacy.planning import best_order_for, default_delta, expect_delta

    epsilon, delta, order = settings.epsilon, settings.delta, None
    unit = "patient"
    if epsilon is not None:
        delta = default_delta(facts.patients) if delta is None else delta
        expect_delta(delta, facts.patients)
        if mechanism.filter == "rdp" and mechanism.cost_at is not None:
            cost_at = mechanism.cost_at
            order = best_order_for(lambda noise: cost_at(facts, noise), epsilon, delta)
        unit = mechanism.unit
    ledger = Ledger(
        settings.population, epsilon, delta, filter=mechanism.filter, order=order, unit=unit
    )
    ledger = Ledger.opened(ledger.to_json())
    return {**ledger.to_json(), "rehearsal": settings.rehearsal, "patients": facts.patients}
