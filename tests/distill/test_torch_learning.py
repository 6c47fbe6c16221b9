"""How a torch model learns from records and lessons."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fedkd.data import Records
from fedkd.distill import DivergedTraining, as_classifier
from fedkd.distill.batches import batches, timetable
from fedkd.distill.laws import Toy
from fedkd.distill.losses.jensen_shannon import jensen_shannon
from fedkd.distill.losses.kl import kl
from fedkd.distill.models.logistic import logistic
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.tabular import tabular
from fedkd.knowledge import BadInput, Distributions, Lesson


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(one, other) -> bool:
    a, b = one.weights(), other.weights()
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_a_lesson_of_weight_zero_is_plain_training(table: Toy, plan) -> None:
    model = mlp(table.space, rng())
    plain = model.fit(table.records, None, plan(loss=None), rng(1))
    mixed = model.fit(table.records, table.lesson, plan(kl_weight=0.0), rng(1))
    assert same(plain, mixed)
    assert not same(plain, model.fit(table.records, table.lesson, plan(), rng(1)))


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("loss", [kl(), kl(temperature=3.0), jensen_shannon()])
def test_one_step_is_one_step_of_adam_on_both_terms(table: Toy, plan, weight: float, loss) -> None:
    model = logistic(table.space, rng())
    now = plan(epochs=1, batch=1000, kl_weight=weight, loss=loss, learning_rate=1e-2)
    found = model.fit(table.records, table.lesson, now, rng(1)).weights()

    byhand = model.module()
    optimizer = torch.optim.Adam(byhand.parameters(), lr=1e-2)
    logits = byhand(torch.from_numpy(table.space.scaled(table.records.inputs)))
    asked = byhand(torch.from_numpy(table.space.scaled(table.lesson.queries.inputs)))
    target = torch.from_numpy(table.lesson.consensus.probs.copy())
    labels = torch.from_numpy(table.records.labels.copy())
    (functional.cross_entropy(logits, labels) + weight * loss(asked, target)).backward()
    optimizer.step()
    for name, tensor in byhand.state_dict().items():
        assert np.allclose(found[name], tensor.numpy(), atol=1e-6)


def test_a_lesson_alone_is_learnt_whatever_its_weight(table: Toy, plan) -> None:
    model = mlp(table.space, rng())
    one = model.fit(None, table.lesson, plan(kl_weight=1.0), rng(1))
    assert same(one, model.fit(None, table.lesson, plan(kl_weight=0.0), rng(1)))
    assert not same(one, model)


def test_learning_starts_where_it_stopped(table: Toy, plan) -> None:
    once = mlp(table.space, rng()).fit(table.records, None, plan(epochs=1), rng(1))
    twice = once.fit(table.records, None, plan(epochs=1), rng(2))
    fresh = mlp(table.space, rng()).fit(table.records, None, plan(epochs=1), rng(2))
    assert not same(twice, fresh)


def test_no_epoch_changes_nothing(table: Toy, plan) -> None:
    model = mlp(table.space, rng())
    assert same(model, model.fit(table.records, table.lesson, plan(epochs=0), rng(1)))


def test_weight_decay_pulls_weights_to_zero(table: Toy, plan) -> None:
    model = mlp(table.space, rng())

    def size(decay: float) -> float:
        fitted = model.fit(table.records, None, plan(weight_decay=decay), rng(1))
        return float(np.square(fitted.weights()["1.weight"]).sum())

    assert size(10.0) < size(0.0)


@pytest.mark.parametrize(
    ("steps", "records", "queries", "expected"),
    [
        ("records", 30, 100, 3),
        ("lesson", 30, 100, 10),
        ("longest", 30, 100, 10),
        ("longest", 95, 7, 10),
        ("records", 0, 100, 10),
        ("lesson", 30, 0, 3),
        ("records", 31, 0, 4),
    ],
)
def test_an_epoch_passes_over_what_the_plan_says(plan, steps, records, queries, expected) -> None:
    assert plan(epochs=2, batch=10, steps=steps).step_count(records, queries) == 2 * expected


def test_longer_steps_learn_more_from_the_lesson(table: Toy, plan, some) -> None:
    model, few = mlp(table.space, rng()), some(table, 3, 0)
    asked, told = table.lesson.queries.inputs, table.lesson.consensus.probs

    def far(steps: str) -> float:
        fitted = model.fit(few, table.lesson, plan(steps=steps, batch=4), rng(1))
        return float(-(told * np.log(fitted.probs(asked) + 1e-9)).sum())

    assert far("longest") < far("records")
    assert far("lesson") == far("longest")


def test_training_moves_no_global_generator(table: Toy, plan) -> None:
    before = torch.get_rng_state()
    model = tabular(table.space, rng(), dropout=0.5)
    model = model.fit(table.records, table.lesson, plan(), rng(1))
    model.probs(table.records.inputs)
    assert torch.equal(before, torch.get_rng_state())


def test_training_puts_torch_back_as_it_was(table: Toy, plan) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(BadInput):
            mlp(table.space, rng()).fit(table.records, table.lesson, plan(loss=None), rng(1))
        mlp(table.space, rng()).fit(table.records, None, plan(), rng(1))
        assert torch.get_num_threads() == 2
        assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.set_num_threads(threads)


def test_dropout_is_drawn_from_the_sites_own_stream(table: Toy, plan) -> None:
    model = mlp(table.space, rng(), dropout=0.5)
    one = model.fit(table.records, None, plan(), rng(1))
    torch.rand(7)
    assert same(one, model.fit(table.records, None, plan(), rng(1)))
    assert np.array_equal(one.probs(table.records.inputs), one.probs(table.records.inputs))


def test_a_training_that_diverges_says_so(table: Toy, plan) -> None:
    model = mlp(table.space, rng())
    with pytest.raises(DivergedTraining, match="smaller learning rate than 1e\\+30"):
        model.fit(table.records, None, plan(learning_rate=1e30), rng(1))


def test_a_weight_that_is_not_finite_gives_no_answer(table: Toy) -> None:
    model = logistic(table.space, rng())
    spoilt = {name: np.full_like(a, np.nan) for name, a in model.weights().items()}
    with pytest.raises(DivergedTraining):
        model.with_weights(spoilt).probs(table.records.inputs)


def test_nothing_to_learn_from_is_refused(table: Toy, plan) -> None:
    model = mlp(table.space, rng())
    with pytest.raises(BadInput, match="neither records nor a lesson"):
        model.fit(None, None, plan(), rng(1))
    with pytest.raises(BadInput, match="no record"):
        model.fit(table.records.take(np.arange(0)), None, plan(), rng(1))


def test_a_label_outside_the_classes_is_refused(table: Toy, plan) -> None:
    strange = Records(table.records.inputs, table.records.labels + 1)
    with pytest.raises(BadInput, match="labels from 1 to 3, expected codes from 0 to 2"):
        mlp(table.space, rng()).fit(strange, None, plan(), rng(1))


def test_a_lesson_about_other_classes_is_refused(table: Toy, plan) -> None:
    about = table.lesson.queries
    other = Lesson(about, Distributions(np.full((len(about), 2), 0.5), about.digest))
    with pytest.raises(BadInput, match="a lesson about 2 classes, expected 3"):
        mlp(table.space, rng()).fit(None, other, plan(), rng(1))


@pytest.mark.parametrize(
    "keys", [{"epochs": -1}, {"batch": 0}, {"learning_rate": float("nan")}, {"kl_weight": -1.0}]
)
def test_a_plan_checks_itself(plan, keys) -> None:
    with pytest.raises(BadInput):
        plan(**keys)


class WithBatchStatistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, inputs):
        return self.last(self.norm(inputs))


def test_buffers_are_learnt_and_travel_with_the_weights(table: Toy, plan) -> None:
    model = as_classifier(WithBatchStatistics, table.space, rng())
    fitted = model.fit(table.records, None, plan(), rng(1))
    assert fitted.weights()["norm.num_batches_tracked"] == 3 * 4
    back = as_classifier(WithBatchStatistics, table.space, rng(5)).with_weights(fitted.weights())
    assert np.array_equal(back.probs(table.records.inputs), fitted.probs(table.records.inputs))


def test_images_stay_uint8_at_rest(image: Toy, plan) -> None:
    model = logistic(image.space, rng()).fit(image.records, image.lesson, plan(), rng(1))
    assert image.records.inputs.dtype == np.uint8
    held = [t for t in model.state.values() if t.numel() >= image.records.inputs.size]
    assert held == []


@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 50),
    steps=st.integers(0, 30),
    seed=st.integers(0, 2**32),
)
def test_a_timetable_is_what_batches_deals_out(count, batch, steps, seed) -> None:
    table = timetable(count, batch, steps, torch.Generator().manual_seed(seed))
    dealt = batches(count, batch, torch.Generator().manual_seed(seed))
    assert len(table) == steps
    for row in table:
        assert torch.equal(row[row >= 0], next(dealt))


@given(count=st.integers(1, 40), batch=st.integers(1, 50))
def test_a_pass_deals_every_row_once(count, batch) -> None:
    dealt = batches(count, batch, torch.Generator().manual_seed(0))
    for _ in range(2):
        rows = torch.cat([next(dealt) for _ in range(-(-count // batch))])
        assert sorted(rows.tolist()) == list(range(count))
