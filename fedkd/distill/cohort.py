"""Trains sites that share an architecture together: one batched step in place of one for each."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from fedkd.data import Records
from fedkd.distill.batches import timetable
from fedkd.distill.models.classifier import (
    Classifier,
    LearningPlan,
    Rng,
    check_learnable,
)
from fedkd.distill.models.torch_classifier import (
    Seeds,
    TorchClassifier,
    adam,
    diverged,
    seeds_of,
    taught,
)
from fedkd.distill.reproducible import generator, one_thread, seeded
from fedkd.knowledge import Array, BadInput, Lesson

# K sites, S steps, B rows a batch, C classes, N rows of all sites one after the other.

Stack: TypeAlias = Mapping[str, Tensor]
"""Each parameter of K modules, stacked [K, ...]."""
Forward: TypeAlias = Callable[[Stack, Tensor], Tensor]
"""Stacked parameters and inputs [K, B, ...] -> logits [K, B, C]."""

MOST_BYTES = 256 * 2**20


def fit_cohort(
    models: Sequence[Classifier],
    records: Sequence[Records | None],
    lessons: Sequence[Lesson | None] | Lesson | None,
    plan: LearningPlan,
    rngs: Sequence[Rng],
    *,
    most_bytes: int = MOST_BYTES,
) -> list[Classifier]:
    """What `models[k].fit(records[k], lessons[k], plan, rngs[k])` gives, for all k, in less time.

    Close to it, not equal: sums are taken in another order. Each site sees the batches that it
    would see alone, in the same order, and takes exactly as many steps. One lesson may be given
    for all. Sites are cut into chunks of about `most_bytes`; a model that is not `cohortable`,
    and one that has no like, is fitted by itself. Dropout draws other masks than alone.
    """
    each = [lessons] * len(models) if isinstance(lessons, Lesson | None) else list(lessons)
    counts = (len(models), len(records), len(each), len(rngs))
    if len(set(counts)) != 1:
        raise BadInput(f"{counts} models, records, lessons and rngs", "as many of each")
    fitted = list(models)
    alike: dict[Any, list[_Member]] = {}
    for place, model in enumerate(models):
        own, lesson, rng = records[place], each[place], rngs[place]
        if not isinstance(model, TorchClassifier):
            fitted[place] = model.fit(own, lesson, plan, rng)
            continue
        check_learnable(model.space, own, lesson, plan)
        kind = (model.architecture, model.space, own is None, taught(own, lesson, plan))
        alike.setdefault(kind, []).append(_Member(place, model, own, lesson, rng))
    for members in alike.values():
        if len(members) == 1 or not cohortable(members[0].model):
            for m in members:
                fitted[m.place] = m.model.fit(m.records, m.lesson, plan, m.rng)
            continue
        for chunk in _chunks(members, plan, most_bytes):
            for m, state in zip(chunk, _fit_chunk(chunk, plan), strict=True):
                fitted[m.place] = replace(m.model, state=state)
    return fitted


def cohortable(model: Classifier) -> bool:
    """Whether `model` can be trained in a stack: torch, no batch statistics, nothing frozen."""
    if not isinstance(model, TorchClassifier):
        return False
    module = model.skeleton
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    # Buffers, frozen weights and shared ones are in the state and are no parameter of their own.
    if not trained or trained != set(model.state):
        return False
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        return False
    try:
        with one_thread(), torch.no_grad(), seeded(0):
            stack = {name: torch.stack([tensor] * 2) for name, tensor in model.state.items()}
            logits = stacked(model.module().train())(stack, torch.zeros(2, 1, *model.space.shape))
    except (RuntimeError, NotImplementedError):  # an operation that torch cannot stack
        return False
    return logits.shape == (2, 1, len(model.space.classes))


def stacked(module: nn.Module) -> Forward:
    """How K modules like `module` are run at once.

    A stack of linear layers is batched by hand: dispatch is most of what a small model's step
    costs, and vmap has some of its own.
    """
    if type(module) is nn.Sequential and all(_is_plain(layer) for layer in module):
        layers = list(module.named_children())
        return lambda stack, inputs: _plain_forward(layers, stack, inputs)

    def one(parameters: Stack, inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(module, dict(parameters), (inputs,))
        return logits

    many: Forward = vmap(one, randomness="different")
    return many


def _is_plain(layer: nn.Module) -> bool:
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    return type(layer) in (nn.Linear, nn.ReLU)


def _plain_forward(layers: list[tuple[str, nn.Module]], stack: Stack, inputs: Tensor) -> Tensor:
    # Rows are columns on the way, [K, F, B]: the gradient of a weight then comes contiguous.
    columns = inputs.flatten(2).transpose(1, 2)
    for name, layer in layers:
        if isinstance(layer, nn.ReLU):
            columns = columns.relu()
        elif isinstance(layer, nn.Linear):
            weight = stack[f"{name}.weight"]
            if layer.bias is None:
                columns = torch.bmm(weight, columns)
            else:
                columns = torch.baddbmm(stack[f"{name}.bias"].unsqueeze(2), weight, columns)
    return columns.transpose(1, 2)


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    place: int
    model: TorchClassifier
    records: Records | None
    lesson: Lesson | None
    rng: Rng

    def steps(self, plan: LearningPlan) -> int:
        own = 0 if self.records is None else len(self.records)
        return plan.step_count(own, 0 if self.lesson is None else len(self.lesson.queries))


def _chunks(members: list[_Member], plan: LearningPlan, most: int) -> Iterator[list[_Member]]:
    # Those with most steps first: within a chunk the sites that still learn are then a prefix.
    waiting = sorted(members, key=lambda member: -member.steps(plan))
    saved = _saved_bytes(members[0].model)
    chunk: list[_Member] = []
    held = 0
    for member in waiting:
        needs = _bytes(member, plan, saved)
        if chunk and held + needs > most:
            yield chunk
            chunk, held = [], 0
        chunk.append(member)
        held += needs
    yield chunk


def _bytes(member: _Member, plan: LearningPlan, saved: int) -> int:
    one = 4 * math.prod(member.model.space.shape)
    rows = 0 if member.records is None else len(member.records)
    numbers = 5 * member.model.parameters  # weights, gradients, two moments, the result
    timetables = 3 * 8 * 2 * plan.batch * member.steps(plan)
    return 4 * numbers + one * rows + timetables + 2 * plan.batch * (one + 2 * saved)


def _saved_bytes(model: TorchClassifier) -> int:
    """How much one row of a batch leaves behind for the backward pass."""
    module = model.module().train()
    weights = {p.data_ptr() for p in module.parameters()}
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += 0 if tensor.data_ptr() in weights else tensor.nbytes
        return tensor

    with seeded(0), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        module(torch.zeros(1, *model.space.shape))
    return saved


def _fit_chunk(chunk: list[_Member], plan: LearningPlan) -> list[dict[str, Tensor]]:
    seeds = [seeds_of(member.rng) for member in chunk]
    with one_thread(), seeded(seeds[0].dropout):
        forward = stacked(chunk[0].model.module().train())
        names = list(chunk[0].model.state)
        stack = {name: torch.stack([m.model.state[name] for m in chunk]) for name in names}
        _train(stack, forward, chunk, plan, seeds)
    finite = torch.stack([torch.isfinite(t).flatten(1).all(1) for t in stack.values()]).all(0)
    if not bool(finite.all()):
        lost = [m.place for m, whole in zip(chunk, finite.tolist(), strict=True) if not whole]
        raise diverged(f"a weight of the sites at places {lost}", plan)
    return [{name: stack[name][k].clone() for name in names} for k in range(len(chunk))]


def _train(
    stack: dict[str, Tensor],
    forward: Forward,
    chunk: list[_Member],
    plan: LearningPlan,
    seeds: list[Seeds],
) -> None:
    steps = [member.steps(plan) for member in chunk]
    own = _records_of(chunk, plan, steps, seeds)
    asked = _lessons_of(chunk, plan, steps, seeds)
    moments = {name: (torch.zeros_like(t), torch.zeros_like(t)) for name, t in stack.items()}
    for start, stop, active in _stretches(steps):
        # Views: what Adam writes lands in the stack, and a site that is done is not touched.
        leaves = {name: t[:active].requires_grad_() for name, t in stack.items()}
        optimizer = adam(list(leaves.values()), plan)
        for name, leaf in leaves.items():
            first, second = (moment[:active] for moment in moments[name])
            taken = torch.tensor(float(start))
            optimizer.state[leaf] = {"step": taken, "exp_avg": first, "exp_avg_sq": second}
        mine = own.batches(start, stop, active) if own else itertools.repeat(None)
        told = asked.batches(start, stop, active) if asked else itertools.repeat(None)
        for _, one, other in zip(range(start, stop), mine, told, strict=False):
            loss = _loss(forward, leaves, one, other, plan)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
            optimizer.step()


def _stretches(steps: list[int]) -> Iterator[tuple[int, int, int]]:
    """From step to step, and how many sites (a prefix: `steps` falls) learn all the while."""
    for start, stop in itertools.pairwise(sorted({0, *steps})):
        yield start, stop, sum(count >= stop for count in steps)


@dataclass(frozen=True, slots=True)
class _Batch:
    inputs: Tensor  # [K, B, ...]
    targets: Tensor  # [K, B] labels, or [K, B, C] consensus
    weights: Tensor  # [K, B], of each site's real rows 1 in sum; 0 for a row that only fills
    even: bool  # no row only fills


@dataclass(frozen=True, slots=True)
class _Deal:
    # All sites' rows one after the other, and when each site takes which of them.
    inputs: Tensor
    targets: Tensor
    begin_inputs: Tensor  # [K]
    begin_targets: Tensor  # [K]
    timetables: list[Tensor]  # K times [S, B], -1 fills

    def batches(self, start: int, stop: int, active: int) -> Iterator[_Batch]:
        rows = torch.stack([table[start:stop] for table in self.timetables[:active]], dim=1)
        real = rows >= 0
        counts = real.sum(dim=2, keepdim=True)  # [S, K, 1]
        weights = real / counts
        widest = counts.amax(dim=(1, 2)).tolist()
        even = (counts.amin(dim=(1, 2)) == counts.amax(dim=(1, 2))).tolist()
        rows.clamp_(min=0)
        begins = self.begin_inputs[:active, None], self.begin_targets[:active, None]
        for s, width in enumerate(widest):
            now = rows[s, :, :width]
            inputs, targets = self.inputs[now + begins[0]], self.targets[now + begins[1]]
            yield _Batch(inputs, targets, weights[s, :, :width], even[s])


def _records_of(
    chunk: list[_Member], plan: LearningPlan, steps: list[int], seeds: list[Seeds]
) -> _Deal | None:
    records = [member.records for member in chunk if member.records is not None]
    if not records:
        return None
    inputs, begin = _pooled([one.inputs for one in records])
    labels, _ = _pooled([one.labels for one in records])
    counts = [len(one) for one in records]
    tables = _timetables(counts, plan, steps, [seed.records for seed in seeds])
    seen = torch.from_numpy(chunk[0].model.space.scaled(inputs))
    return _Deal(seen, torch.from_numpy(labels), begin, begin, tables)


def _lessons_of(
    chunk: list[_Member], plan: LearningPlan, steps: list[int], seeds: list[Seeds]
) -> _Deal | None:
    if not taught(chunk[0].records, chunk[0].lesson, plan):
        return None
    lessons = [member.lesson for member in chunk if member.lesson is not None]
    inputs, begin = _pooled([lesson.queries.inputs for lesson in lessons])
    probs, begin_probs = _pooled([lesson.consensus.probs for lesson in lessons])
    counts = [len(lesson.queries) for lesson in lessons]
    tables = _timetables(counts, plan, steps, [seed.lesson for seed in seeds])
    seen = torch.from_numpy(chunk[0].model.space.scaled(inputs))
    return _Deal(seen, torch.from_numpy(probs.astype(np.float32)), begin, begin_probs, tables)


def _pooled(arrays: list[Array]) -> tuple[Array, Tensor]:
    """All arrays one after the other, a shared one once, and where each site's begins [K]."""
    parts: list[Array] = []
    places: dict[int, int] = {}
    begin = 0
    for array in arrays:
        if id(array) not in places:
            places[id(array)] = begin
            parts.append(array)
            begin += len(array)
    return np.concatenate(parts), torch.tensor([places[id(array)] for array in arrays])


def _timetables(
    counts: list[int], plan: LearningPlan, steps: list[int], seeds: list[int]
) -> list[Tensor]:
    width = min(plan.batch, max(counts))
    tables = []
    for count, taken, seed in zip(counts, steps, seeds, strict=True):
        table = timetable(count, plan.batch, taken, generator(seed))
        tables.append(functional.pad(table, (0, width - table.shape[1]), value=-1))
    return tables


def _loss(
    forward: Forward, leaves: Stack, own: _Batch | None, asked: _Batch | None, plan: LearningPlan
) -> Tensor:
    """The sum of the sites' losses: each site's gradient is its own."""
    if asked is None or plan.loss is None:
        assert own is not None  # noqa: S101 - check_learnable has seen to it
        return _cross_entropy(forward(leaves, own.inputs), own)
    if own is None:
        return _told(forward(leaves, asked.inputs), asked, plan)
    logits = forward(leaves, torch.cat([own.inputs, asked.inputs], dim=1))
    count = own.inputs.shape[1]
    told = _told(logits[:, count:], asked, plan)
    return _cross_entropy(logits[:, :count], own) + plan.kl_weight * told


def _cross_entropy(logits: Tensor, own: _Batch) -> Tensor:
    each = functional.cross_entropy(logits.flatten(0, 1), own.targets.flatten(), reduction="none")
    return (each * own.weights.flatten()).sum()


def _told(logits: Tensor, asked: _Batch, plan: LearningPlan) -> Tensor:
    # A loss is the mean of its rows' losses (a law of losses): the sites' losses are summed by
    # one call where all took as many rows, else each row is weighted by itself.
    loss = plan.loss
    assert loss is not None  # noqa: S101 - `taught` has seen to it
    if asked.even:
        return loss(logits.flatten(0, 1), asked.targets.flatten(0, 1)) * len(logits)
    each = vmap(lambda row, target: loss(row[None], target[None]))
    losses: Tensor = each(logits.flatten(0, 1), asked.targets.flatten(0, 1))
    return (losses * asked.weights.flatten()).sum()
