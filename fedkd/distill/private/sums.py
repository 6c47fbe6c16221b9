"""Sums float32 numbers in float64, a block at a time: a whole copy would not stay in the cache."""

import torch
from torch import Tensor

# N rows, K numbers of each, C outputs; P patients, M rows of one of them.

BLOCK = 2**16
"""Numbers that are made float64 at once: 512 KiB."""


def squares(tensor: Tensor) -> Tensor:
    """Squared norms [N] of the rows of [N, K]: no float32 overflows or vanishes on the way."""
    norms = [torch.linalg.vector_norm(part, dim=1, dtype=torch.float64) for part in _blocks(tensor)]
    return (torch.cat(norms) if len(norms) > 1 else norms[0]).square_()


def weighted(factors: Tensor, tensor: Tensor) -> Tensor:
    """The sum [K] of the rows of [N, K], each times its factor [N] (float64)."""
    return products(factors.unsqueeze(1), tensor).squeeze(0)


def products(factors: Tensor, tensor: Tensor) -> Tensor:
    """The sums [C, K] of the rows of [N, K], each times its factors [N, C] (float64)."""
    parts = list(_blocks(tensor))
    if len(parts) == 1:
        return factors.T @ tensor.double()
    summed = torch.zeros(factors.shape[1], tensor.shape[1], dtype=torch.float64)
    start = 0
    for part in parts:
        stop = start + len(part)
        summed.addmm_(factors[start:stop].T, part.double())
        start = stop
    return summed


def pairs(tensor: Tensor, places: Tensor) -> Tensor:
    """Products [P, M, M] of the rows of [N, K] at `places` [P, M], those of a patient each."""
    few = max(1, BLOCK // max(1, places.shape[1] * tensor.shape[1]))
    found = []
    for part in torch.split(places, few):
        rows = tensor[part].double()
        found.append(rows @ rows.transpose(1, 2))
    return torch.cat(found)


def summed_products(one: Tensor, other: Tensor, places: Tensor, there: Tensor) -> Tensor:
    """Squared norms [P] of each patient's sum of outer products of rows, [N, C] by [N, K].

    The rows are at `places` [P, M]; those that are not `there` [P, M] count as zero.
    """
    few = max(1, BLOCK // (one.shape[1] * other.shape[1]))
    norms = []
    for part, real in zip(torch.split(places, few), torch.split(there, few), strict=True):
        left = one[part].double() * real.unsqueeze(2)
        norms.append((left.transpose(1, 2) @ other[part].double()).square_().sum((1, 2)))
    return torch.cat(norms)


def _blocks(tensor: Tensor) -> tuple[Tensor, ...]:
    rows = max(1, BLOCK // max(1, tensor.shape[1]))
    return (tensor,) if len(tensor) <= rows else torch.split(tensor, rows)
