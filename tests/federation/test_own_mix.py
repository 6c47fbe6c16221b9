"""Own mix, by hand: what a hospital's model gets right of each class, as often as it sees it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.cli.run import Run
from fedkd.federation.durable import read_arrays, read_json
from fedkd.federation.examination import SiteExaminer
from fedkd.knowledge import Array
from tests.federation.small import Wiretap, finished, founded


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished federation of three hospitals, of which each has seen few of the ten digits."""
    run = founded(
        tmp_path_factory.mktemp("skewed") / "run", "partition=shards",
        "partition.shards_per_site=2", "data.records=150", "data.test_size=200", "query.size=40",
        "training.local_epochs=20", "training.learning_rate=0.01",
    )  # fmt: skip
    finished(run, Wiretap(run))
    return run


def clients(run: Run) -> dict[str, Any]:
    rows = read_json(run.folder / "summary.json")["clients"]
    return {row["site"]: row for row in rows}


def own_labels(site: Path) -> Array:
    """The labels of all records in a hospital's folder, those held out for validation too."""
    parts = [read_arrays(site / f"{part}.npz")["labels"] for part in ("train", "validation")]
    return np.concatenate(parts)


def by_hand(probs: Array, test: Array, own: Array) -> float:
    """The sum, over the classes at the hospital, of how common each is there times its recall."""
    said = probs.argmax(axis=1)
    total = 0.0
    for label in sorted(set(own.tolist())):
        share = np.count_nonzero(own == label) / len(own)
        right = np.count_nonzero((said == label) & (test == label))
        total += share * right / np.count_nonzero(test == label)
    return total


def test_hospitals_of_few_classes_are_skewed(run: Run) -> None:
    for folder in run.sites.values():
        labels = own_labels(folder)
        assert len(labels) == 50
        assert len(set(labels.tolist())) <= 6
        # Validation has another mix than train: leaving it out would be seen below.
        train = read_arrays(folder / "train.npz")["labels"]
        mixes = [np.bincount(it, minlength=10) / len(it) for it in (train, labels)]
        assert not np.allclose(*mixes)


def test_own_mix_is_recall_by_class_weighted_as_the_hospital_sees_them(run: Run) -> None:
    test = run.cut().test
    for site, row in clients(run).items():
        resident = SiteExaminer(run.sites[site], run.id, run.build).resident()
        own = own_labels(run.sites[site])
        expected = by_hand(resident.probs(test.inputs), test.labels, own)
        assert row["own_mix"] == pytest.approx(expected)
        assert row["own_mix"] > row["accuracy"] + 0.05  # what it sees daily it knows better


def test_own_mix_of_the_model_alone_is_the_same_sum(run: Run) -> None:
    test = run.cut().test
    for site, row in clients(run).items():
        examiner = SiteExaminer(run.sites[site], run.id, run.build)
        start, records, plan, rng = examiner.alone_task(run.config["rounds"])
        alone = start.fit(records, None, plan, rng)
        own = own_labels(run.sites[site])
        expected = by_hand(alone.probs(test.inputs), test.labels, own)
        assert row["local_own_mix"] == pytest.approx(expected)
        assert row["local_own_mix"] > row["local_accuracy"] + 0.05


def test_alone_and_now_are_told_apart(run: Run) -> None:
    rows = clients(run).values()
    assert any(row["own_mix"] != row["local_own_mix"] for row in rows)
    assert any(row["accuracy"] != row["local_accuracy"] for row in rows)


def test_a_class_that_the_test_lacks_leaves_no_own_mix(run: Run) -> None:
    examiner = SiteExaminer(run.sites["site-01"], run.id, run.build)
    seen = own_labels(run.sites["site-01"])
    whole = run.cut().test
    test = whole.take(whole.labels != seen[0])
    probs = examiner.resident().probs(test.inputs)
    row = examiner.row(test, probs, probs)
    assert row["own_mix"] is row["local_own_mix"] is None
    assert row["accuracy"] is not None
