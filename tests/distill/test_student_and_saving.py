"""The student is taught, and weights are kept."""

import numpy as np
import pytest

from fedkd.distill import load_weights, save_weights, teach
from fedkd.distill.laws import Toy
from fedkd.distill.models.mlp import mlp
from fedkd.distill.models.random_forest import random_forest
from fedkd.distill.student import joined
from fedkd.knowledge import BadInput, Distributions, Lesson, Public, QuerySet


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def right(student, toy: Toy) -> float:
    return float((student.probs(toy.records.inputs).argmax(1) == toy.records.labels).mean())


@pytest.mark.parametrize("factory", [mlp, random_forest])
def test_a_student_learns_from_what_was_said_alone(table: Toy, plan, factory) -> None:
    student = factory(table.space, rng())
    taught = teach(student, [table.lesson], plan(epochs=20), rng(1))
    assert right(taught, table) > 0.9


def part_of(toy: Toy, rows: slice) -> Lesson:
    queries = QuerySet(toy.lesson.queries.inputs[rows], Public("part", "none", "none"))
    return Lesson(queries, Distributions(toy.lesson.consensus.probs[rows], queries.digest))


def test_several_lessons_are_learnt_as_one(table: Toy, plan) -> None:
    student = mlp(table.space, rng())
    halves = [part_of(table, slice(0, 30)), part_of(table, slice(30, None))]
    parts = teach(student, halves, plan(), rng(1)).weights()
    whole = teach(student, [table.lesson], plan(), rng(1)).weights()
    assert all(np.array_equal(parts[name], whole[name]) for name in whole)
    assert joined(halves).queries.digest not in {h.queries.digest for h in halves}


def test_a_student_starts_where_it_stopped(table: Toy, plan) -> None:
    once = teach(mlp(table.space, rng()), [table.lesson], plan(epochs=1), rng(1))
    twice = teach(once, [table.lesson], plan(epochs=1), rng(2))
    fresh = teach(mlp(table.space, rng()), [table.lesson], plan(epochs=1), rng(2))
    assert not np.array_equal(twice.weights()["1.weight"], fresh.weights()["1.weight"])


def test_no_lesson_teaches_nothing(table: Toy, plan) -> None:
    with pytest.raises(BadInput, match="no lesson"):
        teach(mlp(table.space, rng()), [], plan(), rng(1))


def test_saved_weights_come_back(table: Toy, tmp_path) -> None:
    weights = dict(mlp(table.space, rng()).weights())
    weights |= {"count": np.array(3), "turned": np.arange(6.0).reshape(2, 3).T}
    save_weights(tmp_path / "student.safetensors", weights)
    back = load_weights(tmp_path / "student.safetensors")
    assert set(back) == set(weights)
    for name, array in weights.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert np.array_equal(back[name], array)


def test_the_same_weights_are_the_same_bytes(table: Toy, tmp_path) -> None:
    weights = mlp(table.space, rng()).weights()
    save_weights(tmp_path / "one", weights)
    save_weights(tmp_path / "two", dict(reversed(weights.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_failed_write_leaves_the_old_file(table: Toy, tmp_path, monkeypatch) -> None:
    path = tmp_path / "student.safetensors"
    save_weights(path, {"w": np.ones(2)})
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, {"w": np.zeros(2)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("body", [b"", b"\x00" * 64, b"\xff" * 64, b"\x80\x04K\x01."])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, body: bytes) -> None:
    (tmp_path / "w").write_bytes(body)
    with pytest.raises(BadInput, match="expected a safetensors file"):
        load_weights(tmp_path / "w")
