"""Scores that say how like a member a record looks, and measures of how well a score tells."""

from typing import NamedTuple

import numpy as np

from fedkd.knowledge import Array
from fedkd.knowledge.measures import auroc
from fedkd.privacy.attacks.intervals import Interval, clopper_pearson

# N records, C classes, M members, O others.

FLOOR = 1e-7
"""Shares below this are taken as this: float32 answers and vote shares say no more."""


def negative_loss(probs: Array, labels: Array) -> Array:
    """Log p(label) in nats [N], from `probs` [N, C]: a member's loss is low.

    Yeom, Giacomelli, Fredrikson and Jha, 2018, Privacy risk in machine learning, 1709.01604,
    Adversary 2; the threshold is left to whoever compares.
    """
    said = probs[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(np.log(np.maximum(said, FLOOR)))


def scaled(probs: Array, labels: Array) -> Array:
    """Log p(label) - log(1 - p(label)) [N], from `probs` [N, C]: about normal over trainings.

    Carlini, Chien, Nasr, Song, Terzis and Tramer, 2022, Membership inference attacks from first
    principles, 2112.03570, section IV-D, in its stable form: 1 - p as the sum of the others.
    """
    said = probs.astype(np.float64)
    rows = np.arange(len(labels))
    own = said[rows, labels]
    said[rows, labels] = 0.0
    return np.asarray(np.log(np.maximum(own, FLOOR)) - np.log(np.maximum(said.sum(axis=1), FLOOR)))


def auc(inside: Array, outside: Array) -> float:
    """How often a member scores above an other (a tie is half a time): .5 tells nothing.

    `inside` [M] and `outside` [O] are scores; `ValueError` where one is empty.
    """
    if not (len(inside) and len(outside)):
        raise ValueError(f"found {len(inside)} members and {len(outside)} others, expected both")
    both = np.concatenate([inside, outside])
    is_member = np.arange(len(both)) < len(inside)
    area = auroc(np.stack([-both, both], axis=1), is_member.astype(np.int64))
    return float("nan") if area is None else area


class Detected(NamedTuple):
    """How many members a threshold finds that takes few others for one."""

    hits: int
    members: int
    false_alarms: int
    others: int
    interval: Interval

    @property
    def rate(self) -> float:
        """Share of the members that are found."""
        return self.hits / self.members


def true_positives_at(
    inside: Array, outside: Array, false_positive_rate: float = 0.01, alpha: float = 0.05
) -> Detected:
    """Members found by the lowest threshold with at most that rate of false alarms.

    Ties with the threshold count for neither. The interval is Clopper and Pearson's for these
    members, the threshold taken as given. Of fewer others than 1 / rate, none may be one.
    """
    if not (len(inside) and len(outside)):
        raise ValueError(f"found {len(inside)} members and {len(outside)} others, expected both")
    allowed = int(false_positive_rate * len(outside) + 1e-9)
    threshold = np.sort(outside)[len(outside) - 1 - allowed]
    hits, alarms = int((inside > threshold).sum()), int((outside > threshold).sum())
    found = clopper_pearson(hits, len(inside), alpha)
    return Detected(hits, len(inside), alarms, len(outside), found)
