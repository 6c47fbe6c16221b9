"""Sums up what one attack found, beside the claim: it refutes or is silent, it never certifies."""

from dataclasses import asdict, dataclass
from typing import Any

from fedkd.knowledge import Array
from fedkd.privacy.attacks.bounds import epsilon_from_counts
from fedkd.privacy.attacks.one_run import (
    epsilon_of,
    lower_bound_epsilon_of_pairs,
    lower_bound_mu_of_pairs,
)
from fedkd.privacy.attacks.scores import auc, true_positives_at

# k pairs of a member and an other.

SENTENCE = "An attack refutes a claim or is silent; it never certifies one."


@dataclass(frozen=True, slots=True)
class Claim:
    """What a run says of a site: (epsilon, delta) for a patient; epsilon None claims nothing.

    `gaussian`: it says so by mu-GDP, as the filter `gdp` does, which is to claim more.
    """

    epsilon: float | None
    delta: float
    gaussian: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One attack on one site.

    `epsilon_at_least` holds, save with probability `alpha`, for the ONE training attacked.
    `epsilon_pooled` counts its records as if each were a training of its own: a heuristic that
    refutes nothing. Both are None for a what-if: answers that the ledger never gives.
    """

    attack: str
    pairs: int
    auc: float
    tpr: float
    tpr_low: float
    tpr_high: float
    alpha: float
    epsilon_at_least: float | None
    epsilon_pooled: float | None

    def refutes(self, claim: Claim) -> bool:
        """Whether the claim cannot stand beside this finding (at level `alpha`)."""
        found = self.epsilon_at_least
        return claim.epsilon is not None and found is not None and found > claim.epsilon

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def finding(
    attack: str, scores: Array, claim: Claim, alpha: float, *, what_if: bool = False
) -> Finding:
    """What `scores` [2k] (member, other, member, other, ...) say against `claim`.

    The bound is one on epsilon at the claim's delta.
    """
    members, others = scores[0::2], scores[1::2]
    found = true_positives_at(members, others)
    at_least = pooled = None
    if not what_if:
        if claim.gaussian:
            mu = lower_bound_mu_of_pairs(members, others, alpha)
            at_least = epsilon_of(mu, claim.delta)
        else:
            at_least = lower_bound_epsilon_of_pairs(members, others, alpha, claim.delta)
        pooled = epsilon_from_counts(
            found.hits, found.members, found.false_alarms, found.others, alpha, claim.delta
        )
    return Finding(
        attack=attack,
        pairs=len(members),
        auc=auc(members, others),
        tpr=found.rate,
        tpr_low=found.interval.low,
        tpr_high=found.interval.high,
        alpha=alpha,
        epsilon_at_least=at_least,
        epsilon_pooled=pooled,
    )
