"""A patient is taken out: nothing is trained or counted with those records, and n stays."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.run import Run
from fedkd.federation import excluding
from fedkd.federation.durable import read_arrays, read_json, write_json
from fedkd.federation.examination import pooled_validation
from fedkd.federation.excluded import FILE, identities
from fedkd.federation.excluding import exclude
from fedkd.federation.learning import Learner
from fedkd.federation.participant import open_participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.shards import assigned
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.wire import Answer, decode, encode
from tests.federation.small import founded, question

SITE = "site-01"
PRIVATE = ["mechanism=dp_training", "mechanism.steps=5", "budget.epsilon=2"]
SCHEMA = """
card: {name: ward, licence: none, legal_basis: test}
patient: person
label: {column: ill, classes: {healthy: [0], ill: [1]}}
columns:
  age: {kind: numeric, low: 0, high: 120, unit: years, mean: 50, sd: 10}
  dose: {kind: numeric, low: 0, high: 50, unit: mg}
"""


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A federation whose patients have names and two rows each. Nobody may change it."""
    folder = tmp_path_factory.mktemp("ward")
    rng = np.random.default_rng(0)
    rows = [
        f"P-{number // 2:03d},{rng.integers(20, 90)},{rng.integers(0, 50)},{rng.integers(0, 2)}"
        for number in range(120)
    ]
    (folder / "ward.csv").write_text("\n".join(["person,age,dose,ill", *rows]) + "\n")
    (folder / "ward.csv.schema.yaml").write_text(SCHEMA)
    return founded(
        folder / "run", "data=table", f"data.path={folder / 'ward.csv'}", "data.records=null",
        "data.test_size=20", "data.validation=0.3", "query=public",
        *PRIVATE,
    )  # fmt: skip


@pytest.fixture
def named(ward: Run, tmp_path: Path) -> SiteFolder:
    return SiteFolder(Path(shutil.copytree(ward.sites[SITE], tmp_path / SITE)))


@pytest.fixture
def unnamed(run: Run, tmp_path: Path) -> SiteFolder:
    return SiteFolder(Path(shutil.copytree(run.sites[SITE], tmp_path / "unnamed" / SITE)))


def withdrawn(site: SiteFolder) -> list[Any]:
    with site.log(SITE) as log:
        return [dict(entry.body) for entry in log.entries("dataset.withdrawn")]


def names_in(site: SiteFolder) -> dict[str, int]:
    """The hospital's own ids of the patients that this site trains on, with their codes."""
    names: dict[str, str] = read_json(site.folder / "patients.json")
    here = {str(code) for code in site.train().patients.tolist()}  # type: ignore[union-attr]
    return {name: int(code) for code, name in names.items() if code in here}


def test_a_site_knows_its_own_patients_by_the_hospitals_ids_and_nobody_elses(ward: Run) -> None:
    known: list[set[str]] = []
    for folder in ward.sites.values():
        site = SiteFolder(folder)
        names = read_json(folder / "patients.json")
        codes = {str(code) for part in site.parts() for code in part.patients.tolist()}  # type: ignore[union-attr]
        assert set(names) == codes
        assert all(name.startswith("P-") for name in names.values())
        known.append(set(names.values()))
    assert not known[0] & known[1]


def test_all_records_of_a_patient_are_out_and_nobody_elses(named: SiteFolder) -> None:
    before = named.train()
    name, code = next(iter(names_in(named).items()))
    done = exclude(named, [name], "objection")
    after = named.train()
    assert before.patients is not None
    kept = before.patients != code
    np.testing.assert_array_equal(after.inputs, before.inputs[kept])
    np.testing.assert_array_equal(after.labels, before.labels[kept])
    assert done.rows == int((~kept).sum()) == 2
    assert (done.new, done.before, done.absent) == ((name,), (), ())


def test_a_row_without_a_patient_is_never_taken_for_somebody(named: SiteFolder) -> None:
    """Ids are numbers in many hospitals, and so is the code of a row whose patient is missing."""
    (first, here), (_, nobody), *_ = names_in(named).items()
    names: dict[str, str] = read_json(named.folder / "patients.json")
    del names[str(nobody)]
    write_json(named.folder / "patients.json", {**names, str(here): str(nobody)})
    exclude(named, [str(nobody)], "objection")
    after = named.train().patients
    assert after is not None
    assert here not in after
    assert nobody in after
    with pytest.raises(BadInput, match="without a record here"):
        exclude(named, [first], "objection")


def test_the_public_number_of_patients_and_the_price_stay(ward: Run, named: SiteFolder) -> None:
    classes = 2
    whole = named.facts(classes)
    for name in list(names_in(named))[:5]:
        exclude(named, [name], "objection")
    assert named.facts(classes) == whole
    participant = open_participant(named.folder, ward.build)
    assert participant.facts() == whole
    asked = question(ward)
    assert isinstance(decode(participant.answer(encode(asked)), 1 << 20), Answer)
    with named.log(SITE) as log:
        (charge,) = [it for it in log.entries("budget.charged") if "plan" in it.body]
        spent = ledger_of(log, open_population(named)).spent()
    other = Path(shutil.copytree(ward.sites[SITE], named.folder.parent / "other" / SITE))
    open_participant(other, ward.build).answer(encode(asked))
    with Log(other / "log.sqlite", SITE) as log:
        (same,) = [it for it in log.entries("budget.charged") if "plan" in it.body]
        assert ledger_of(log, open_population(SiteFolder(other))).spent() == spent
    assert charge.body == same.body
    assert charge.body["plan"]["patients"] == whole.patients


@pytest.mark.parametrize("kept", [None, []])
def test_the_log_knows_who_is_out_where_the_list_was_lost(
    ward: Run, named: SiteFolder, kept: list[str] | None
) -> None:
    name, code = next(iter(names_in(named).items()))
    exclude(named, [name], "objection")
    path = named.folder / FILE
    path.unlink() if kept is None else path.write_text(json.dumps(kept))
    assert code in named.train().patients  # type: ignore[operator]
    reply = open_participant(named.folder, ward.build).answer(encode(question(ward)))
    assert isinstance(decode(reply, 1 << 20), Answer)
    assert code not in named.train().patients  # type: ignore[operator]


def open_population(site: SiteFolder) -> str:
    return site.settings().population


def test_resident_speaker_validation_and_the_pool_do_without(ward: Run, named: SiteFolder) -> None:
    """Everything that reads records at a site reads them without the patient."""
    validation = named.validation()
    assert validation.patients is not None
    names = read_json(named.folder / "patients.json")
    code = int(validation.patients[0])
    done = exclude(named, [names[str(code)]], "objection")
    assert done.rows > 0
    settings = named.settings()
    learner = Learner(named, settings, ward.build)
    task = learner.task_local(ward.id, question(ward).plan, 1)
    pooled = pooled_validation([named.folder])
    for records in (named.train(), named.validation(), learner.records, task.records):
        assert records.patients is None or code not in records.patients
    assert pooled is not None
    assert len(pooled) == int((validation.patients != code).sum())


def test_a_model_trained_afterwards_is_the_one_of_a_site_that_never_had_the_records(
    ward: Run, named: SiteFolder, tmp_path: Path
) -> None:
    name, code = next(iter(names_in(named).items()))
    never = Path(shutil.copytree(named.folder, tmp_path / "never" / SITE))
    exclude(named, [name], "objection")
    for part in ("train", "validation"):
        kept = read_arrays(never / f"{part}.npz")
        rows = kept["patients"] != code
        np.savez(never / f"{part}.npz", **{key: array[rows] for key, array in kept.items()})
    asked = encode(question(ward))
    digests = []
    for folder in (named.folder, never):
        open_participant(folder, ward.build).answer(asked)
        with Log(folder / "log.sqlite", SITE) as log:
            trained = [entry.body for entry in log.entries("train.local")]
        digests.append([body["output"] for body in trained if body["dp"] is None])
    assert digests[0] == digests[1]


def test_no_other_patient_moves_to_another_shard(named: SiteFolder, unnamed: SiteFolder) -> None:
    key = b"k" * 32
    for site, whom in ((named, next(iter(names_in(named)))), (unnamed, "3")):
        before = site.train()
        shards = dict(zip(identities(before), assigned(before, key, 5).tolist(), strict=True))
        exclude(site, [whom], "objection")
        after = site.train()
        assert len(after) < len(before)
        for one, shard in zip(identities(after), assigned(after, key, 5).tolist(), strict=True):
            assert shards[one] == shard


def test_without_names_an_id_is_a_records_number(unnamed: SiteFolder) -> None:
    train, validation = unnamed.parts()
    last = str(len(train) + len(validation))
    done = exclude(unnamed, ["1", last], "objection")
    assert done.rows == 2
    np.testing.assert_array_equal(unnamed.train().inputs, train.inputs[1:])
    np.testing.assert_array_equal(unnamed.validation().inputs, validation.inputs[:-1])
    for wrong in ("0", str(int(last) + 1), "-1", "1.0"):
        with pytest.raises(BadInput, match=f"numbers of records from 1 to {last}"):
            exclude(unnamed, [wrong], "objection")
    # Numbers stay what they were.
    assert exclude(unnamed, ["1"], "objection").before == ("1",)


def test_an_unknown_id_takes_nobody_out_unless_absent_ones_are_allowed(named: SiteFolder) -> None:
    name = next(iter(names_in(named)))
    whole = len(named.train())
    with pytest.raises(BadInput, match=r"1 of 2 ids without a record here: P-999.*nobody was ta"):
        exclude(named, [name, "P-999"], "objection")
    assert len(named.train()) == whole
    assert not withdrawn(named)
    done = exclude(named, [name, "P-999", " ", name], "objection", may_be_absent=True)
    assert (done.new, done.absent) == ((name,), ("P-999",))
    with pytest.raises(BadInput, match="no id"):
        exclude(named, [" "], "objection")
    assert exclude(named, ["P-999"], "x", may_be_absent=True).entry is None


def test_the_log_says_so_without_any_id(ward: Run, named: SiteFolder) -> None:
    names = list(names_in(named))[:2]
    open_participant(named.folder, ward.build).answer(encode(question(ward)))
    done = exclude(named, names, "objection of 24 November")
    (body,) = withdrawn(named)
    assert body["reason"] == "objection of 24 November"
    assert body["id"] == named.settings().dataset
    assert len(set(body["patients"])) == 2
    told = json.dumps(body)
    for name in names:
        assert name not in told
        assert f'"{names_in_all(named)[name]}"' not in told
    with named.log(SITE) as log:
        trained = [entry.body["output"] for entry in log.entries("train.local")]
    assert list(done.models) == body["models_before"] == list(dict.fromkeys(trained))
    assert len(done.models) == 2  # speaker and resident
    assert list(done.runs) == body["runs_before"] == [ward.id]


def names_in_all(site: SiteFolder) -> dict[str, str]:
    return {name: code for code, name in read_json(site.folder / "patients.json").items()}


def test_commitments_are_keyed_by_the_site(named: SiteFolder, tmp_path: Path) -> None:
    other = SiteFolder(Path(shutil.copytree(named.folder, tmp_path / "other" / SITE)))
    (other.folder / "commitment.key").write_bytes(b"k" * 32)
    name = next(iter(names_in(named)))
    for site in (named, other):
        exclude(site, [name], "objection")
    assert withdrawn(named)[0]["patients"] != withdrawn(other)[0]["patients"]


def test_the_same_wish_again_changes_nothing(named: SiteFolder) -> None:
    first, second, *_ = names_in(named)
    exclude(named, [first], "objection")
    records = len(named.train())
    again = exclude(named, [first], "another reason")
    assert (again.new, again.before, again.entry) == ((), (first,), None)
    assert len(named.train()) == records
    both = exclude(named, [first, second], "objection")
    assert (both.new, both.before) == ((second,), (first,))
    assert len(withdrawn(named)) == 2


def test_a_crash_before_the_entry_leaves_the_patient_out_and_is_made_good(
    named: SiteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def dies(*_: Any) -> None:
        raise Died

    name, code = next(iter(names_in(named).items()))
    monkeypatch.setattr(excluding, "_before", dies)
    with pytest.raises(Died):
        exclude(named, [name], "objection")
    monkeypatch.undo()
    patients = named.train().patients
    assert patients is not None
    assert code not in patients
    assert not withdrawn(named)
    assert exclude(named, [name], "objection").new == (name,)
    assert len(withdrawn(named)) == 1


def test_a_site_that_is_founded_again_keeps_who_is_out(tmp_path: Path) -> None:
    from tests.federation.officers import NOT_PRIVATE, officer, signed

    lasting = [f"sites.dir={tmp_path / 'sites'}", "sites.rehearsal=false"]
    run = signed(founded(tmp_path / "one", *lasting), officer(tmp_path), **NOT_PRIVATE)
    site = SiteFolder(run.sites[SITE])
    exclude(site, ["1", "2"], "objection")
    left = len(site.train())
    founded(tmp_path / "two", *lasting)
    assert len(site.train()) == left == len(site.everyone()) - 2
