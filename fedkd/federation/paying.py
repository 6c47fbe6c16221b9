"""Pays for a turn at a site: each cost is charged to the ledger, on disk, before its effect."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedkd.audit import Log
from fedkd.federation.site import SiteSettings
from fedkd.knowledge import BadInput
from fedkd.privacy import (
    AnswerPlan,
    BudgetExhausted,
    Cost,
    Ledger,
    Mechanism,
    Plan,
    PublicFacts,
    TrainingPlan,
)
from fedkd.wire import Question


@dataclass(frozen=True, slots=True)
class Paid:
    """A training that was paid for: the key of the entry that says so, and the plan it paid."""

    charge: str
    plan: TrainingPlan


@dataclass(frozen=True, slots=True)
class Batch:
    """Answers that were paid for: the key of the entry that says so, and the plan it is part of."""

    charge: str
    plan: AnswerPlan


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

    def pay(
        self, question: Question, *, trained: bool, draw: Callable[[], None] = lambda: None
    ) -> Paid | None:
        """Charges what this question costs that was not charged before, or raises.

        `trained` says that the speaker of this run is kept. Where it is not, returns what its
        training may use: one plan a run, charged once, so that a run never spends more than its
        plan. `draw` comes before that charge, and is what the training is made of if it is cut
        off and has to be done again: the same training, and not a second one. `BudgetExhausted`
        where the ledger does not cover it, and then nothing was charged at all.
        """
        ledger = self.ledger()
        charges: list[tuple[str, Cost, Plan | None]] = []
        training = f"{question.run}/train/charge"
        paid: Paid | None = None
        if self._mechanism.plan is None:
            if self._log.entry(training) is None:
                cost = self._mechanism.training_cost(self._facts, None)
                charges.append((training, cost, None))
        elif not trained and (before := self._log.entry(training)) is not None:
            paid = Paid(training, TrainingPlan(**before.body["plan"]))
        elif not trained:
            plan = self._planned(ledger)
            if not isinstance(plan, TrainingPlan):
                raise TypeError(f"found {plan!r}, expected a training")
            charges.append((training, self._mechanism.training_cost(self._facts, plan), plan))
            paid = Paid(training, plan)
        if not question.closing and self._log.entry(f"{question.key}/charge") is None:
            cost = self._mechanism.answer_cost(self._facts, None, question.size)
            charges.append((f"{question.key}/charge", cost, None))
        for _, cost, _ in charges:
            ledger = ledger.charge(cost)
        if paid is not None and self._log.entry(training) is None:
            draw()
        with self._log.writing():
            for key, cost, planned in charges:
                self._log.append(key, "budget.charged", self._body(question, cost, planned))
        return paid

    def pay_batch(self, question: Question, new: int) -> Batch | None:
        """Charges a batch of `new` queries that were never answered, or raises; None where free.

        A run's plan is solved for what is left at its first batch, and stands in the entry of
        each. Its batches are numbered: one that was paid and then lost in a crash is not paid
        back, since nobody can tell whether it left. `BudgetExhausted` where the plan has no batch
        left, or the ledger does not cover it, and then nothing was charged.
        """
        ledger = self.ledger()
        if new == 0:
            key, body = f"{question.key}/charge", self._body(question, {"event": "NoOp"}, None)
            if self._log.entry(key) is None:
                self._log.append(key, "budget.charged", body)
            return None
        plan, number = self._current(question, ledger)
        cost = self._mechanism.answer_cost(self._facts, plan, new)
        ledger.charge(cost)
        key = _batch(question.run, number)
        body = {**self._body(question, cost, plan), "batch": number, "queries": new}
        self._log.append(key, "budget.charged", body)
        return Batch(key, plan)

    def batch(self, run: str) -> Batch | None:
        """The first batch of answers that was paid for in a run."""
        first = self._log.entry(_batch(run, 1))
        return None if first is None else Batch(first.key, AnswerPlan(**first.body["plan"]))

    def _current(self, question: Question, ledger: Ledger) -> tuple[AnswerPlan, int]:
        """The plan of this run's answers, and the number of its next batch."""
        first = self.batch(question.run)
        if first is None:
            plan = self._planned(ledger)
            if not isinstance(plan, AnswerPlan):
                raise TypeError(f"found {plan!r}, expected a plan of answers")
            return plan, 1
        plan, number = first.plan, 2
        while self._log.entry(_batch(question.run, number)) is not None:
            number += 1
        if number > plan.batches:
            raise BudgetExhausted(
                f"new queries after {number - 1} batches",
                f"at most the {plan.batches} that the plan pays for",
                "the same queries again are free; set mechanism.batches to how often new ones come",
            )
        return plan, number

    def _planned(self, ledger: Ledger) -> Plan:
        if self._mechanism.plan is None:
            raise TypeError(f"found {self._mechanism.name}, which plans nothing")
        if ledger.left() <= 0:
            raise BudgetExhausted(
                f"a budget of {ledger.population} with nothing left", "one that covers a plan"
            )
        try:
            return self._mechanism.plan(self._facts, ledger, self._settings.plan_epsilon)
        except BadInput as error:
            raise BudgetExhausted(error.found, error.expected, error.remedy) from None

    def _body(self, question: Question, cost: Cost, plan: Plan | None) -> dict[str, Any]:
        body: dict[str, Any] = {
            "population": self._settings.population,
            "cost": dict(cost),
            "question": question.key,
        }
        return body if plan is None else {**body, "plan": plan.to_json()}


def _batch(run: str, number: int) -> str:
    return f"{run}/answers/charge/{number}"


FIXED = ("unit", "relation", "delta", "filter", "order")
"""What charges were counted by: it stays as it was when a budget was first opened."""


def ledger_of(log: Log, population: str) -> Ledger:
    """The ledger of a population, replayed from the log that opened it.

    Where its officer raised or lowered it the newest opening says the limit; all charges stay.
    """
    openings = [
        entry.body
        for entry in log.entries("budget.opened")
        if entry.body["population"] == population
    ]
    if not openings:
        raise KeyError(f"found no budget of {population} in the log, expected budget.opened")
    first, newest = openings[0], openings[-1]
    for name in FIXED:
        if newest.get(name) != first.get(name):
            raise ValueError(f"found another {name} after a raise, expected {first.get(name)!r}")
    return Ledger.opened(newest).replay(
        entry.body["cost"]
        for entry in log.entries("budget.charged")
        if entry.body["population"] == population
    )


def opening(
    settings: SiteSettings,
    mechanism: Mechanism,
    facts: PublicFacts,
    signed: tuple[float | None, float | None] | None = None,
) -> Mapping[str, Any]:
    """The opening record of a site's budget: what is fixed before anything is spent.

    Epsilon and delta are the settings' in a rehearsal, else the `signed` ones of a paper.
    The order of an `rdp` filter is the one that suits the plan; it stays for the budget's life.
    """
    from fedkd.privacy.planning import best_order_for, default_delta, expect_delta

    epsilon, delta = signed or (settings.epsilon, settings.delta)
    order = None
    unit = "patient"
    if epsilon is not None:
        delta = default_delta(facts.patients) if delta is None else delta
        expect_delta(delta, facts.patients)
        if mechanism.filter == "rdp" and mechanism.cost_at is not None:
            cost_at = mechanism.cost_at
            order = best_order_for(lambda noise: cost_at(facts, noise), epsilon, delta)
        unit = mechanism.unit
        if mechanism.speaker == "any" and not facts.named:
            unit = "record"  # each is a patient of its own, as far as anybody can tell
    ledger = Ledger(
        settings.population, epsilon, delta, filter=mechanism.filter, order=order, unit=unit
    )
    ledger = Ledger.opened(ledger.to_json())
    return {**ledger.to_json(), "rehearsal": settings.rehearsal, "patients": facts.patients}
