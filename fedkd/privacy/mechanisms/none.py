"""Protects nobody: answers leave as the model gives them. NOT PRIVATE, and said everywhere."""

from fedkd.knowledge import Array
from fedkd.privacy.events import Cost
from fedkd.privacy.mechanism import Mechanism, Plan, PublicFacts
from fedkd.privacy.noise import NoiseSource

NON_PRIVATE: Cost = {"event": "NonPrivate"}
"""What dp_accounting calls NonPrivateDpEvent: epsilon is infinite."""


def none() -> Mechanism:
    """No protection: every new question costs everything, and only an open budget covers it."""

    def training_cost(facts: PublicFacts, plan: Plan | None) -> Cost:
        return NON_PRIVATE

    def answer_cost(facts: PublicFacts, plan: Plan | None, queries: int) -> Cost:
        return NON_PRIVATE

    def release(said: Array, plan: Plan | None, noise: NoiseSource) -> Array:
        return said

    return Mechanism(
        name="none",
        private=False,
        filter="gdp",
        unit="patient",
        speaker="ordinary",
        cost_at=None,
        plan=None,
        training_cost=training_cost,
        answer_cost=answer_cost,
        release=release,
        worst_pair=None,
    )
