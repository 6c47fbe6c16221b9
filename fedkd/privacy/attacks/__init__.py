"""Attacks on what leaves a hospital, and what they prove: a claim too small, or nothing.

Functions of scores and answers; whoever trains models hands the training in as a callable.
"""

from fedkd.privacy.attacks.averaging import Release, auc_by_answers, averaged, mean_answer, stored
from fedkd.privacy.attacks.bounds import (
    epsilon_from_counts,
    lower_bound_epsilon,
    lower_bound_mu,
    lower_bound_mu_of_sample,
)
from fedkd.privacy.attacks.chance import chance
from fedkd.privacy.attacks.distillation import Distil, through_a_copy
from fedkd.privacy.attacks.findings import SENTENCE, Claim, Finding, finding
from fedkd.privacy.attacks.intervals import Interval, clopper_pearson
from fedkd.privacy.attacks.labels import mix_of_answers, mix_of_labels, total_variation
from fedkd.privacy.attacks.lira import (
    FEWEST_SHADOWS,
    Fit,
    Score,
    Speaker,
    check_shadows,
    likelihood_ratio,
    lira,
    online,
    shadow_masks,
)
from fedkd.privacy.attacks.one_run import (
    epsilon_of,
    is_refuted,
    least_approximate,
    least_gaussian,
    lower_bound_epsilon_of_pairs,
    lower_bound_mu_of_pairs,
)
from fedkd.privacy.attacks.pairing import Pairing, paired, together
from fedkd.privacy.attacks.poisoned import near, score_near
from fedkd.privacy.attacks.reported import Attacked, Report
from fedkd.privacy.attacks.scores import (
    Detected,
    auc,
    negative_loss,
    scaled,
    true_positives_at,
)

__all__ = [
    "FEWEST_SHADOWS",
    "SENTENCE",
    "Attacked",
    "Claim",
    "Detected",
    "Distil",
    "Finding",
    "Fit",
    "Interval",
    "Pairing",
    "Release",
    "Report",
    "Score",
    "Speaker",
    "auc",
    "auc_by_answers",
    "averaged",
    "chance",
    "check_shadows",
    "clopper_pearson",
    "epsilon_from_counts",
    "epsilon_of",
    "finding",
    "is_refuted",
    "least_approximate",
    "least_gaussian",
    "likelihood_ratio",
    "lira",
    "lower_bound_epsilon",
    "lower_bound_epsilon_of_pairs",
    "lower_bound_mu",
    "lower_bound_mu_of_pairs",
    "lower_bound_mu_of_sample",
    "mean_answer",
    "mix_of_answers",
    "mix_of_labels",
    "near",
    "negative_loss",
    "online",
    "paired",
    "scaled",
    "score_near",
    "shadow_masks",
    "stored",
    "through_a_copy",
    "together",
    "total_variation",
    "true_positives_at",
]
