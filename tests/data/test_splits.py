"""The law of splits: disjoint by patient, in proportion, and refused where there are too few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.data import Card, Dataset, Records, hold_out, public_inputs, validation
from fedkd.knowledge import BadInput, Space

CARD = Card("toy", "1", "table", "CC0", "none", "made here")
SPACE = Space("table", (1,), "float32", 0, 10_000, ("a", "b", "c"))


def records(count, seed=0, people=None, places=None, classes=3):
    rng = np.random.default_rng(seed)
    return Records(
        np.arange(count, dtype=np.float32)[:, None],
        rng.choice(classes, count, p=np.arange(1, classes + 1) / sum(range(classes + 1))),
        None if people is None else rng.integers(0, people, count),
        None if places is None else np.array([f"h{n}" for n in rng.integers(0, places, count)]),
    )


def rng(seed=0):
    return np.random.default_rng(seed)


def rows_of(inputs):
    return set(inputs[:, 0].astype(int).tolist())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    people=st.none() | st.integers(40, 200),
    places=st.none() | st.integers(1, 4),
    queries=st.integers(0, 60),
    test=st.integers(1, 80) | st.sampled_from([0.1, 0.3]),
    bound=st.none() | st.integers(1, 60),
)
def test_no_patient_is_in_two_parts_and_sizes_are_as_asked(
    seed, people, places, queries, test, bound
):
    whole = records(400, seed, people, places)
    held = hold_out(
        Dataset(CARD, SPACE, whole), queries=queries, test_size=test, records=bound, rng=rng(seed)
    )
    asked = rows_of(held.queries) if held.queries is not None else set()
    parts = [rows_of(held.private.inputs), asked, rows_of(held.test.inputs)]
    assert len(parts[1]) == queries
    assert len(parts[2]) == (round(test * 400) if isinstance(test, float) else test)
    assert bound is None or len(parts[0]) == bound
    persons = np.arange(400) if people is None else whole.patients
    seen = [set(persons[list(part)].tolist()) for part in parts]
    assert sum(map(len, seen)) == len(set().union(*seen))
    if people is None and bound is None:
        assert sum(map(len, parts)) == 400


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999))
def test_each_site_and_label_gives_its_share_within_a_row(seed):
    whole = records(600, seed, places=3)
    held = hold_out(
        Dataset(CARD, SPACE, whole), queries=0, test_size=0.3, records=None, rng=rng(seed)
    )
    for place in np.unique(whole.sites):
        for label in range(3):
            all_of_them = np.sum((whole.sites == place) & (whole.labels == label))
            tested = np.sum((held.test.sites == place) & (held.test.labels == label))
            assert abs(tested - 0.3 * all_of_them) <= 1.5


def test_the_same_seed_holds_out_the_same():
    whole = Dataset(CARD, SPACE, records(100))
    first, again, other = (
        hold_out(whole, queries=20, test_size=20, records=None, rng=rng(s)) for s in (1, 1, 2)
    )
    assert (first.queries == again.queries).all()
    assert (first.queries != other.queries).any()


def test_a_test_part_of_the_source_is_used_from_its_front():
    whole = Dataset(CARD, SPACE, records(50), test=records(30, seed=9))
    for size, rows in ((10, 10), (99, 30), (None, 30), (0.5, 15)):
        held = hold_out(whole, queries=0, test_size=size, records=None, rng=rng())
        assert held.test.inputs[:, 0].tolist() == list(range(rows))
        assert len(held.private) == 50
    assert held.queries is None


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"test_size": 60, "queries": 50}, "100 records in toy, expected at least 111: 60 for"),
        ({"records": 90, "test_size": 20}, "90 private"),
        ({"test_size": None}, "no data.test_size"),
        ({"test_size": 0}, "data.test_size=0"),
        ({"test_size": 1.5}, "data.test_size=1.5"),
        ({"test_size": float("nan")}, "data.test_size=nan"),
        ({"test_size": 10, "queries": -1}, "query.size -1"),
        ({"test_size": 10, "records": 0}, "data.records 0"),
    ],
)
def test_too_few_records_are_refused_with_numbers(asked, says):
    settings_ = {"queries": 0, "test_size": 10, "records": None, **asked}
    with pytest.raises(BadInput, match=says):
        hold_out(Dataset(CARD, SPACE, records(100)), rng=rng(), **settings_)


def test_one_patient_cannot_be_cut():
    whole = Dataset(CARD, SPACE, records(100, people=1))
    with pytest.raises(BadInput, match="patients are kept whole"):
        hold_out(whole, queries=0, test_size=10, records=None, rng=rng())


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 60),
    people=st.none() | st.integers(1, 20),
    fraction=st.floats(0, 0.5),
    classes=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_validation_loses_no_row_cuts_no_patient_and_leaves_every_label_in_train(
    count, people, fraction, classes, seed
):
    whole = records(count, seed, people, classes=classes)
    train, held = validation(whole, fraction, rng(seed))
    assert rows_of(train.inputs) | rows_of(held.inputs) == set(range(count))
    assert len(train) + len(held) == count
    if people is None:
        assert set(held.labels.tolist()) <= set(train.labels.tolist())
        assert abs(len(held) - fraction * count) <= 1.5 or count < 5
    else:
        assert not set(train.patients.tolist()) & set(held.patients.tolist())
    assert len(held) <= max(fraction * count + 0.5, count / 2)
    assert len(train) or not count


def labelled(labels):
    return Records(np.arange(len(labels), dtype=np.float32)[:, None], np.array(labels))


def test_a_label_that_occurs_once_stays_in_train():
    for seed in range(30):
        train, held = validation(labelled([0] * 10 + [1]), 0.4, rng(seed))
        assert 1 in train.labels
        assert len(held) == 4


def test_fewer_records_than_classes_all_stay_in_train():
    train, held = validation(labelled([0, 1, 2, 3, 4, 5]), 0.3, rng())
    assert (len(train), len(held)) == (6, 0)


def test_a_tiny_site_keeps_all_and_a_small_one_gives_a_row():
    assert len(validation(labelled([0] * 4), 0.1, rng())[1]) == 0
    assert len(validation(labelled([0] * 5), 0.1, rng())[1]) == 1
    assert len(validation(labelled([0] * 5), 0.0, rng())[1]) == 0


def test_validation_keeps_the_mix_of_labels():
    _, held = validation(labelled([0] * 80 + [1] * 20), 0.1, rng())
    assert np.bincount(held.labels).tolist() in ([8, 2], [7, 3], [9, 1])


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(fraction):
    with pytest.raises(BadInput, match=r"data\.validation"):
        validation(labelled([0] * 10), fraction, rng())


def test_public_inputs_come_with_their_origin_and_without_labels():
    inputs, origin = public_inputs(Dataset(CARD, SPACE, records(50)), 20, SPACE, rng())
    assert len(rows_of(inputs)) == 20
    assert (origin.name, origin.licence) == ("toy", "CC0")
    again, same = public_inputs(Dataset(CARD, SPACE, records(50)), 20, SPACE, rng())
    assert (again == inputs).all()
    assert same == origin


def test_a_public_set_of_the_wrong_shape_range_or_size_is_refused():
    whole = Dataset(CARD, SPACE, records(50))
    wide = Space("table", (2,), "float32", 0, 1, ("a", "b"))
    with pytest.raises(BadInput, match=r"wrong shape.*\(1,\).*\(2,\)"):
        public_inputs(whole, 5, wide, rng())
    narrow = Space("table", (1,), "float32", 0, 1, ("a", "b"))
    with pytest.raises(BadInput, match="does not fit"):
        public_inputs(whole, 50, narrow, rng())
    with pytest.raises(BadInput, match=r"query\.size=51"):
        public_inputs(whole, 51, SPACE, rng())


def test_records_outside_their_space_or_classes_are_refused():
    with pytest.raises(BadInput, match="outside their space"):
        Dataset(CARD, Space("table", (1,), "float32", 0, 5, ("a", "b", "c")), records(50))
    with pytest.raises(BadInput, match="codes below 2"):
        Dataset(CARD, Space("table", (1,), "float32", 0, 99, ("a", "b")), records(50))
    with pytest.raises(BadInput, match="names a folder"):
        Records(np.zeros((1, 1)), np.zeros(1, np.int64), None, np.array(["../x"]))
