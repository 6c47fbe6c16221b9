"""Private training: what each step adds up, how much noise lies on it, and whom it takes."""

import math
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from torch import nn

from fedkd.data import Records
from fedkd.distill import DivergedTraining
from fedkd.distill.models.cnn import cnn
from fedkd.distill.models.logistic import logistic
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.random_forest import random_forest
from fedkd.distill.models.torch_classifier import TorchClassifier
from fedkd.distill.private import PrivateTraining, gradients, train_privately, training
from fedkd.knowledge import BadInput

# P patients, D trained numbers, S steps.


def lot(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def silent(count: int) -> np.ndarray:
    return np.zeros(count)


def nobody(count: int) -> np.ndarray:
    return np.ones(count) - 2.0**-53


def flat(model: TorchClassifier) -> np.ndarray:
    return np.concatenate([array.ravel() for array in model.weights().values()]).astype(float)


def moved(model: TorchClassifier, trained: TorchClassifier) -> np.ndarray:
    """What plain descent at a rate of one was given, the sum over its divisor: [D]."""
    return flat(model) - flat(trained)


def same(one: TorchClassifier, other: TorchClassifier) -> bool:
    return np.array_equal(flat(one), flat(other))


@pytest.fixture
def still(table, of_module) -> TorchClassifier:
    """A model whose gradient is zero on zero inputs: what moves it is the noise. D = 3,000."""
    return of_module(table, lambda: nn.Sequential(Twist(), nn.Linear(1000, 3, bias=False)))


class Twist(nn.Module):
    """A table's first entry, a thousand times."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[:, :1].expand(-1, 1000)


@pytest.fixture(scope="module")
def zeros() -> Records:
    return Records(np.zeros((20, 5), np.float32), np.arange(20) % 3)


# What a step is -----------------------------------------------------------------------------


def test_a_step_is_the_noised_sum_over_the_expected_number(table, records, plan) -> None:
    model, own = mlp(table, lot(), hidden=4), records(table, [1, 2, 3, 1])
    noise = lot(1).standard_normal(model.parameters)
    now = plan(patients=8, clip=0.3, noise_multiplier=2.0)
    quiet = moved(model, train_privately(model, own, now, silent, lot().random)) * 8
    noisy = moved(model, train_privately(model, own, now, lambda _: noise, lot().random)) * 8
    assert np.linalg.norm(quiet) <= 4 * 0.3 * (1 + 1e-5)
    assert np.allclose(noisy - quiet, 0.6 * noise, atol=1e-5)


def test_with_a_large_clip_it_is_plain_descent(table, records, plan) -> None:
    model, own = mlp(table, lot(), hidden=4), records(table, [1] * 9)
    module = model.module()
    inputs = torch.from_numpy(table.scaled(own.inputs))
    torch.nn.functional.cross_entropy(
        module(inputs), torch.from_numpy(own.labels.copy())
    ).backward()
    plain = np.concatenate([p.grad.numpy().ravel() for p in module.parameters()])
    now = plan(patients=9, clip=1e6)
    assert np.allclose(moved(model, train_privately(model, own, now, silent, lot().random)), plain)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_optimizer_sees_the_noised_sums_and_nothing_else(
    table, records, plan, optimizer
) -> None:
    # Post-processing: given what the steps released, the weights follow.
    model, own = logistic(table, lot()), records(table, [1, 2, 1])
    now = plan(
        steps=5, patients=3, optimizer=optimizer, momentum=0.9, learning_rate=0.1, weight_decay=0.01
    )
    released: list[torch.Tensor] = []
    weights = torch.from_numpy(flat(model)).float()
    if optimizer == "sgd":
        by_hand = torch.optim.SGD([weights], lr=0.1, momentum=0.9, weight_decay=0.01)
    else:
        by_hand = torch.optim.AdamW([weights], lr=0.1, weight_decay=0.01)
    noise = lot(2).standard_normal((5, model.parameters))
    found = train_privately(model, own, now, _each(noise), nobody)
    for step in range(5):
        partial = weights.clone()
        start = model.with_weights(_as_weights(model, partial.numpy()))
        one = plan(patients=3)
        given = moved(start, train_privately(start, own, one, lambda _, s=step: noise[s], nobody))
        released.append(torch.from_numpy(given).float())
        weights.grad = released[-1]
        by_hand.step()
    assert np.allclose(flat(found), weights.numpy(), atol=1e-4)


def _each(noise: np.ndarray) -> Callable[[int], np.ndarray]:
    left = iter(noise.flatten())
    return lambda count: np.fromiter(islice(left, count), np.float64)


def _as_weights(model: TorchClassifier, numbers: np.ndarray) -> dict[str, np.ndarray]:
    parts, start = {}, 0
    for name, array in model.weights().items():
        parts[name] = numbers[start : start + array.size].reshape(array.shape).astype(array.dtype)
        start += array.size
    return parts


def test_the_same_streams_give_the_same_bits(image, records, plan) -> None:
    model, own = cnn(image, lot(), width=2, hidden=4), records(image, [1, 2, 1, 3])
    now = plan(patients=4, steps=3, sampling_rate=0.5)

    def once(noise: int, sampling: int) -> TorchClassifier:
        return train_privately(model, own, now, lot(noise).standard_normal, lot(sampling).random)

    assert same(once(1, 2), once(1, 2))
    assert not same(once(1, 2), once(3, 2))
    assert not same(once(1, 2), once(1, 3))


@pytest.mark.parametrize("most", [3, 1000])
def test_the_order_of_records_is_no_matter(table, records, plan, monkeypatch, most) -> None:
    monkeypatch.setattr(gradients, "MOST_ROWS", most)
    model, own = mlp(table, lot(), hidden=4), records(table, [1, 2, 3, 1, 5, 2])
    sorted_by_patient = own.take(np.argsort(own.patients))
    now = plan(patients=6, steps=4, sampling_rate=0.5)
    one, other = (
        flat(train_privately(model, each, now, lot(1).standard_normal, lot(2).random))
        for each in (own, sorted_by_patient)
    )
    assert np.allclose(one, other, atol=1e-6)


def test_it_learns(table, plan) -> None:
    draw = lot(3)
    inputs = draw.uniform(-4, 4, (2000, 5)).astype(np.float32)
    own = Records(inputs, (inputs[:, 0] > 0).astype(np.int64))
    now = plan(patients=2000, steps=60, noise_multiplier=15.0, learning_rate=0.5, momentum=0.9)
    model = mlp(table, lot())
    for keys in ({}, {"sampling_rate": 0.2, "noise_multiplier": 3.0}):
        fitted = train_privately(
            model, own, PrivateTraining(**{**_of(now), **keys}), draw.standard_normal, draw.random
        )
        assert (fitted.probs(inputs).argmax(1) == own.labels).mean() > 0.9


def _of(now: PrivateTraining) -> dict[str, object]:
    return {name: getattr(now, name) for name in PrivateTraining.__dataclass_fields__}


# Noise: once a step, and as much as was paid for ----------------------------------------------


def noise_is_right(still: TorchClassifier, zeros: Records, plan) -> None:
    """D = 3,000 numbers: a deviation that is 20 % off is 15 standard errors away."""
    now = plan(patients=25, noise_multiplier=3.0, clip=0.7)
    given = (
        moved(still, train_privately(still, zeros, now, lot(1).standard_normal, lot(2).random)) * 25
    )
    expected = 3.0 * 0.7
    assert abs(given.std() / expected - 1) < 0.05
    assert abs(given.mean()) < 4 * expected / math.sqrt(len(given))


def test_the_noise_has_the_deviation_that_was_paid_for(still, zeros, plan) -> None:
    noise_is_right(still, zeros, plan)


def test_each_step_draws_noise_for_each_number_once(table, records, plan) -> None:
    model, drawn = mlp(table, lot()), []

    def noise(count: int) -> np.ndarray:
        drawn.append(count)
        return np.zeros(count)

    for rate in (1.0, 0.3):
        drawn.clear()
        now = plan(patients=4, steps=7, sampling_rate=rate)
        train_privately(model, records(table, [1, 2, 1, 1]), now, noise, lot(2).random)
        assert sum(drawn) == model.parameters * 7


@pytest.mark.parametrize(
    "wrong", [lambda count: np.zeros(1), lambda count: np.zeros(count, np.float32)]
)
def test_a_source_that_gives_other_numbers_than_asked_is_an_error(
    wrong, table, records, plan
) -> None:
    model, own = logistic(table, lot()), records(table, [1, 2])
    with pytest.raises(ValueError, match=r"expected .* and float64"):
        train_privately(model, own, plan(), wrong, nobody)
    with pytest.raises(ValueError, match=r"expected .* and float64"):
        train_privately(model, own, plan(sampling_rate=0.5), silent, wrong)


def test_noise_of_several_steps_adds_up(still, zeros, plan) -> None:
    now = plan(patients=25, noise_multiplier=3.0, steps=9)
    given = (
        moved(still, train_privately(still, zeros, now, lot(1).standard_normal, lot(2).random)) * 25
    )
    assert abs(given.std() / (3.0 * math.sqrt(9)) - 1) < 0.05


def test_a_step_without_anybody_is_a_step(table, records, plan) -> None:
    model, own = logistic(table, lot()), records(table, [1, 2, 1])
    now = plan(patients=3, steps=2, sampling_rate=0.01, noise_multiplier=2.0)
    noise = lot(5).standard_normal((2, model.parameters))
    given = moved(model, train_privately(model, own, now, _each(noise), nobody))
    assert np.allclose(given * 0.03, 2.0 * noise.sum(axis=0), atol=1e-5)


def test_a_site_of_which_everybody_was_taken_out_trains_on_noise(table, records, plan) -> None:
    model, none = logistic(table, lot()), records(table, [1]).take(np.zeros(0, dtype=int))
    noise = lot(5).standard_normal(model.parameters)
    given = moved(model, train_privately(model, none, plan(patients=3), lambda _: noise, nobody))
    assert np.allclose(given * 3, noise, atol=1e-5)


# Clipping: one patient is worth one clip ------------------------------------------------------


def a_patient_is_worth_one_clip(table, records, plan) -> None:
    model = mlp(table, lot(), hidden=4)
    counts, clip = [1, 3, 2, 1, 5], 0.05
    own = records(table, counts)
    now = plan(patients=5, clip=clip)

    def total(of: Records) -> np.ndarray:
        return moved(model, train_privately(model, of, now, silent, nobody)) * 5

    everybody = total(own)
    for patient in np.unique(own.patients):
        without = own.take(own.patients != patient)
        assert np.linalg.norm(everybody - total(without)) <= clip * (1 + 1e-4)
        turned = Records(
            np.where((own.patients == patient)[:, None], -own.inputs, own.inputs),
            own.labels, own.patients,
        )  # fmt: skip
        assert np.linalg.norm(everybody - total(turned)) <= 2 * clip * (1 + 1e-4)


def test_a_patient_is_worth_one_clip_however_many_rows(table, records, plan) -> None:
    a_patient_is_worth_one_clip(table, records, plan)


def test_the_unit_is_a_row_where_the_plan_says_so(table, records, plan) -> None:
    model, own = mlp(table, lot(), hidden=4), records(table, [4, 4])
    bare = Records(own.inputs, own.labels)

    def given(of: Records, unit: str) -> np.ndarray:
        now = plan(patients=8, clip=0.05, unit=unit)
        return moved(model, train_privately(model, of, now, silent, nobody))

    assert np.allclose(given(own, "record"), given(bare, "patient"), atol=1e-9)
    assert not np.allclose(given(own, "patient"), given(bare, "patient"), atol=1e-4)


# Dividing: by a public number -----------------------------------------------------------------


def what_divides_is_public(table, records, plan) -> None:
    """Patients of whom nothing is learnt change nothing: nobody can count them."""
    model, own = logistic(table, lot()), records(table, [1, 2, 3])
    noise = lot(4).standard_normal(model.parameters)
    now = plan(patients=12, sampling_rate=0.5)

    def step(of: Records, uniforms: list[float]) -> np.ndarray:
        drawn = iter([np.array([0.5]), np.array(uniforms)])
        return moved(
            model,
            train_privately(model, of, now, lambda _: noise, lambda count: next(drawn)[:count]),
        )

    taken = step(own, [0.1, 0.9, 0.1] + [0.1] * 9)  # two of the three who are there
    quiet = step(own, [0.9] * 12)
    assert np.allclose(quiet * 6, noise, atol=1e-5)
    assert np.linalg.norm(taken * 6 - noise) <= 2 * (1 + 1e-5)


def test_what_a_sum_is_divided_by_depends_on_no_record(table, records, plan) -> None:
    what_divides_is_public(table, records, plan)


# Sampling: Poisson, by patient -----------------------------------------------------------------


def batches_are_poisson(table, records, plan, monkeypatch) -> None:
    taken: list[list[int]] = []
    real = training._sampled

    def watch(*given):
        rows = real(*given)
        taken.append([int(size) for size in rows.counts])
        return rows

    monkeypatch.setattr(training, "_sampled", watch)
    counts = list(range(1, 41))  # a patient is known by the number of rows
    now = plan(patients=40, steps=400, sampling_rate=0.3, learning_rate=1e-6)
    model = logistic(table, lot())
    train_privately(model, records(table, counts), now, silent, lot(6).random)
    there = np.array([[size in step for size in counts] for step in taken])
    sizes = there.sum(axis=1)
    assert abs(sizes.mean() - 12) < 4 * math.sqrt(40 * 0.21 / 400)
    assert 0.75 < sizes.var() / (40 * 0.21) < 1.3  # a batch of a fixed size has none
    assert np.abs(there.mean(axis=0) - 0.3).max() < 4.5 * math.sqrt(0.21 / 400)
    together = np.corrcoef(there.T.astype(float)) - np.eye(40)
    assert np.abs(together).max() < 5 / math.sqrt(400)


def test_each_patient_is_taken_by_itself(table, records, plan, monkeypatch) -> None:
    batches_are_poisson(table, records, plan, monkeypatch)


def test_a_patient_who_was_taken_out_leaves_the_others_as_they_were(table, records, plan) -> None:
    # The draws are of all public slots, so that who is there cannot be told from their number.
    model, asked = logistic(table, lot()), []

    def sampling(count: int) -> np.ndarray:
        asked.append(count)
        return np.zeros(count)

    now = plan(patients=30, sampling_rate=0.5, steps=2)
    train_privately(model, records(table, [1] * 7), now, silent, sampling)
    assert asked == [1, 30, 30]


# Planted faults are found ----------------------------------------------------------------------


def test_noise_that_is_20_percent_too_small_is_found(still, zeros, plan, monkeypatch) -> None:
    real = training._drawn
    monkeypatch.setattr(training, "_drawn", lambda source, count: 0.8 * real(source, count))
    with pytest.raises(AssertionError):
        noise_is_right(still, zeros, plan)


def test_missing_clipping_is_found(table, records, plan, monkeypatch) -> None:
    real = training.clipped_sum
    monkeypatch.setattr(
        training, "clipped_sum", lambda way, rows, clip, most: real(way, rows, 1e9, most)
    )
    with pytest.raises(AssertionError):
        a_patient_is_worth_one_clip(table, records, plan)


def test_clipping_by_row_in_place_of_patient_is_found(table, records, plan, monkeypatch) -> None:
    real = training._people

    def by_row(space, own, now):
        return real(space, Records(own.inputs, own.labels), _many(now))

    monkeypatch.setattr(training, "_people", by_row)
    with pytest.raises(AssertionError):
        a_patient_is_worth_one_clip(table, records, plan)


def _many(now: PrivateTraining) -> PrivateTraining:
    return PrivateTraining(**{**_of(now), "patients": 10**6})


def test_dividing_by_the_true_size_of_a_batch_is_found(table, records, plan, monkeypatch) -> None:
    size = [1]
    real = training._sampled

    def watch(*given):
        rows = real(*given)
        size[0] = max(1, len(rows.counts))
        return rows

    monkeypatch.setattr(training, "_sampled", watch)
    monkeypatch.setattr(PrivateTraining, "divisor", property(lambda self: size[0]))
    with pytest.raises(AssertionError):
        what_divides_is_public(table, records, plan)


def test_batches_of_a_fixed_size_are_found(table, records, plan, monkeypatch) -> None:
    order = lot(7)

    def fixed(people, now, sampling):
        chosen = np.zeros(len(people.counts), dtype=bool)
        chosen[order.permutation(len(people.counts))[:12]] = True
        return people.of(torch.from_numpy(chosen))

    monkeypatch.setattr(training, "_sampled", fixed)
    with pytest.raises(AssertionError):
        batches_are_poisson(table, records, plan, monkeypatch)


# What stays as it was ---------------------------------------------------------------------------


def test_frozen_weights_and_buffers_stay(table, records, plan, of_module) -> None:
    def build() -> nn.Module:
        stack = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        stack[0].weight.requires_grad_(False)
        stack.register_buffer("kept", torch.arange(3.0))
        return stack

    model = of_module(table, build)
    now = plan(patients=3, steps=3)
    trained = train_privately(model, records(table, [1, 1, 1]), now, lot(1).standard_normal, nobody)
    before, after = model.weights(), trained.weights()
    for name in ("0.weight", "kept"):
        assert np.array_equal(before[name], after[name])
    for name in ("0.bias", "2.weight", "2.bias"):
        assert not np.array_equal(before[name], after[name])
    assert not list(model.skeleton.modules())[1]._forward_hooks


def test_training_moves_no_global_generator_and_no_setting(table, records, plan) -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    model, own = mlp(table, lot(), dropout=0.5), records(table, [1, 2])
    trained = train_privately(
        model, own, plan(patients=2, steps=2), lot(1).standard_normal, lot(2).random
    )
    assert torch.equal(state, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert torch.isfinite(torch.from_numpy(flat(trained))).all()
    assert not same(model, trained)


def test_dropout_is_drawn_from_the_samplings_stream(table, records, plan) -> None:
    model, own = mlp(table, lot(), dropout=0.5), records(table, [1, 2, 1])
    now = plan(patients=3)

    def once(seed: int) -> TorchClassifier:
        return train_privately(model, own, now, silent, lot(seed).random)

    assert same(once(1), once(1))
    assert not same(once(1), once(2))


# What is refused -------------------------------------------------------------------------------


def refused(model, own, now, match: str) -> None:
    calls = []

    def noise(count: int) -> np.ndarray:
        calls.append(count)
        return np.zeros(count)

    with pytest.raises(BadInput, match=match):
        train_privately(model, own, now, noise, noise)
    assert not calls


@pytest.mark.parametrize("odd", [math.nan, math.inf, 1e3])
def test_records_that_are_not_finite_or_outside_their_space_are_refused(
    odd, table, records, plan
) -> None:
    own = records(table, [1, 2])
    inputs = own.inputs.copy()
    inputs[1, 2] = odd
    bad = Records(inputs, own.labels, own.patients)
    refused(logistic(table, lot()), bad, plan(), "outside their space")


def test_a_label_beyond_the_classes_is_refused(table, records, plan) -> None:
    own = records(table, [1, 2])
    refused(logistic(table, lot()), Records(own.inputs, own.labels + 3), plan(), "below 3")


def test_more_patients_than_the_plan_says_are_refused(table, records, plan) -> None:
    model, own = logistic(table, lot()), records(table, [1, 2, 1])
    refused(model, own, plan(patients=2), "records of 3 patients, expected at most the 2")
    refused(model, own, plan(patients=3, unit="record"), "records of 4 patients")


def test_a_model_without_gradient_steps_is_refused(table, records, plan) -> None:
    forest = random_forest(table, lot())
    refused(forest, records(table, [1, 2]), plan(), "trees answer privately under mechanism=pate")


def test_a_rate_that_is_too_large_for_finite_numbers_is_an_error(table, records, plan) -> None:
    with pytest.raises(DivergedTraining, match="smaller learning rate than 1e"):
        train_privately(
            logistic(table, lot()),
            records(table, [1, 2]),
            plan(noise_multiplier=1e9, learning_rate=1e38),
            lot(1).standard_normal,
            nobody,
        )


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"patients": 0}, "patients=0"),
        ({"patients": 2.0}, "patients=2.0"),
        ({"steps": True}, "steps=True"),
        ({"noise_multiplier": 0.0}, "noise_multiplier=0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier=nan"),
        ({"noise_multiplier": math.inf}, "noise_multiplier=inf"),
        ({"clip": -1.0}, "clip=-1.0"),
        ({"sampling_rate": 1.01}, "a probability"),
        ({"sampling_rate": 0.0}, "sampling_rate=0"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"optimizer": "lbfgs"}, "sgd | adam"),
        ({"unit": "row"}, "patient | record"),
    ],
)
def test_a_plan_checks_its_numbers(plan, keys, match) -> None:
    with pytest.raises(BadInput, match=match):
        plan(**keys)
