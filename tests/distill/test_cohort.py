"""Sites trained together learn what they learn alone."""

import time

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier
from torch import nn

from fedkd.data import Records
from fedkd.distill import DivergedTraining, as_classifier, cohortable, fit_cohort
from fedkd.distill.cohort import _chunks, _Member, _stretches
from fedkd.distill.laws import Toy
from fedkd.distill.models.cnn import cnn
from fedkd.distill.models.logistic import logistic
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.resnet import resnet
from fedkd.distill.models.tabular import tabular
from fedkd.knowledge import BadInput, Distributions, Lesson, Public, QuerySet

SIZES = (3, 40, 17, 60, 16, 1)


def rngs(seed: int, count: int = len(SIZES)) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, k]) for k in range(count)]


def sites(toy: Toy, factory, some, count: int = len(SIZES)):
    models = [factory(toy.space, lot) for lot in rngs(0, count)]
    records = [some(toy, SIZES[k % len(SIZES)], k) for k in range(count)]
    return models, records


def farthest(ones, others) -> float:
    return max(
        float(np.abs(one.weights()[name] - other.weights()[name]).max())
        for one, other in zip(ones, others, strict=True)
        for name in one.weights()
    )


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize(
    ("kind", "factory"),
    [("table", mlp), ("table", logistic), ("table", tabular), ("image", cnn), ("image", resnet)],
)
def test_a_cohort_is_close_to_one_by_one(request, kind, factory, taught, plan, some) -> None:
    toy = request.getfixturevalue(kind)
    models, records = sites(toy, factory, some)
    lesson = toy.lesson if taught else None
    now = plan(epochs=2, learning_rate=1e-3)
    alone = [
        model.fit(own, lesson, now, lot)
        for model, own, lot in zip(models, records, rngs(1), strict=True)
    ]
    together = fit_cohort(models, records, lesson, now, rngs(1))
    # One step of Adam moves a weight by about 1e-3: no site took one more or less, nor other rows.
    for one, other in zip(alone, together, strict=True):
        assert np.allclose(
            one.probs(toy.records.inputs), other.probs(toy.records.inputs), atol=1e-4
        )
        assert np.median(np.abs(one.weights()["1.weight"] - other.weights()["1.weight"])) < 1e-6


@pytest.mark.parametrize("steps", ["records", "lesson", "longest"])
def test_a_small_site_takes_the_steps_that_it_would_take_alone(table: Toy, plan, some, steps):
    models, records = sites(table, logistic, some)
    now = plan(epochs=3, steps=steps, learning_rate=1e-3)
    together = fit_cohort(models, records, table.lesson, now, rngs(1))
    for k, model in enumerate(models):
        alone = model.fit(records[k], table.lesson, now, rngs(1)[k])
        assert farthest([alone], [together[k]]) < 1e-6


def test_a_site_in_a_cohort_does_not_feel_the_others(table: Toy, plan, some) -> None:
    models, records = sites(table, mlp, some)
    now = plan(learning_rate=1e-3)
    before = fit_cohort(models, records, None, now, rngs(1))
    records[1] = some(table, 60, 99)
    after = fit_cohort(models, records, None, now, rngs(1))
    moved = [farthest([a], [b]) for a, b in zip(before, after, strict=True)]
    assert moved[1] > 1e-3
    assert max(moved[:1] + moved[2:]) < 1e-6


def test_each_site_may_have_a_lesson_of_its_own_or_none(table: Toy, plan, some) -> None:
    models, records = sites(table, logistic, some)
    other = QuerySet(table.lesson.queries.inputs[:11], Public("other", "none", "none"))
    flat = Lesson(other, Distributions(np.full((11, 3), 1 / 3, np.float32), other.digest))
    turned = np.roll(table.lesson.consensus.probs, 1, axis=1)
    again = Lesson(table.lesson.queries, Distributions(turned, table.lesson.queries.digest))
    lessons = [table.lesson, flat, again, None, None, flat]
    records = [*records[:4], records[4], None]
    now = plan(learning_rate=1e-3, batch=7)
    together = fit_cohort(models, records, lessons, now, rngs(1))
    alone = [
        model.fit(own, lesson, now, lot)
        for model, own, lesson, lot in zip(models, records, lessons, rngs(1), strict=True)
    ]
    assert farthest(alone, together) < 1e-6


def test_a_cohort_learns_from_a_lesson_alone(table: Toy, plan, some) -> None:
    models, _ = sites(table, logistic, some)
    nobody = [None] * len(models)
    now = plan(learning_rate=1e-3)
    together = fit_cohort(models, nobody, table.lesson, now, rngs(1))
    alone = [m.fit(None, table.lesson, now, lot) for m, lot in zip(models, rngs(1), strict=True)]
    assert farthest(alone, together) < 1e-6


def test_weight_decay_is_the_same_in_a_cohort(table: Toy, plan, some) -> None:
    models, records = sites(table, logistic, some)
    now = plan(learning_rate=1e-3, weight_decay=0.5)
    together = fit_cohort(models, records, None, now, rngs(1))
    alone = [m.fit(r, None, now, g) for m, r, g in zip(models, records, rngs(1), strict=True)]
    assert farthest(alone, together) < 1e-6


def test_chunks_bound_the_memory_and_change_nothing(table: Toy, plan, some) -> None:
    models, records = sites(table, logistic, some)
    members = [
        _Member(k, model, own, None, lot)
        for k, (model, own, lot) in enumerate(zip(models, records, rngs(1), strict=True))
    ]
    now = plan(learning_rate=1e-3)
    assert [len(chunk) for chunk in _chunks(members, now, 1)] == [1] * len(SIZES)
    assert [len(chunk) for chunk in _chunks(members, now, 2**30)] == [len(SIZES)]
    small = fit_cohort(models, records, None, now, rngs(1), most_bytes=20_000)
    assert farthest(small, fit_cohort(models, records, None, now, rngs(1))) < 1e-6


def test_those_that_still_learn_are_a_prefix() -> None:
    assert list(_stretches([9, 4, 4, 0])) == [(0, 4, 3), (4, 9, 1)]
    assert list(_stretches([0])) == []


def test_a_cohort_leaves_models_and_records_as_they_were(table: Toy, plan, some) -> None:
    models, records = sites(table, mlp, some)
    before = [model.weights() for model in models]
    state = torch.get_rng_state()
    fit_cohort(models, records, table.lesson, plan(), rngs(1))
    assert torch.equal(state, torch.get_rng_state())
    for model, kept in zip(models, before, strict=True):
        assert all(np.array_equal(kept[name], array) for name, array in model.weights().items())


def test_a_cohort_repeats_itself_to_the_last_bit(table: Toy, plan, some) -> None:
    models, records = sites(table, lambda s, g: mlp(s, g, dropout=0.3), some)
    once = fit_cohort(models, records, table.lesson, plan(), rngs(1))
    assert farthest(once, fit_cohort(models, records, table.lesson, plan(), rngs(1))) == 0


class WithBatchStatistics(nn.Module):
    def __init__(self, kept: bool = True) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6, track_running_stats=kept)
        self.last = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.last(self.norm(inputs))


class PartlyFrozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.first.requires_grad_(False)

    def forward(self, inputs):
        return self.last(self.first(inputs))


class LooksAtItsInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)

    def forward(self, inputs):
        return self.last(inputs if inputs.sum() >= 0 else -inputs)


def test_what_cannot_be_stacked_is_known_beforehand(table: Toy) -> None:
    lot = np.random.default_rng(0)
    assert cohortable(mlp(table.space, lot))
    for module in (PartlyFrozen, LooksAtItsInputs, WithBatchStatistics):
        assert not cohortable(as_classifier(module, table.space, lot))
    assert not cohortable(as_classifier(WithBatchStatistics, table.space, lot, {"kept": False}))
    assert not cohortable(as_classifier(ExtraTreesClassifier, table.space, lot))


def test_a_mixed_company_is_fitted_each_in_its_way(table: Toy, plan, some) -> None:
    def kind(k: int, lot):
        keys = {"n_estimators": 3} if k % 3 == 2 else {}
        target = (mlp, PartlyFrozen, ExtraTreesClassifier)[k % 3]
        return as_classifier(target, table.space, lot, keys)

    models = [kind(k, lot) for k, lot in enumerate(rngs(0))]
    records = [some(table, max(size, 9), k) for k, size in enumerate(SIZES)]
    now = plan(learning_rate=1e-3)
    together = fit_cohort(models, records, table.lesson, now, rngs(1))
    for k, model in enumerate(models):
        alone = model.fit(records[k], table.lesson, now, rngs(1)[k])
        ours, theirs = (m.probs(table.records.inputs) for m in (together[k], alone))
        assert np.allclose(ours, theirs, atol=1e-4)


def test_a_site_that_diverges_is_named(table: Toy, plan, some) -> None:
    models, records = sites(table, logistic, some)
    spoilt = {name: a * np.float32(np.inf) for name, a in models[2].weights().items()}
    models[2] = models[2].with_weights(spoilt)
    with pytest.raises(DivergedTraining, match=r"at places \[2\]"):
        fit_cohort(models, records, None, plan(), rngs(1))


def test_as_many_of_each_are_expected(table: Toy, plan, some) -> None:
    models, records = sites(table, logistic, some)
    with pytest.raises(BadInput, match="as many of each"):
        fit_cohort(models, records[:2], None, plan(), rngs(1))
    nothing = Records(records[0].inputs[:0], records[0].labels[:0])
    with pytest.raises(BadInput, match="no record"):
        fit_cohort(models, [nothing] * len(models), None, plan(), rngs(1))


def test_a_cohort_is_several_times_faster(image: Toy, plan, some) -> None:
    models, records = sites(image, mlp, some, count=60)
    now = plan(epochs=4, batch=8)

    def seconds(fit) -> float:
        began = time.process_time()
        fit()
        return time.process_time() - began

    def one_by_one() -> None:
        for model, own, lot in zip(models, records, rngs(1, 60), strict=True):
            model.fit(own, image.lesson, now, lot)

    together = min(
        seconds(lambda: fit_cohort(models, records, image.lesson, now, rngs(1, 60)))
        for _ in range(2)
    )
    assert seconds(one_by_one) > 3 * together
