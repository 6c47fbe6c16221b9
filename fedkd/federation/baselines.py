"""Trains what a federation is compared with: all records pooled, and one model by FedAvg."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedkd.data import Records
from fedkd.distill import Classifier, LearningPlan
from fedkd.federation.randomness import SERVER, stream
from fedkd.federation.site import SiteFolder
from fedkd.knowledge.measures import accuracy


@dataclass(frozen=True, slots=True)
class FedAvgResult:
    """FedAvg at the federation's number of rounds, and at its best round.

    Bytes are the weights' alone, both ways, as the federation's are its bodies' without framing.
    """

    model: Classifier
    best_model: Classifier
    best_round: int
    best_bytes: int
    learning_rate: float
    local_epochs: int


def pooled(
    start: Classifier, sites: Mapping[str, Path], plan: LearningPlan, *, seed: int
) -> Classifier:
    """`start` trained on the training records of all sites together: what no hospital may do."""
    parts = [SiteFolder(sites[name]).train() for name in sorted(sites)]
    records = Records(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    return start.fit(records, None, plan, stream(seed, SERVER, 0, "pooled"))


def chosen_fedavg(
    start: Classifier,
    sites: Mapping[str, Path],
    plan: LearningPlan,
    validation: Records,
    *,
    rounds: int,
    most_rounds: int,
    learning_rates: Sequence[float],
    local_epochs: Sequence[int],
    seed: int,
) -> FedAvgResult:
    """FedAvg with the learning rate and local epochs that are best on `validation`.

    Chosen at `rounds` rounds, then run on to `most_rounds`, of which the best round is chosen on
    `validation` too. No test record is looked at.
    """
    from fedkd.federation.flower.fedavg import fedavg

    def score(model: Classifier) -> float:
        return accuracy(model.probs(validation.inputs), validation.labels)

    choices: list[tuple[float, LearningPlan]] = []
    for rate in learning_rates:
        for epochs in local_epochs:
            tried = replace(plan, learning_rate=rate, epochs=epochs)
            run = fedavg(start, sites, tried, rounds=rounds, seed=seed)
            choices.append((score(run[-1]), tried))
    _, best_plan = max(choices, key=lambda choice: choice[0])
    run = fedavg(start, sites, best_plan, rounds=max(rounds, most_rounds), seed=seed)
    scores = [score(model) for model in run]
    best = int(np.argmax(scores))
    return FedAvgResult(
        model=run[rounds - 1],
        best_model=run[best],
        best_round=best + 1,
        best_bytes=2 * (weights_bytes(start) or 0) * len(sites) * (best + 1),
        learning_rate=best_plan.learning_rate,
        local_epochs=best_plan.epochs,
    )


def weights_bytes(model: Classifier) -> int | None:
    """Bytes of a model's numbers in float32, one way; None for a model without weights."""
    weights: Mapping[str, Any] | None = model.weights()
    return None if weights is None else int(sum(array.nbytes for array in weights.values()))
