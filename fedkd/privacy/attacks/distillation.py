"""Attacks a copy: all that the attacker sees is what was answered to the queries of a run."""

from collections.abc import Callable
from typing import TypeAlias

from fedkd.knowledge import Array
from fedkd.privacy.attacks.lira import Fit, Speaker

Distil: TypeAlias = Callable[[Array, int], Speaker]
"""Trains a copy on answers [Q, C] to the queries, with a seed -> what the copy answers."""


def through_a_copy(fit: Fit, queries: Array, distil: Distil) -> Fit:
    """As `fit`, but heard through a copy: LiRA on it is LiRA on released answers alone.

    Each shadow answers `queries` [Q, ...], a copy learns that, and the copy is what is asked about
    records. The target is to be heard in the same way. Distillation LiRA, 2502.08001.
    """

    def fit_copy(member: Array, seed: int) -> Speaker:
        return distil(fit(member, seed)(queries), seed)

    return fit_copy
