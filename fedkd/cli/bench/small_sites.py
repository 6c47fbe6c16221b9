"""Many small sites: their records, their models, and what anybody would write to train them."""

from typing import Any

from fedkd.data import Records
from fedkd.distill import Classifier, LearningPlan
from fedkd.knowledge import Space


def records_of(sites: int) -> tuple[Space, list[Records]]:
    """15 to 45 digits 8x8 for each site, drawn from the same 1,797."""
    import numpy as np

    from fedkd.data.sources.digits import digits

    dataset = digits()
    rng = np.random.default_rng(0)
    sizes = rng.integers(15, 46, size=sites)
    rows = [rng.choice(len(dataset.records), size=size, replace=False) for size in sizes]
    return dataset.space, [dataset.records.take(chosen) for chosen in rows]


def mlp_of(space: Space, site: int) -> Classifier:
    """An MLP 64-64-10 with a start of its own."""
    import numpy as np

    from fedkd.distill.models.mlp import mlp

    return mlp(space, np.random.default_rng(site), hidden=64)


def bare_loop(starts: list[Any], records: list[Records], plan: LearningPlan) -> None:
    """What anybody would write: one model after the other, fused Adam, no data loader."""
    import torch
    from torch.nn.functional import cross_entropy

    for start, own in zip(starts, records, strict=True):
        module = start.module()
        inputs = torch.from_numpy(start.space.scaled(own.inputs))
        labels = torch.from_numpy(own.labels.copy())
        optimizer = torch.optim.Adam(module.parameters(), plan.learning_rate, fused=True)
        for _ in range(plan.epochs):
            for rows in torch.randperm(len(own)).split(plan.batch):
                loss = cross_entropy(module(inputs[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
