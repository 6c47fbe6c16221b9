"""Trains a model by clipped and noised gradient steps, in which no patient shows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from fedkd.data import Records
from fedkd.distill.models.classifier import DivergedTraining, check_inputs
from fedkd.distill.models.torch_classifier import TorchClassifier
from fedkd.distill.private.gradients import clipped_sum, rows_at_once, way_of
from fedkd.distill.private.plan import PrivateTraining
from fedkd.distill.private.rows import Rows
from fedkd.distill.private.suitable import check_suitable, trial_rows
from fedkd.distill.reproducible import one_thread, seeded
from fedkd.knowledge import Array, BadInput, NotInSpace, Space

# B rows, P patients, D trained numbers.

Normals: TypeAlias = Callable[[int], Array]
"""How many -> that many independent standard normal numbers, float64."""
Uniforms: TypeAlias = Callable[[int], Array]
"""How many -> that many independent numbers, uniform in [0, 1), float64."""
AT_ONCE = 2**14
"""Noise numbers that are drawn together, at most, where a step needs fewer."""


def train_privately(
    model: TorchClassifier,
    records: Records,
    plan: PrivateTraining,
    noise: Normals,
    sampling: Uniforms,
) -> TorchClassifier:
    """`model` after `plan.steps` steps of differentially private gradient descent on `records`.

    Song, Chaudhuri and Sarwate, 2013; Abadi et al., 2016, 1607.00133, algorithm 1, with these
    choices: the unit is the patient (one gradient each, the mean over the patient's rows, clipped
    over all trained numbers together); a step takes all patients or a Poisson sample of them, and
    a sample without anybody is a step too; the noise lies on the sum, which is then divided by a
    public number; and the optimizer sees nothing else, so that what it does is post-processing.
    There is no early stopping, no choice among models, no schedule that looks at records, and no
    buffer that a step changes. It starts from `model`'s weights, which must be public or private
    already. Frozen weights stay.

    `noise` decides whether this is private at all: from the operating system it is, from a seed
    it is a rehearsal. `sampling` must be as secret where the rate is below 1. The same streams
    give the same bits, on one machine.

    What is bounded is float arithmetic. Each gradient is what float32 makes of it, and is then
    measured, clipped, summed and noised in float64, so that rounding moves the sum by about 1e-12
    of the clip. Two gaps remain. A row's own gradient may differ in its last float32 bits with
    the rows that it is computed beside (about 1e-7 of the clip a patient, n times that at worst;
    Casacuberta et al., 2022, 2207.10635). And a float64 normal number does not take every value
    (Mironov, 2012): a `noise` that sums several draws (Holohan and Braghin, 2021, 2107.10138)
    makes that hard to use, not impossible.

    `BadInput`, before any effect, for an unsuitable model (`check_suitable`), for records that are
    not finite or outside the model's space, and for more patients than `plan` says.
    """
    check_suitable(model)
    people = _people(model.space, records, plan)
    with one_thread(), seeded(int(sampling(1)[0] * 2**53)):  # for dropout
        module, trial = model.module().train(), trial_rows(model.space)
        flat = _flattened(module)
        way = way_of(module, trial)
        most = rows_at_once(module, way, trial)
        optimizer = _optimizer(flat, plan)
        everybody = list(people.cut(most))
        for normal in _normals(noise, plan.steps, len(flat)):
            taken = everybody
            if plan.sampling_rate < 1:
                taken = list(_sampled(people, plan, sampling).cut(most))
            total = normal * (plan.noise_multiplier * plan.clip)
            if taken:
                total += clipped_sum(way, taken, plan.clip, most)
            flat.grad = total.div_(plan.divisor).float()
            optimizer.step()
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    if not bool(torch.isfinite(flat).all()):
        raise DivergedTraining(
            "found a weight that is not finite, expected finite numbers; "
            f"try a smaller learning rate than {plan.learning_rate:g}"
        )
    return replace(model, state=state)


def _people(space: Space, records: Records, plan: PrivateTraining) -> Rows:
    # All rows, those of one patient next to each other.
    check_inputs(space, records.inputs)
    try:
        space.check(records.inputs)
    except NotInSpace as error:
        raise BadInput(f"records outside their space ({error})", "records within it") from error
    if len(records) and records.labels.max() >= len(space.classes):
        raise BadInput(f"a label {records.labels.max()}", f"codes below {len(space.classes)}")
    codes = np.arange(len(records))
    if plan.unit == "patient" and records.patients is not None:
        codes = records.patients
    _, patient, counts = np.unique(codes, return_inverse=True, return_counts=True)
    if len(counts) > plan.patients:
        raise BadInput(
            f"records of {len(counts)} patients",
            f"at most the {plan.patients} that the plan says",
            "the number of patients is public and part of the price: plan with the right one",
        )
    order = np.argsort(patient, kind="stable")
    return Rows.from_columns(
        torch.from_numpy(space.scaled(records.inputs[order])),
        torch.from_numpy(records.labels[order]),
        torch.from_numpy(patient[order]),
        torch.from_numpy(counts),
    )


def _sampled(people: Rows, plan: PrivateTraining, sampling: Uniforms) -> Rows:
    # Every patient is taken by itself; those who were taken out leave their draw unused.
    taken = _drawn(sampling, plan.patients) < plan.sampling_rate
    return people.of(taken[: len(people.counts)])


def _normals(noise: Normals, steps: int, count: int) -> Iterator[Tensor]:
    # The noise [D] of each step, of small models for several steps at once.
    at_once = max(1, AT_ONCE // count)
    for start in range(0, steps, at_once):
        several = min(at_once, steps - start)
        yield from _drawn(noise, several * count).view(several, count).unbind()


def _drawn(source: Callable[[int], Array], count: int) -> Tensor:
    # One number too few would be spread over all: the same noise everywhere.
    numbers = source(count)
    if numbers.shape != (count,) or numbers.dtype != np.float64:
        raise ValueError(
            f"found random numbers of shape {numbers.shape} and type {numbers.dtype}, "
            f"expected ({count},) and float64"
        )
    return torch.from_numpy(numbers)


def _flattened(module: nn.Module) -> Tensor:
    """The trained numbers as one tensor [D], which the module's weights are views of."""
    trained = [p for p in module.parameters() if p.requires_grad]
    flat = torch.cat([p.detach().flatten() for p in trained])
    for p, part in zip(trained, torch.split(flat, [p.numel() for p in trained]), strict=True):
        p.data = part.view_as(p)
    return flat


def _optimizer(flat: Tensor, plan: PrivateTraining) -> torch.optim.Optimizer:
    if plan.optimizer == "adam":
        return torch.optim.AdamW(
            [flat], lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )
    return torch.optim.SGD(
        [flat],
        lr=plan.learning_rate,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        fused=True,
    )
