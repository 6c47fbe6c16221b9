"""Asks whether a record was learnt from, by models that did and did not learn from it (LiRA)."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from fedkd.knowledge import Array, BadInput
from fedkd.privacy.attacks.scores import scaled

# N records, C classes, K shadow models.

Speaker: TypeAlias = Callable[[Array], Array]
"""Answers: inputs [N, ...] -> distributions [N, C]."""
Fit: TypeAlias = Callable[[Array, int], Speaker]
"""Trains a shadow: which of the N records it learns from, bool [N], and a seed -> its answers."""
Score: TypeAlias = Callable[[Speaker], Array]
"""What a speaker's answers say of each of N records: [N], about normal over trainings."""

FEWEST_SHADOWS = 16
ENOUGH_FOR_OWN_VARIANCE = 64
"""From so many shadows on, each record has a variance of its own (2112.03570, section VI-A)."""
LEAST_DEVIATION = 1e-3
"""Floor of a standard deviation: shadows that agree to the last bit prove no certainty."""


def check_shadows(shadows: int) -> None:
    """`BadInput` for fewer than 16: a Gaussian fitted to fewer than eight numbers says little."""
    if shadows < FEWEST_SHADOWS:
        raise BadInput(f"{shadows} shadow models", f"at least {FEWEST_SHADOWS}", "ask for more")


def shadow_masks(records: int, shadows: int, rng: np.random.Generator) -> Array:
    """Who learns from what, bool [K, N]: each record is in exactly half of the shadows."""
    check_shadows(shadows)
    half = np.arange(shadows) < shadows // 2
    return np.asarray(rng.permuted(np.tile(half[:, None], records), axis=0))


def likelihood_ratio(target: Array, shadows: Array, inside: Array) -> Array:
    """Log of how much likelier each score is for a member than for an other [N].

    `target` [N] are the attacked model's scores, `shadows` [K, N] those of the shadows, `inside`
    [K, N] bool who learnt from what. One Gaussian a record for either case; below 64 shadows
    all records share the two variances. 2112.03570, algorithm 1 (online) and section VI-A.
    """
    if not (inside.any(axis=0) & ~inside.all(axis=0)).all():
        raise ValueError("found a record that all shadows or none learnt from, expected both kinds")
    ratio = np.zeros(len(target))
    for kind, sign in ((inside, 1.0), (~inside, -1.0)):
        count = kind.sum(axis=0)
        mean = np.where(kind, shadows, 0.0).sum(axis=0) / count
        squares = np.where(kind, (shadows - mean) ** 2, 0.0).sum(axis=0)
        if len(shadows) < ENOUGH_FOR_OWN_VARIANCE:
            variance = np.full(len(mean), squares.sum() / max(1, (count - 1).sum()))
        else:
            variance = squares / np.maximum(1, count - 1)
        deviation = np.maximum(np.sqrt(variance), LEAST_DEVIATION)
        ratio += sign * (-np.log(deviation) - 0.5 * ((target - mean) / deviation) ** 2)
    return ratio


def lira(target: Speaker, shadows: Sequence[Speaker], inside: Array, score: Score) -> Array:
    """LiRA's log ratios [N] for the records that `score` asks about; `inside` [K, N] bool."""
    said = np.stack([score(shadow) for shadow in shadows])
    return likelihood_ratio(score(target), said, inside)


def online(
    target: Speaker, fit: Fit, inputs: Array, labels: Array, *, shadows: int = 16, seed: int = 0
) -> Array:
    """LiRA from the ground up [N]: trains `shadows` models, each on half of `inputs` [N, ...].

    Higher: likelier a member of what `target` learnt from.
    """
    inside = shadow_masks(len(inputs), shadows, np.random.default_rng(seed))
    speakers = [fit(mask, place) for place, mask in enumerate(inside)]
    return lira(target, speakers, inside, lambda speaker: scaled(speaker(inputs), labels))
