"""Sums clipped gradients, one a patient: by the fastest way that fits the model."""

import copy
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fedkd.distill.private.closed import closed
from fedkd.distill.private.each import alone, batched
from fedkd.distill.private.rows import NoSuchWay, Rows, Way

# P patients, D trained numbers.

WAYS: tuple[Callable[[nn.Module], Way], ...] = (closed, batched, alone)
"""From the fastest to the one that always fits."""
AS_ALONE = 1e-3
"""How far, relative to the largest number, a way may be from one backward pass a patient."""
MOST_BYTES = 64 * 2**20
"""About what the rows that are clipped together leave behind: bounds memory."""
MOST_ROWS = 8192


def way_of(module: nn.Module, trial: Rows) -> Way:
    """The first of `WAYS` that fits `module`, and that gives what `alone` gives on `trial`.

    `trial` holds random rows, never a record. The way reads the module's weights at each call.
    """
    expected = _all(alone(copy.deepcopy(module).eval()), trial)
    for way in WAYS[:-1]:
        try:
            found = _all(way(copy.deepcopy(module).eval()), trial)
            way(copy.deepcopy(module).train()).gradients(trial)
        except (NoSuchWay, RuntimeError, NotImplementedError, ValueError, TypeError):
            continue
        if bool((found - expected).abs().max() <= AS_ALONE * expected.abs().max()):
            return way(module)
    return alone(module)


def _all(way: Way, rows: Rows) -> Tensor:
    # Every patient's gradient and squared norm, [P, D + 1].
    found = way.gradients(rows)
    one = torch.eye(len(rows.counts), dtype=torch.float64)
    written = torch.stack([found.total(factors) for factors in one])
    return torch.cat([written, found.norms.unsqueeze(1)], dim=1)


def rows_at_once(module: nn.Module, way: Way, trial: Rows) -> int:
    """How many rows may be clipped together, so that memory stays at about `MOST_BYTES`."""
    made = trial.inputs[0].numel()

    def count(layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal made
        made += output.numel() if isinstance(output, Tensor) else 0

    hooks = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad():
        module(trial.inputs[:1])
    for hook in hooks:
        hook.remove()
    # What a layer makes is there as it is, as a slope, and in float64 twice.
    return max(1, min(MOST_ROWS, MOST_BYTES // (4 * (4 * made + 3 * way.written))))


def clipped_sum(way: Way, parts: Iterable[Rows], clip: float, most: int) -> Tensor:
    """The sum [D], float64, of the patients' gradients, each clipped to norm `clip`.

    `parts` are rows that were cut into `most`, and at least one.

    A gradient that is not finite counts as zero: to refuse would tell that there is one.
    """
    sums = [
        _of_many_rows(way, part, clip, most) if len(part) > most else _of(way, part, clip)
        for part in parts
    ]
    return torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]


def _of(way: Way, rows: Rows, clip: float) -> Tensor:
    found = way.gradients(rows)
    if not math.isfinite(found.norms.sum()):
        rows = rows.of(torch.isfinite(found.norms))
        if not len(rows):
            return torch.zeros(way.trained, dtype=torch.float64)
        found = way.gradients(rows)
    return found.total(clip / found.norms.sqrt().clamp_(min=clip))


def _of_many_rows(way: Way, rows: Rows, clip: float, most: int) -> Tensor:
    # One patient with more rows than may be taken at once.
    one, mean = torch.ones(1, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for inputs, labels in zip(
        torch.split(rows.inputs, most), torch.split(rows.labels, most), strict=True
    ):
        count = torch.tensor([len(labels)])
        piece = Rows.from_columns(
            inputs, labels, torch.zeros(len(labels), dtype=torch.int64), count
        )
        mean = mean + way.gradients(piece).total(one) * (len(labels) / len(rows))
    if not bool(torch.isfinite(mean).all()):
        return torch.zeros_like(mean)
    factor: Tensor = clip / mean.norm().clamp(min=clip)
    return mean * factor
