"""What it costs: mechanisms, their price, and the ledger that covers it or refuses."""

from fedkd.privacy.events import Cost
from fedkd.privacy.filters import BudgetExhausted, NotChargeable
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.mechanism import Mechanism, PublicFacts, TrainingPlan

__all__ = [
    "BudgetExhausted",
    "Cost",
    "Ledger",
    "Mechanism",
    "NotChargeable",
    "PublicFacts",
    "TrainingPlan",
]
