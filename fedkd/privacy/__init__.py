"""What it costs: mechanisms, their price, and the ledger that covers it or refuses."""

from fedkd.privacy.events import Cost
from fedkd.privacy.filters import BudgetExhausted, NotChargeable
from fedkd.privacy.ledger import Ledger
from fedkd.privacy.mechanism import AnswerPlan, Mechanism, Plan, PublicFacts, TrainingPlan

__all__ = [
    "AnswerPlan",
    "BudgetExhausted",
    "Cost",
    "Ledger",
    "Mechanism",
    "NotChargeable",
    "Plan",
    "PublicFacts",
    "TrainingPlan",
]
