"""Makes a torch module a hospital's own model: warm starts, same bits from the same seed."""

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedkd.data import Records
from fedkd.distill.batches import batches
from fedkd.distill.models.classifier import (
    DivergedTraining,
    LearningPlan,
    Rng,
    check_inputs,
    check_learnable,
)
from fedkd.distill.reproducible import generator, one_thread, seeded
from fedkd.knowledge import Array, BadInput, Lesson, Space

# N inputs, B of them in a batch, C classes, Q queries.

ANSWERED_AT_ONCE = 2048
"""Inputs that one forward pass takes when answering: bounds memory."""


@dataclass(frozen=True, slots=True, eq=False)
class TorchClassifier:
    """A classifier whose learnt numbers are `state`, for a module like `skeleton`.

    The skeleton lends its structure and is never trained nor called with other weights: models
    that were trained together share it. It and the tensors are not to be written to.
    """

    space: Space
    architecture: str
    skeleton: nn.Module
    state: Mapping[str, Tensor]

    @staticmethod
    def of(space: Space, name: str, build: Callable[[], nn.Module], rng: Rng) -> "TorchClassifier":
        """What `build` makes, its first weights drawn from `rng` alone.

        `name` tells the structure from others: class and keys. `BadInput` unless the module
        turns inputs of `space`, publicly scaled, into one logit for each class.
        """
        with one_thread(), seeded(_seed(rng)):
            skeleton = build()
            if not isinstance(skeleton, nn.Module):
                raise BadInput(f"an object of type {type(skeleton).__name__}", "a torch.nn.Module")
            skeleton.float().eval()
            _check_logits(space, name, skeleton)
        shown = "x".join(map(str, space.shape))
        architecture = f"{name} [{space.kind} {shown} -> {len(space.classes)}]"
        return TorchClassifier(space, architecture, skeleton, _state_of(skeleton))

    @property
    def parameters(self) -> int:
        """Number of trainable numbers."""
        return sum(p.numel() for p in self.skeleton.parameters() if p.requires_grad)

    def module(self) -> nn.Module:
        """A module of one's own with these weights, in evaluation mode."""
        module = copy.deepcopy(self.skeleton)
        module.load_state_dict(self.state)
        return module

    def fit(
        self, records: Records | None, lesson: Lesson | None, plan: LearningPlan, rng: Rng
    ) -> "TorchClassifier":
        """A warm start, with a fresh Adam: records and lesson in the same step.

        Kingma and Ba, 2015, 1412.6980; with a weight decay Loshchilov and Hutter, 2019,
        1711.05101. `DivergedTraining` where a loss or a weight is not finite.
        """
        check_learnable(self.space, records, lesson, plan)
        seeds = seeds_of(rng)
        with one_thread(), seeded(seeds.dropout):
            module = self.module().train()
            _train(module, _Exercises.of(self.space, records, lesson, plan), plan, seeds)
            state = _state_of(module)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
            raise diverged("a weight", plan)
        return replace(self, state=state)

    def probs(self, inputs: Array) -> Array:
        """Output distributions, float32 [N, C], each row on the simplex."""
        check_inputs(self.space, inputs)
        said = torch.empty(len(inputs), len(self.space.classes))
        with one_thread(), torch.inference_mode():
            module = self.module()
            for start in range(0, len(inputs), ANSWERED_AT_ONCE):
                rows = slice(start, start + ANSWERED_AT_ONCE)
                logits = module(torch.from_numpy(self.space.scaled(inputs[rows])))
                said[rows] = torch.softmax(logits.float(), dim=1)
        if not bool(torch.isfinite(said).all()):
            raise DivergedTraining("found an output that is not finite, expected probabilities")
        probs: Array = (said / said.sum(1, keepdim=True)).numpy()
        return probs

    def weights(self) -> Mapping[str, Array]:
        """The learnt arrays, buffers included, as copies."""
        return {name: tensor.numpy().copy() for name, tensor in self.state.items()}

    def with_weights(self, weights: Mapping[str, Array]) -> "TorchClassifier":
        """The same architecture with these arrays; `ValueError` where names or shapes differ."""
        if set(weights) != set(self.state):
            odd = sorted(set(weights) ^ set(self.state))
            raise BadInput(f"weights that differ in {', '.join(odd)}", f"{self.architecture}")
        state = {}
        for name, tensor in self.state.items():
            given = torch.from_numpy(weights[name].copy())
            if given.shape != tensor.shape or given.dtype != tensor.dtype:
                raise BadInput(
                    f"{name} of type {given.dtype} and shape {tuple(given.shape)}",
                    f"{tensor.dtype} and {tuple(tensor.shape)}, as in {self.architecture}",
                )
            state[name] = given
        return replace(self, state=state)


@dataclass(frozen=True, slots=True)
class Seeds:
    """What one training draws from: each part on its own, so that none moves another."""

    records: int
    lesson: int
    dropout: int


def seeds_of(rng: Rng) -> Seeds:
    """The seeds of one training; draws the same from `rng` whatever is learnt."""
    return Seeds(*(int(seed) for seed in rng.integers(0, 2**63 - 1, size=3)))


def adam(weights: list[Tensor], plan: LearningPlan) -> torch.optim.Adam:
    """A fresh optimizer; fused, because a small model's step is mostly dispatch."""
    if plan.weight_decay > 0:
        decay = plan.weight_decay
        return torch.optim.AdamW(weights, lr=plan.learning_rate, weight_decay=decay, fused=True)
    return torch.optim.Adam(weights, lr=plan.learning_rate, fused=True)


def diverged(what: str, plan: LearningPlan) -> DivergedTraining:
    """The error of a training that left the finite numbers."""
    return DivergedTraining(
        f"found {what} that is not finite, expected finite numbers; "
        f"try a smaller learning rate than {plan.learning_rate:g}"
    )


@dataclass(frozen=True, slots=True)
class _Exercises:
    # What one training reads, scaled; lives no longer than that training.
    inputs: Tensor | None
    labels: Tensor | None
    queries: Tensor | None
    consensus: Tensor | None
    steps: int

    @staticmethod
    def of(
        space: Space, records: Records | None, lesson: Lesson | None, plan: LearningPlan
    ) -> "_Exercises":
        steps = plan.step_count(
            0 if records is None else len(records), 0 if lesson is None else len(lesson.queries)
        )
        inputs = labels = queries = consensus = None
        if records is not None:
            inputs = torch.from_numpy(space.scaled(records.inputs))
            labels = torch.from_numpy(records.labels.copy())
        if taught(records, lesson, plan) and lesson is not None:
            queries = torch.from_numpy(space.scaled(lesson.queries.inputs))
            consensus = torch.from_numpy(lesson.consensus.probs.astype("float32"))
        return _Exercises(inputs, labels, queries, consensus, steps)


def taught(records: Records | None, lesson: Lesson | None, plan: LearningPlan) -> bool:
    """Whether the lesson enters any step: not where its weight beside the records is zero."""
    if lesson is not None and plan.loss is None:
        raise BadInput("a lesson and no loss in the plan", "a loss", "conf/loss names them")
    return lesson is not None and (records is None or plan.kl_weight > 0)


def _train(module: nn.Module, given: _Exercises, plan: LearningPlan, seeds: Seeds) -> None:
    optimizer = adam([p for p in module.parameters() if p.requires_grad], plan)
    own = _dealt(given.inputs, given.labels, plan, seeds.records)
    asked = _dealt(given.queries, given.consensus, plan, seeds.lesson)
    for _ in range(given.steps):
        loss = _loss(module, next(own), next(asked), plan)
        if not math.isfinite(loss.item()):
            raise diverged("a loss", plan)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        optimizer.step()


_Batch = tuple[Tensor, Tensor] | None


def _dealt(
    inputs: Tensor | None, targets: Tensor | None, plan: LearningPlan, seed: int
) -> Iterator[_Batch]:
    if inputs is None or targets is None:
        yield from itertools.repeat(None)
        return
    for rows in batches(len(inputs), plan.batch, generator(seed)):
        yield inputs[rows], targets[rows]


def _loss(module: nn.Module, own: _Batch, asked: _Batch, plan: LearningPlan) -> Tensor:
    # One forward pass over both batches: its cost is mostly dispatch, and paid once.
    if asked is None or plan.loss is None:
        assert own is not None  # noqa: S101 - check_learnable has seen to it
        return functional.cross_entropy(module(own[0]), own[1])
    if own is None:
        return plan.loss(module(asked[0]), asked[1])
    count = len(own[0])
    logits = module(torch.cat([own[0], asked[0]]))
    told = plan.loss(logits[count:], asked[1])
    return functional.cross_entropy(logits[:count], own[1]) + plan.kl_weight * told


def _state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _seed(rng: Rng) -> int:
    return int(rng.integers(0, 2**63 - 1))


def _check_logits(space: Space, name: str, module: nn.Module) -> None:
    expected = f"a module that turns [N, {', '.join(map(str, space.shape))}] into logits"
    expected += f" [N, {len(space.classes)}]"
    try:
        with torch.no_grad():
            made = module(torch.zeros(2, *space.shape))
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{name}, which cannot read such inputs ({first})", expected) from error
    if not isinstance(made, Tensor) or made.shape != (2, len(space.classes)):
        found = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
        raise BadInput(f"{name}, which makes {found} of 2 inputs", expected)
