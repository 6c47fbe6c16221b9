"""Who is in which shard depends on nobody else; one patient less changes one shard's model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedkd.cli.run import Run
from fedkd.data import Card, Records, TableSchema
from fedkd.data.tables import dataset_from_frame
from fedkd.federation import shards as module
from fedkd.federation.durable import write_arrays
from fedkd.federation.learning import Learner
from fedkd.federation.shards import UNIFORM, ShardModels, assigned, shard_key
from fedkd.federation.site import SiteFolder
from fedkd.federation.stored import StoredAnswers
from fedkd.knowledge import Array
from tests.federation.small import founded

KEY = bytes(range(32))
Assignment = Callable[[Records, bytes, int], Array]


def records(patients: int = 40, rows: int = 3, named: bool = True) -> Records:
    rng = np.random.default_rng(0)
    of_row = np.repeat(np.arange(patients), rows if named else 1)
    inputs = rng.normal(size=(len(of_row), 4)).astype(np.float32)
    labels = (of_row % 2).astype(np.int64)
    return Records(inputs, labels, of_row.astype(np.int64) if named else None)


def moved_by_one_patient(assign: Assignment, whole: Records) -> int:
    """How many rows of others change shards as one patient or another is taken out, at most."""
    before = assign(whole, KEY, 5)
    units = np.arange(len(whole)) if whole.patients is None else whole.patients
    most = 0
    for patient in np.unique(units):
        stays = units != patient
        most = max(most, int((assign(whole.take(stays), KEY, 5) != before[stays]).sum()))
    return most


def stratified(whole: Records, key: bytes, count: int) -> Array:
    """The planted fault: dealt out in turn, class by class, so that each shard has its share."""
    found = np.zeros(len(whole), dtype=np.int64)
    units = np.arange(len(whole)) if whole.patients is None else whole.patients
    for label in np.unique(whole.labels):
        for turn, unit in enumerate(np.unique(units[whole.labels == label])):
            found[units == unit] = turn % count
    return found


@pytest.mark.parametrize("named", [True, False])
def test_a_patient_less_moves_nobody_else(named: bool) -> None:
    assert moved_by_one_patient(assigned, records(named=named)) == 0


@pytest.mark.parametrize("named", [True, False])
def test_a_stratified_assignment_is_found(named: bool) -> None:
    assert moved_by_one_patient(stratified, records(named=named)) > 10


def test_a_patient_replaced_by_nothing_in_the_table_moves_nobody_else() -> None:
    """Codes count who came before: without one name all later patients have another code."""
    names = [f"p{number:02d}" for number in range(40) for _ in range(3)]
    schema = TableSchema.from_json(
        {
            "columns": {"age": {"kind": "numeric", "low": 0, "high": 100}},
            "label": {"column": "y", "classes": ["no", "yes"], "values": [["no"], ["yes"]]},
            "patient": "who",
        }
    )

    def shard_of_rows(who: list[str]) -> Array:
        rows = {"who": who, "age": np.arange(120) % 90, "y": ["no", "yes"] * 60}
        card = Card("own", "1", "table", "own", "consent", "here")
        found = dataset_from_frame(pd.DataFrame(rows, dtype=object), schema, card)
        known = {str(code): name for code, name in enumerate(found.patients)}
        return assigned(found.records, KEY, 5, known)

    whole = shard_of_rows(names)
    assert len(set(whole[:3])) == 1, "all rows of a patient are in one shard"
    for gone in ("p00", "p20"):
        without = shard_of_rows(["" if name == gone else name for name in names])
        stays = np.array([name != gone for name in names])
        np.testing.assert_array_equal(without[stays], whole[stays])


def test_all_rows_of_a_patient_are_in_one_shard_and_all_shards_are_used() -> None:
    whole = records(patients=400)
    found = assigned(whole, KEY, 5)
    assert whole.patients is not None
    for patient in range(400):
        assert len(set(found[whole.patients == patient])) == 1
    counts = np.bincount(found[::3], minlength=5)
    assert (np.abs(counts - 80) < 40).all()  # five deviations of a fair die


def test_another_key_is_another_assignment_and_order_and_labels_do_not_matter() -> None:
    whole = records(patients=100)
    found = assigned(whole, KEY, 5)
    assert (assigned(whole, bytes(32), 5) != found).mean() > 0.5
    order = np.random.default_rng(1).permutation(len(whole))
    np.testing.assert_array_equal(assigned(whole.take(order), KEY, 5), found[order])
    turned = Records(whole.inputs, 1 - whole.labels, whole.patients)
    np.testing.assert_array_equal(assigned(turned, KEY, 5), found)


# With models.

TREES = "clients.models=[extra_trees]"
PATE = ["mechanism=pate", "mechanism.shards=4", "budget.epsilon=8"]


def models(run: Run, folder: Path, notes: list[str] | None = None) -> ShardModels:
    site = SiteFolder(folder)
    learner = Learner(site, site.settings(), run.build)
    return ShardModels(learner, (notes if notes is not None else []).append)


@pytest.fixture(params=["clients.models=[logistic]", TREES])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return founded(tmp_path / "run", *PATE, request.param, "mechanism.batches=2")


def queries(run: Run) -> Array:
    found = run.cut().queries
    assert found is not None
    return found.inputs


def test_a_record_less_changes_one_shards_answers_and_no_other(run: Run) -> None:
    site = SiteFolder(run.sites["site-01"])
    plan = run.terms().plan
    first = models(run, site.folder)
    digest = first.fit("a", 4, plan).digest
    before = first.say("a", queries(run))
    train, key = site.train(), shard_key(first._learner)
    gone = int(assigned(train, key, 4)[0])
    left = train.take(np.arange(1, len(train)))
    write_arrays(site.folder / "train.npz", {"inputs": left.inputs, "labels": left.labels})
    second = models(run, site.folder)
    assert second.fit("b", 4, plan).digest != digest
    after = second.say("b", queries(run))
    changed = [number for number in range(4) if (before[number] != after[number]).any()]
    assert changed == [gone]


def test_shards_come_back_as_they_were(run: Run) -> None:
    folder, plan = run.sites["site-01"], run.terms().plan
    first = models(run, folder)
    made = first.fit("a", 4, plan)
    said = first.say("a", queries(run))
    again = models(run, folder)
    assert again.fit("a", 4, plan) == made, "kept: not fitted again"
    np.testing.assert_array_equal(again.say("a", queries(run)), said)
    other_run = models(run, folder).fit("b", 4, plan)
    assert other_run.digest == made.digest, "the same models in another run have the same name"


def test_other_shards_than_the_kept_ones_do_not_answer(run: Run) -> None:
    site = SiteFolder(run.sites["site-01"])
    models(run, site.folder).fit("a", 4, run.terms().plan)
    weights = sorted(site.folder.glob("shards/a/*.safetensors"))
    if weights:
        body = bytearray(weights[0].read_bytes())
        body[-1] ^= 1
        weights[0].write_bytes(bytes(body))
    else:  # refitted: then the records must be the same
        train = site.train()
        write_arrays(
            site.folder / "train.npz", {"inputs": train.inputs, "labels": 9 - train.labels}
        )
    with pytest.raises(ValueError, match="other shards"):
        models(run, site.folder).say("a", queries(run))


def test_an_empty_shard_and_one_that_fails_answer_uniformly(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure depends on one shard's records: it must not show in what the others say."""
    folder, notes = run.sites["site-01"], []

    def two_of_four(whole: Records, key: bytes, count: int, names: object) -> Array:
        return (np.arange(len(whole)) % 2).astype(np.int64)

    monkeypatch.setattr(module, "assigned", two_of_four)
    shards = models(run, folder, notes)
    learner = shards._learner
    fresh = learner.fresh

    class Fails:
        """A model that cannot be fitted on an odd start: as a library may on strange records."""

        def __init__(self) -> None:
            self.calls = 0

        def fit(self, *given):
            self.calls += 1
            if self.calls == 2:
                raise SystemExit("gave up")
            return fresh.fit(*given)

        def weights(self):
            return fresh.weights()

    learner.__dict__["fresh"] = Fails()
    made = shards.fit("a", 4, run.terms().plan)
    assert made.made[1:] == (UNIFORM,) * 3
    assert made.made[0] != UNIFORM
    said = shards.say("a", queries(run))
    np.testing.assert_allclose(said[1:], 0.1)
    assert (np.abs(said[0] - 0.1) > 0.01).any()
    assert len(notes) == 1
    assert "gave up" in notes[0]


# What was answered.


def test_a_query_has_one_answer_by_population_speaker_and_way(tmp_path: Path) -> None:
    inputs = np.arange(12, dtype=np.float32).reshape(4, 3)
    inputs[2] = inputs[0]  # the same query twice
    stored = StoredAnswers(tmp_path, "ward", "sha256:a", "mean")
    places = stored.unanswered(inputs)
    assert places.tolist() == [0, 1, 3]
    probs = np.eye(3)
    stored.keep(inputs[places], probs)
    np.testing.assert_array_equal(stored.read(inputs), probs[[0, 1, 0, 2]])
    assert len(stored.unanswered(inputs[::-1])) == 0
    with pytest.raises(ValueError, match="has one"):
        stored.keep(inputs[:1], probs[:1])
    with pytest.raises(KeyError):
        stored.read(inputs + 1)
    others = [
        StoredAnswers(tmp_path, "other", "sha256:a", "mean"),
        StoredAnswers(tmp_path, "ward", "sha256:b", "mean"),
        StoredAnswers(tmp_path, "ward", "sha256:a", "vote"),
    ]
    assert all(len(other.unanswered(inputs)) == 3 for other in others)
    assert len(stored.unanswered(inputs.astype(np.float64))) == 3  # other bytes, another query
