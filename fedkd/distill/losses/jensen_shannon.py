"""Measures how far a model is from a consensus by the Jensen-Shannon divergence."""

import math
from typing import TYPE_CHECKING, Annotated

from fedkd.distill.losses.kl import tempered
from fedkd.distill.models.classifier import DistillLoss
from fedkd.knowledge import Range

if TYPE_CHECKING:
    from torch import Tensor


def jensen_shannon(temperature: Annotated[float, Range(0.05, 100)] = 1.0) -> DistillLoss:
    """Mean Jensen-Shannon divergence over the rows, in nats, times `temperature` squared.

    Lin, 1991, Divergence measures based on the Shannon entropy, 10.1109/18.61115. At most
    log 2 a row: a consensus that is plainly wrong about a query pulls less than under KL.
    """

    def loss(logits: "Tensor", target: "Tensor") -> "Tensor":
        import torch

        said = torch.log_softmax(logits / temperature, dim=1)
        meant = tempered(target, temperature)
        between = torch.logaddexp(said, meant.log()) - math.log(2)
        # Logarithms throughout: at a corner `said` is large but finite, and so is the gradient.
        theirs = torch.special.xlogy(meant, meant) - meant * between
        ours = said.exp() * (said - between)
        mean: Tensor = (theirs + ours).sum(dim=1).mean() * (temperature**2 / 2)
        return mean

    return loss
