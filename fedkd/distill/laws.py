"""The laws of losses, gates and models: sentences that any part of the kind must satisfy."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedkd.data import Records
from fedkd.distill.gates.gate import Gate
from fedkd.distill.models.classifier import (
    Classifier,
    ClassifierFactory,
    DistillLoss,
    LearningPlan,
)
from fedkd.knowledge import (
    Array,
    BadInput,
    Distributions,
    Lesson,
    Public,
    QuerySet,
    Space,
    check_distributions,
)

if TYPE_CHECKING:
    from torch import Tensor

# B rows, C classes, N inputs.


class LawBroken(AssertionError):
    """A part that does not do what every part of its kind must."""


def _hold(holds: bool, otherwise: str) -> None:
    if not holds:
        raise LawBroken(otherwise)


# Losses ------------------------------------------------------------------------------------


def _drawn(seed: int, rows: int = 6, classes: int = 4) -> "tuple[Tensor, Tensor]":
    import torch

    lot = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=lot, dtype=torch.float64)
    target = (2 * torch.randn(rows, classes, generator=lot, dtype=torch.float64)).softmax(1)
    return logits, target


def loss_is_never_negative(loss: DistillLoss) -> None:
    """Whatever the model and the consensus say."""
    for seed in range(20):
        far, target = _drawn(seed)
        for logits in (far, target.log()):
            found = float(loss(logits, target))
            _hold(found >= -1e-12, f"a loss of {found:g}, expected at least 0")


def loss_is_least_at_equality(loss: DistillLoss) -> None:
    """A model that says what the consensus says has nothing to learn."""
    for seed in range(10):
        moved, target = _drawn(seed)
        equal = target.log().requires_grad_()
        least = loss(equal, target)
        least.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        _hold(equal.grad is not None, "no gradient reaches the logits")
        slope = 0.0 if equal.grad is None else float(equal.grad.abs().max())
        _hold(slope < 1e-9, f"a gradient of {slope:g} at equality, expected 0")
        at_it = float(least.detach())
        for size in (1e-2, 1.0):
            other = float(loss(target.log() + size * moved, target))
            _hold(other >= at_it - 1e-12, f"{other:g} away from equality, {at_it:g} at it")


def loss_is_finite_at_the_corners(loss: DistillLoss) -> None:
    """Also its gradient, in float32, for a consensus and a model that are sure, right or wrong."""
    import torch

    for sure in (0.0, 30.0, 1000.0):
        logits = (sure * torch.eye(3)[[0, 1, 2]]).requires_grad_()
        found = loss(logits, torch.eye(3)[[0, 2, 1]])
        found.backward()  # type: ignore[no-untyped-call]  # torch has no annotation here
        _hold(bool(torch.isfinite(found)), f"a loss of {found.item()} at a corner of the simplex")
        finite = logits.grad is not None and bool(torch.isfinite(logits.grad).all())
        _hold(finite, "a gradient that is not finite at a corner of the simplex")


def loss_has_the_gradient_of_its_value(loss: DistillLoss) -> None:
    """Checked by finite differences in float64."""
    import torch

    logits, target = _drawn(0)
    try:
        torch.autograd.gradcheck(lambda z: loss(z, target), logits.requires_grad_())
    except RuntimeError as error:
        raise LawBroken(f"a gradient that is none of the value's: {error}") from error


def loss_is_the_mean_of_its_rows(loss: DistillLoss) -> None:
    """So that neither the size of a batch nor its company matters, and cohorts can weigh rows."""
    logits, target = _drawn(1)
    whole = float(loss(logits, target))
    rows = [float(loss(logits[[i]], target[[i]])) for i in range(len(logits))]
    _hold(bool(abs(whole - np.mean(rows)) < 1e-9), f"{whole:g} for a batch whose rows mean {rows}")


def loss_leaves_what_it_is_given(loss: DistillLoss) -> None:
    """Neither logits nor consensus are written to."""
    logits, target = _drawn(2)
    before = logits.clone(), target.clone()
    loss(logits, target)
    _hold(bool((logits == before[0]).all()), "logits that were written to")
    _hold(bool((target == before[1]).all()), "a consensus that was written to")


LOSS_LAWS: Mapping[str, Callable[[DistillLoss], None]] = {
    "a loss is never negative": loss_is_never_negative,
    "a loss is least where the model agrees": loss_is_least_at_equality,
    "a loss is finite at the corners of the simplex": loss_is_finite_at_the_corners,
    "a loss has the gradient of its value": loss_has_the_gradient_of_its_value,
    "a loss is the mean of its rows' losses": loss_is_the_mean_of_its_rows,
    "a loss leaves what it is given": loss_leaves_what_it_is_given,
}


# Models ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Toy:
    """A small task that every model of its kind can learn, with a lesson of the same truth."""

    space: Space
    records: Records
    lesson: Lesson

    @staticmethod
    def of(kind: str) -> "Toy":
        """`table`: three clouds of points; `image`: three places of a bright square."""
        rng = np.random.default_rng(0)
        labels = np.arange(120) % 3
        classes = ("left", "middle", "right")
        if kind == "table":
            space = Space("table", (6,), "float32", -10, 10, classes)
            centres = rng.normal(0, 2, (3, 6))
            inputs = (centres[labels] + rng.normal(0, 0.5, (120, 6))).astype(np.float32)
        else:
            space = Space("image", (9, 9), "uint8", 0, 255, classes, 0, 255)
            inputs = rng.integers(0, 60, (120, 9, 9)).astype(np.uint8)
            for row, label in enumerate(labels):
                inputs[row, :, 3 * label : 3 * label + 3] += 150
        origin = Public("toy", "none", "none")
        queries = QuerySet(inputs[60:], origin)
        sure = np.float32(0.1) / 3 + np.float32(0.9) * np.eye(3, dtype=np.float32)[labels[60:]]
        lesson = Lesson(queries, Distributions(sure, queries.digest))
        return Toy(space, Records(inputs[:60], labels[:60].astype(np.int64)), lesson)


def toy_for(factory: ClassifierFactory) -> Toy:
    """The first toy that `factory` makes a model for; its own `BadInput` where there is none."""
    refusals = []
    for kind in ("table", "image"):
        toy = Toy.of(kind)
        try:
            factory(toy.space, np.random.default_rng(0))
        except BadInput as refusal:
            refusals.append(refusal)
        else:
            return toy
    raise refusals[0]


def _plan(epochs: int = 10) -> LearningPlan:
    from fedkd.distill.losses.kl import kl

    return LearningPlan(epochs=epochs, batch=16, learning_rate=5e-3, loss=kl())


def _made(factory: ClassifierFactory) -> tuple[Toy, Classifier]:
    toy = toy_for(factory)
    return toy, factory(toy.space, np.random.default_rng(0))


def _fit(
    model: Classifier, records: Records | None, lesson: Lesson | None, seed: int = 1
) -> Classifier:
    return model.fit(records, lesson, _plan(), np.random.default_rng(seed))


def _brier(probs: Array, target: Array) -> float:
    # Not the logarithmic loss: a model whose answers are counts may be sure and now and then wrong.
    return float(np.square(probs - target).sum(axis=1).mean())


def model_answers_with_distributions(factory: ClassifierFactory) -> None:
    """One a row, float32, all classes, untrained and trained, for none, one and many inputs."""
    toy, model = _made(factory)
    for learnt in (model, _fit(model, toy.records, None)):
        for count in (0, 1, len(toy.records)):
            probs = learnt.probs(toy.records.inputs[:count])
            expected = (count, len(toy.space.classes))
            _hold(probs.shape == expected, f"answers {probs.shape}, expected {expected}")
            _hold(probs.dtype == np.float32, f"answers of type {probs.dtype}, expected float32")
            try:
                check_distributions(probs)
            except ValueError as error:
                raise LawBroken(f"answers off the simplex: {error}") from error


def model_learns_from_records(factory: ClassifierFactory) -> None:
    """The loss on the records falls."""
    toy, model = _made(factory)
    truth = np.eye(len(toy.space.classes))[toy.records.labels]
    before = _brier(model.probs(toy.records.inputs), truth)
    after = _brier(_fit(model, toy.records, None).probs(toy.records.inputs), truth)
    _hold(after < before, f"a loss of {after:g} after training, {before:g} before")


def model_learns_from_a_lesson(factory: ClassifierFactory) -> None:
    """Alone, as a student does; and beside records, in the same turn."""
    toy, model = _made(factory)
    asked, told = toy.lesson.queries.inputs, toy.lesson.consensus.probs
    before = _brier(model.probs(asked), told)
    alone = _brier(_fit(model, None, toy.lesson).probs(asked), told)
    _hold(alone < before, f"a loss of {alone:g} after a lesson, {before:g} before")
    beside = _fit(model, toy.records, toy.lesson).probs(asked)
    without = _fit(model, toy.records, None).probs(asked)
    _hold(not np.array_equal(beside, without), "a lesson beside records that changes nothing")
    mixed = _brier(beside, told)
    _hold(mixed < before, f"a loss of {mixed:g} after records and lesson, {before:g} before")


def model_leaves_what_it_is_given(factory: ClassifierFactory) -> None:
    """Learning gives another model: the one that learnt answers as before."""
    toy, model = _made(factory)
    before = model.probs(toy.records.inputs)
    given = [toy.records.inputs, toy.records.labels, toy.lesson.queries.inputs]
    copies = [array.copy() for array in given]
    learnt = _fit(model, toy.records, toy.lesson)
    learnt.probs(toy.records.inputs)
    _hold(np.array_equal(before, model.probs(toy.records.inputs)), "a model changed by its fit")
    same = all(np.array_equal(a, b) for a, b in zip(given, copies, strict=True))
    _hold(same, "records or queries that were written to")
    weights = learnt.weights()
    if weights is not None:
        now = learnt.probs(toy.records.inputs)
        for array in weights.values():
            array[...] = 0
        _hold(np.array_equal(now, learnt.probs(toy.records.inputs)), "weights that are no copies")


def model_repeats_itself(factory: ClassifierFactory) -> None:
    """The same seed gives the same bytes, whatever the global generators hold."""
    toy, _ = _made(factory)

    def once(disturb: int) -> bytes:
        with _disturbed(disturb):
            model = factory(toy.space, np.random.default_rng(3))
            model = _fit(model, toy.records, None, seed=4)
            model = _fit(model, toy.records, toy.lesson, seed=5)
            return model.probs(toy.records.inputs).tobytes()

    _hold(once(1) == once(2), "other bytes from the same seed")


@contextmanager
def _disturbed(seed: int) -> Iterator[None]:
    """Puts the global generators elsewhere for a while; they must not be moved meanwhile."""
    import torch

    kept = np.random.get_state(), torch.get_rng_state()
    np.random.seed(seed)
    torch.manual_seed(seed)
    numpy_before, torch_before = np.random.get_state(legacy=False), torch.get_rng_state()
    try:
        yield
        same = repr(np.random.get_state(legacy=False)) == repr(numpy_before)
        _hold(same, "a draw from numpy's global generator")
        _hold(torch.equal(torch.get_rng_state(), torch_before), "a draw from torch's")
    finally:
        np.random.set_state(kept[0])
        torch.set_rng_state(kept[1])


def model_comes_back_from_its_weights(factory: ClassifierFactory) -> None:
    """Into a model that began differently; or it says that it has none."""
    toy, model = _made(factory)
    learnt = _fit(model, toy.records, None)
    weights = learnt.weights()
    if weights is None:
        _hold(learnt.parameters is None, "parameters without weights")
        return
    other = factory(toy.space, np.random.default_rng(9))
    _hold(other.architecture == learnt.architecture, "another architecture from another seed")
    back = other.with_weights(weights).probs(toy.records.inputs)
    _hold(np.array_equal(back, learnt.probs(toy.records.inputs)), "other answers after the trip")
    spoilt: dict[str, Any] = {**weights, "no such array": np.zeros(1, np.float32)}
    try:
        other.with_weights(spoilt)
    except ValueError:
        return
    raise LawBroken("weights of another architecture that were taken")


def model_learns_from_one_class(factory: ClassifierFactory) -> None:
    """A site may know a single class: it still answers about all of them."""
    toy, model = _made(factory)
    one = toy.records.take(toy.records.labels == 2)
    probs = _fit(model, one, None).probs(toy.records.inputs)
    check_distributions(probs)
    _hold(probs.shape[1] == len(toy.space.classes), "answers about the classes of one site alone")
    _hold(bool((probs.argmax(axis=1) == 2).any()), "a class that was never learnt")


MODEL_LAWS: Mapping[str, Callable[[ClassifierFactory], None]] = {
    "a model answers with distributions": model_answers_with_distributions,
    "a model learns from records": model_learns_from_records,
    "a model learns from a lesson": model_learns_from_a_lesson,
    "a model leaves what it is given": model_leaves_what_it_is_given,
    "a model gives the same bytes for the same seed": model_repeats_itself,
    "a model comes back from its weights": model_comes_back_from_its_weights,
    "a model learns from a single class": model_learns_from_one_class,
}


# Gates -------------------------------------------------------------------------------------


def gate_is_a_share(gate: Gate) -> None:
    """One number in [0, 1] for each input, the same each time it is asked."""
    for kind in ("table", "image"):
        toy = Toy.of(kind)
        memory = gate.fit(toy.space, toy.records, toy.lesson.queries, np.random.default_rng(0))
        opened = gate.open(toy.space, memory, toy.records.inputs)
        _hold(opened.shape == (len(toy.records),), f"gates of shape {opened.shape}")
        _hold(bool(((opened >= 0) & (opened <= 1)).all()), "a gate outside [0, 1]")
        again = gate.open(toy.space, memory, toy.records.inputs)
        _hold(np.array_equal(opened, again), "a gate that changes its mind")


GATE_LAWS: Mapping[str, Callable[[Gate], None]] = {
    "a gate is a share in [0, 1]": gate_is_a_share,
}
