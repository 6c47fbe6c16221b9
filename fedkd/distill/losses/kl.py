"""Measures how far a model is from a consensus by the Kullback-Leibler divergence."""

from typing import TYPE_CHECKING, Annotated

from fedkd.distill.models.classifier import DistillLoss
from fedkd.knowledge import Range

if TYPE_CHECKING:
    from torch import Tensor


def tempered(target: "Tensor", temperature: float) -> "Tensor":
    """`target ** (1 / temperature)`, renormalised, by way of logarithms: nothing underflows."""
    if temperature == 1:
        return target
    return (target.log() / temperature).softmax(dim=1)


def kl(temperature: Annotated[float, Range(0.05, 100)] = 1.0) -> DistillLoss:
    """Mean of KL(target || model) over the rows, in nats, times `temperature` squared.

    Hinton, Vinyals and Dean, 2015, Distilling the knowledge in a neural network, 1503.02531,
    section 2: both sides are softened by the temperature, and the square keeps the gradients'
    size. A class that the consensus rules out costs nothing by itself.
    """

    def loss(logits: "Tensor", target: "Tensor") -> "Tensor":
        import torch

        said = torch.log_softmax(logits / temperature, dim=1)
        meant = tempered(target, temperature)
        # Not functional.kl_div: it cannot be batched over sites (torch 2.13 has no rule for it).
        each = torch.special.xlogy(meant, meant) - meant * said
        mean: Tensor = each.sum(dim=1).mean() * temperature**2
        return mean

    return loss
