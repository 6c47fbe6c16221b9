"""What it costs: mechanisms, their price, and the ledger that covers it or refuses."""

from fedkd.privacy.ledger import BudgetExhausted, Ledger
from fedkd.privacy.mechanism import Cost, Mechanism, PublicFacts

__all__ = ["BudgetExhausted", "Cost", "Ledger", "Mechanism", "PublicFacts"]
