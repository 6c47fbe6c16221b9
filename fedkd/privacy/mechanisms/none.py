"""Protects nobody: answers leave as the model gives them. NOT PRIVATE, and said everywhere."""

from fedkd.knowledge import Array
from fedkd.privacy.events import Cost
from fedkd.privacy.mechanism import Mechanism, PublicFacts, Rng, TrainingPlan

NON_PRIVATE: Cost = {"event": "NonPrivate"}
"""What dp_accounting calls NonPrivateDpEvent: epsilon is infinite."""


def none() -> Mechanism:
    """No protection: every new question costs everything, and only an open budget covers it."""

    def training_cost(facts: PublicFacts, plan: TrainingPlan | None) -> Cost:
        return NON_PRIVATE

    def answer_cost(facts: PublicFacts, queries: int) -> Cost:
        return NON_PRIVATE

    def release(said: Array, rng: Rng) -> Array:
        return said

    return Mechanism(
        "none", False, "gdp", "patient", None, None, training_cost, answer_cost, release
    )
