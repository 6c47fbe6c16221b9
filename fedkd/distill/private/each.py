"""Clips gradients that were written out one by one: slower than by formula, and for any network."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

from fedkd.distill.private.rows import Gradients, Rows, Way
from fedkd.distill.private.sums import squares, weighted

# B rows, P patients, D trained numbers.


def batched(module: nn.Module) -> Way:
    """Each row's gradient by `torch.func`: a row is a batch of its own, and sees no other.

    Raises what torch raises where it has no rule for one of the module's operations.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def loss(weights: Mapping[str, Tensor], row: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(module, dict(weights), (row.unsqueeze(0),))
        return functional.cross_entropy(logits, label.unsqueeze(0))

    each_row = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")

    def gradients(rows: Rows) -> Gradients:
        weights = {name: p.detach() for name, p in trained.items()}
        with warnings.catch_warnings():
            # A recurrent layer is run row by row: still faster than `alone`.
            warnings.filterwarnings("ignore", message=".*performance drop", category=UserWarning)
            found = each_row(weights, rows.inputs, rows.labels)
        written = [_mean(found[name].flatten(1), rows) for name in trained]
        return _of(written)

    count = sum(p.numel() for p in trained.values())
    return Way("batched", gradients, count, written=count)


def alone(module: nn.Module) -> Way:
    """One backward pass for each patient: the slowest way, and what the others are held against."""
    trained = [p for p in module.parameters() if p.requires_grad]

    def gradients(rows: Rows) -> Gradients:
        found = []
        for patient in range(len(rows.counts)):
            mine = rows.patient == patient
            loss = functional.cross_entropy(module(rows.inputs[mine]), rows.labels[mine])
            slopes = torch.autograd.grad(loss, trained, allow_unused=True)
            found.append(
                torch.cat(
                    [
                        torch.zeros(p.numel()) if slope is None else slope.flatten()
                        for p, slope in zip(trained, slopes, strict=True)
                    ]
                )
            )
        return _of([torch.stack(found)])

    count = sum(p.numel() for p in trained)
    return Way("alone", gradients, count, written=count)


def _mean(each: Tensor, rows: Rows) -> Tensor:
    # [B, K] -> [P, K]
    if not rows.several:
        return each
    summed = each.new_zeros(len(rows.counts), each.shape[1]).index_add_(0, rows.patient, each)
    return summed / rows.counts.unsqueeze(1)


def _of(written: list[Tensor]) -> Gradients:
    # Gradients in parts, [P, K] each: what is summed is exactly what was measured.
    norms = torch.stack([squares(part) for part in written]).sum(0)
    return Gradients(
        norms, lambda factors: torch.cat([weighted(factors, part) for part in written])
    )
