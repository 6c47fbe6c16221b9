"""The law of partitions: every row once, a patient whole, no site too small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkd.data import Records
from fedkd.data.partition.dirichlet import dirichlet
from fedkd.data.partition.iid import iid
from fedkd.data.partition.quantity import quantity
from fedkd.data.partition.shards import shards
from fedkd.data.partition.site import site
from fedkd.knowledge import BadInput

FACTORIES = {
    "iid": iid(),
    "dirichlet": dirichlet(alpha=0.5, smallest=3),
    "quantity": quantity(alpha=1.0),
    "shards": shards(),
    "site": site(),
}


def records(count, classes=4, people=None, places=None, seed=0):
    rng = np.random.default_rng(seed)
    return Records(
        np.arange(count, dtype=np.float32)[:, None],
        rng.integers(0, classes, count),
        None if people is None else rng.integers(0, people, count) * 7,
        None if places is None else np.array([f"h{n}" for n in rng.integers(0, places, count)]),
    )


@pytest.mark.parametrize("name", FACTORIES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), people=st.none() | st.integers(60, 150), count=st.integers(1, 6))
def test_every_row_goes_to_one_site_and_a_patient_goes_whole(name, seed, people, count):
    private = records(300, people=people, places=5, seed=seed)
    wanted = None if name == "site" else count
    dealt = FACTORIES[name](private, wanted, np.random.default_rng(seed))
    together = np.concatenate(list(dealt.values()))
    assert sorted(together.tolist()) == list(range(300))
    assert list(dealt) == sorted(dealt)
    assert min(len(rows) for rows in dealt.values()) >= (3 if name == "dirichlet" else 1)
    if people is not None:
        seen = [set(private.patients[rows].tolist()) for rows in dealt.values()]
        assert sum(map(len, seen)) == len(set().union(*seen))


@pytest.mark.parametrize("name", [name for name in FACTORIES if name != "site"])
def test_the_same_seed_deals_the_same(name):
    private = records(200)
    first, second, other = (
        FACTORIES[name](private, 4, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert all((first[each] == second[each]).all() for each in first)
    assert any(len(first[e]) != len(other[e]) or (first[e] != other[e]).any() for e in first)


def test_sites_are_named_in_an_order_that_survives_sorting():
    dealt = iid()(records(120), 120, np.random.default_rng(0))
    assert list(dealt)[:2] == ["site-001", "site-002"]
    assert list(iid()(records(20), 2, np.random.default_rng(0))) == ["site-01", "site-02"]


def test_iid_sites_differ_by_one_row_at_most():
    sizes = [len(r) for r in iid()(records(103), 10, np.random.default_rng(0)).values()]
    assert max(sizes) - min(sizes) <= 1


def entropy(private, dealt):
    found = []
    for rows in dealt.values():
        share = np.bincount(private.labels[rows], minlength=4) / len(rows)
        found.append(-(share[share > 0] * np.log(share[share > 0])).sum())
    return np.mean(found)


def test_a_smaller_alpha_is_more_skewed_and_a_huge_one_is_iid():
    private = records(2000)
    mean = [
        entropy(private, dirichlet(alpha=alpha)(private, 5, np.random.default_rng(3)))
        for alpha in (0.1, 1.0, 1000.0)
    ]
    assert mean[0] < mean[1] - 0.1 < mean[2] - 0.2
    assert mean[2] == pytest.approx(np.log(4), abs=0.01)


def test_two_shards_hold_few_classes():
    private = Records(np.zeros((400, 1), np.float32), np.arange(400) % 4)
    dealt = shards(shards_per_site=2)(private, 4, np.random.default_rng(0))
    assert [len(rows) for rows in dealt.values()] == [100] * 4
    assert max(len(set(private.labels[rows].tolist())) for rows in dealt.values()) <= 2


def test_quantity_sites_are_uneven():
    sizes = [len(r) for r in quantity(0.3)(records(1000), 5, np.random.default_rng(1)).values()]
    assert max(sizes) > 3 * min(sizes)


def test_sites_keep_their_names_and_a_smaller_count_takes_the_first():
    private = records(100, places=4)
    assert list(site()(private, None, np.random.default_rng(0))) == ["h0", "h1", "h2", "h3"]
    some = site()(private, 2, np.random.default_rng(0))
    assert list(some) == ["h0", "h1"]
    assert (private.sites[some["h0"]] == "h0").all()


def test_sites_under_the_smallest_size_are_left_out():
    private = Records(
        np.zeros((5, 1), np.float32),
        np.zeros(5, np.int64),
        None,
        np.array(["a", "a", "b", "c", "c"]),
    )
    assert list(site(smallest=2)(private, None, np.random.default_rng(0))) == ["a", "c"]


@pytest.mark.parametrize(
    ("partition", "private", "count", "says"),
    [
        (site(), records(50), None, "no sites"),
        (site(), records(50, places=3), 9, "clients.count=9"),
        (site(smallest=99), records(50, places=3), None, "at least one site"),
        (iid(), records(50), None, "clients.count=None"),
        (iid(), records(50), 0, "clients.count=0"),
        (iid(), records(5), 6, "5 rows of 5 patients for 6 sites"),
        (iid(), records(50, people=1), 2, "1 patients for 2 sites"),
        (dirichlet(), records(50), 6, "at least 10 rows a site, so 60"),
        (dirichlet(alpha=0.01), records(200, classes=2), 5, "raise partition.alpha"),
        (shards(10), records(50), 6, "60 shards"),
    ],
)
def test_what_cannot_be_dealt_is_refused_with_numbers(partition, private, count, says):
    with pytest.raises(BadInput, match=says):
        partition(private, count, np.random.default_rng(0))
