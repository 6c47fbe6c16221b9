"""Protects nobody: answers leave as the model gives them. NOT PRIVATE, and said everywhere."""

from fedkd.knowledge import Array
from fedkd.privacy.mechanism import Cost, Mechanism, PublicFacts, Rng

NON_PRIVATE: Cost = {"event": "NonPrivateDpEvent"}
"""What dp_accounting calls the cost of a release without protection: epsilon is infinite."""


def none() -> Mechanism:
    """No protection: every new question costs everything, and only an open budget covers it."""

    def training_cost(facts: PublicFacts) -> Cost:
        return NON_PRIVATE

    def answer_cost(facts: PublicFacts, queries: int) -> Cost:
        return NON_PRIVATE

    def release(said: Array, rng: Rng) -> Array:
        return said

    return Mechanism("none", False, training_cost, answer_cost, release)
