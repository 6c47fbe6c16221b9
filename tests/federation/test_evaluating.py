"""A site's part in an evaluation: charged, counted once a patient, noised, and only then sent."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.cli.evaluate_sites import ask_here
from fedkd.cli.run import Run
from fedkd.distill import save_weights
from fedkd.federation import evaluating
from fedkd.federation.durable import read_arrays, read_json, write_arrays, write_json
from fedkd.federation.evaluating import (
    Grouping,
    counted,
    digest_of_model,
    one_by_one,
    place_model,
)
from fedkd.federation.participant import open_participant
from fedkd.federation.paying import ledger_of
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.privacy.count_limits import NoiseLaw
from fedkd.privacy.counts import cells
from fedkd.wire import WITHHELD, Counts, Evaluation, Message, Reason, Refusal, decode, encode
from tests.federation.officers import installed, officer, paper
from tests.federation.small import founded

TABLE = [
    "data=breast_cancer", "data.records=240", "data.test_size=40", "data.validation=0.4",
    "query.size=12", "mechanism=dp_training", "mechanism.steps=5", "mechanism.epsilon=1",
    "budget.epsilon=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A founded federation of two classes under a budget. Nobody may change it."""
    return founded(tmp_path_factory.mktemp("evaluated") / "run", *TABLE)


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Path:
    """A site of one's own, with a model that was placed there."""
    folder = Path(shutil.copytree(run.sites["site-01"], tmp_path / "site-01"))
    place_model(folder, model_file(run, tmp_path), "logistic")
    return folder


def model_file(run: Run, folder: Path, shift: float = 0.0) -> Path:
    """The weights of a model that nobody trained."""
    rng = np.random.default_rng(0)
    path = folder / f"model{shift}.safetensors"
    weights = {
        name: (rng.normal(size=array.shape) + shift).astype(array.dtype)
        for name, array in run.student().weights().items()
    }
    save_weights(path, weights)
    return path


def evaluation(site: Path, run: Run, **changes: Any) -> Evaluation:
    (placed,) = (site / "evaluates").glob("*.safetensors")
    asked: dict[str, Any] = {
        "run": run.id, "round": 4, "model": digest_of_model(placed), "thresholds": (0.3, 0.5),
        "group": None, "epsilon": 0.5,
    }  # fmt: skip
    return Evaluation(**{**asked, **changes})


def said(site: Path, run: Run, question: Evaluation) -> Message:
    return decode(open_participant(site, run.build).answer(encode(question)), 1 << 20)


def refused(site: Path, run: Run, **changes: Any) -> Reason:
    message = said(site, run, evaluation(site, run, **changes))
    assert isinstance(message, Refusal), message
    return message.reason


def bodies(site: Path, type: str) -> list[dict[str, Any]]:
    with SiteFolder(site).log("site-01") as log:
        return [dict(entry.body) for entry in log.entries(type)]


def spent(site: Path) -> float:
    folder = SiteFolder(site)
    with folder.log("site-01") as log:
        return ledger_of(log, folder.settings().population).spent()


def accepts(site: Path, **changes: Any) -> None:
    told = read_json(site / "site.json")
    write_json(site / "site.json", {**told, "accepts": {**told["accepts"], **changes}})


def truth(site: Path, run: Run, question: Evaluation) -> Any:
    folder = SiteFolder(site)
    (placed,) = (site / "evaluates").glob("*.safetensors")
    from fedkd.distill import load_weights

    model = run.student().with_weights(load_weights(placed))
    return counted(model, folder.validation(), question.thresholds, Grouping(None, None), 2)


def test_counts_are_charged_before_they_leave_and_are_noised(run: Run, site: Path) -> None:
    accepts(site, floor=1)
    question = evaluation(site, run, epsilon=2.0)
    message = said(site, run, question)
    assert isinstance(message, Counts)
    true = truth(site, run, question)
    assert message.counts.shape == true.shape == (1, 3, 2)
    assert (message.noise, message.floor) == ("geometric", 1)
    shown = message.counts != WITHHELD
    assert (message.counts[shown] != true[shown]).any(), "no noise"
    deviation = NoiseLaw(message.noise, message.scale).variance ** 0.5
    assert (np.abs(message.counts - true)[shown] < 10 * deviation).all()
    (charge,) = bodies(site, "budget.charged")
    assert charge["cost"]["event"] == "EpsilonDelta"
    assert (charge["question"], charge["sensitivity"]) == (question.key, 1)
    (release,) = bodies(site, "release.outputs")
    assert (release["kind"], release["model"]) == ("confusion counts", question.model)
    assert release["noise"] == "reproducible, not private"
    with SiteFolder(site).log("site-01") as log:
        told = [entry.type for entry in log.entries()][-2:]
    assert told == ["budget.charged", "release.outputs"]
    assert 1.99 < spent(site) <= 2.0


def test_the_same_question_gets_the_stored_answer_free(run: Run, site: Path) -> None:
    participant = open_participant(site, run.build)
    question = evaluation(site, run)
    first = participant.answer(encode(question))
    before, kept = spent(site), len(bodies(site, "budget.charged"))
    (site / "validation.npz").unlink()  # it does not even look
    for round in (4, 5):
        again = encode(evaluation(site, run, round=round))
        assert open_participant(site, run.build).answer(again) == first
    assert (spent(site), len(bodies(site, "budget.charged"))) == (before, kept)


def test_another_question_has_other_noise_and_costs_again(run: Run, site: Path) -> None:
    """Two thresholds that nobody lies between: the counts are the same, and the noise is not."""
    accepts(site, floor=1)
    questions = [evaluation(site, run, thresholds=(1e-300, high)) for high in (2e-300, 3e-300)]
    np.testing.assert_array_equal(*(truth(site, run, question) for question in questions))
    first, second = (said(site, run, question) for question in questions)
    assert isinstance(first, Counts)
    assert isinstance(second, Counts)
    assert (first.scale, first.noise) == (second.scale, second.noise)
    assert (first.counts != second.counts).any()
    assert len(bodies(site, "budget.charged")) == 2


def test_an_exhausted_budget_is_a_typed_refusal_and_nothing_is_charged(
    run: Run, site: Path
) -> None:
    assert isinstance(said(site, run, evaluation(site, run, epsilon=1.9)), Counts)
    before = spent(site)
    assert refused(site, run, epsilon=1.8) is Reason.BUDGET_EXHAUSTED
    assert spent(site) == before
    assert isinstance(said(site, run, evaluation(site, run, epsilon=0.2)), Counts)


REFUSED = {
    "another model": ({"model": "sha256:" + "a" * 64}, Reason.UNKNOWN_MODEL),
    "no threshold": ({"thresholds": ()}, Reason.NOT_ACCEPTED),
    "a group that nobody allowed": ({"group": "sex"}, Reason.NOT_ACCEPTED),
    "more epsilon than accepted": ({"epsilon": 4.1}, Reason.NOT_ACCEPTED),
    "a round beyond all": ({"round": 10_002}, Reason.NOT_ACCEPTED),
    "no round": ({"round": 0}, Reason.NOT_ACCEPTED),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_accepted_is_refused_before_it_is_charged(
    why: str, run: Run, site: Path
) -> None:
    changes, reason = REFUSED[why]
    assert refused(site, run, **changes) is reason
    assert not bodies(site, "budget.charged")
    assert [body["rule"] for body in bodies(site, "release.refused")] == [str(reason)]


def other_bytes(path: Path, run: Run, tmp_path: Path) -> None:
    path.write_bytes(model_file(run, tmp_path, 1.0).read_bytes())


def other_kind(path: Path, run: Run, tmp_path: Path) -> None:
    write_json(path.with_suffix(".json"), {"model": "mlp"})


def no_weights(path: Path, run: Run, tmp_path: Path) -> None:
    path.write_bytes(b"not safetensors")


def no_note(path: Path, run: Run, tmp_path: Path) -> None:
    path.with_suffix(".json").unlink()


@pytest.mark.parametrize("change", [other_bytes, other_kind, no_weights, no_note])
def test_a_model_that_is_not_what_it_is_called_is_unknown(
    change: Any, run: Run, site: Path, tmp_path: Path
) -> None:
    question = evaluation(site, run)
    (placed,) = (site / "evaluates").glob("*.safetensors")
    change(placed, run, tmp_path)
    message = said(site, run, question)
    assert isinstance(message, Refusal)
    assert message.reason is Reason.UNKNOWN_MODEL
    assert not bodies(site, "budget.charged")


def test_a_crash_between_charge_and_release_is_not_paid_twice(
    run: Run, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    def dies(*_: Any) -> None:
        raise Died

    monkeypatch.setattr(evaluating, "noised", dies)
    question = evaluation(site, run, epsilon=2.0)  # all that there is
    with pytest.raises(Died):
        said(site, run, question)
    monkeypatch.undo()
    assert len(bodies(site, "budget.charged")) == 1
    before = spent(site)
    assert isinstance(said(site, run, question), Counts)
    assert spent(site) == before


def test_a_patient_with_many_rows_moves_one_count(run: Run, site: Path) -> None:
    """Half of the validation rows become one patient's, who then counts once."""
    question = evaluation(site, run)
    kept = read_arrays(site / "validation.npz")
    count = len(kept["labels"])
    patients = np.where(np.arange(count) % 2, np.arange(count), -1).astype(np.int64)
    write_arrays(site / "validation.npz", {**kept, "patients": patients})
    everyone = truth(site, run, question)
    rest = {name: array[patients != -1] for name, array in {**kept, "patients": patients}.items()}
    write_arrays(site / "validation.npz", rest)
    without = truth(site, run, question)
    assert count // 2 > 3
    assert np.abs(everyone - without).sum() == 1


def test_every_patient_is_asked_about_alone_and_counted(run: Run, site: Path) -> None:
    records, model = SiteFolder(site).validation(), run.student()
    together = cells(
        model.probs(records.inputs), records.labels, (0.5,), np.zeros(len(records), int), 1
    )
    alone = counted(model, records, (0.5,), Grouping(None, None), 2)
    np.testing.assert_array_equal(alone, together)
    silent = one_by_one(model, records.inputs, 2)
    assert np.isfinite(silent).all()


def test_a_record_that_a_model_chokes_on_is_counted_all_the_same(run: Run, site: Path) -> None:
    """Neither a refusal nor another patient's count may tell that it is there."""

    class Chokes:
        def probs(self, inputs: Any) -> Any:
            if (inputs[:, 0] > 0.5).any():
                raise ArithmeticError("found no number")
            return np.tile([0.2, 0.8], (len(inputs), 1))

    records = SiteFolder(site).validation()
    odd = records.inputs[:, 0] > 0.5
    assert 0 < odd.sum() < len(odd)
    found = counted(Chokes(), records, (0.5,), Grouping(None, None), 2)  # type: ignore[arg-type]
    assert found.sum() == len(records)
    assert found[0, 0].sum() == odd.sum()


def test_a_site_without_held_out_records_says_noise_and_does_not_refuse(
    run: Run, site: Path
) -> None:
    kept = read_arrays(site / "validation.npz")
    write_arrays(site / "validation.npz", {name: array[:0] for name, array in kept.items()})
    assert isinstance(said(site, run, evaluation(site, run)), Counts)


def test_nothing_below_the_floor_leaves(run: Run, site: Path) -> None:
    accepts(site, floor=30)
    message = said(site, run, evaluation(site, run, epsilon=2.0))
    assert isinstance(message, Counts)
    assert message.floor == 30
    assert ((message.counts == WITHHELD) | (message.counts >= 30)).all()
    assert (message.counts == WITHHELD).any()


# An open budget, more classes, groups, and a site that is no rehearsal.


def test_an_open_budget_gives_exact_counts_and_says_so(tmp_path: Path) -> None:
    run = founded(tmp_path / "run", "data.validation=0.4")
    site = run.sites["site-01"]
    place_model(site, model_file(run, tmp_path), "logistic")
    accepts(site, floor=1)
    question = evaluation(site, run, thresholds=())
    message = said(site, run, question)
    assert isinstance(message, Counts)
    assert (message.noise, message.scale, message.counts.shape) == ("none", 0.0, (1, 10, 10))
    records = SiteFolder(site).validation()
    assert message.counts[message.counts != WITHHELD].sum() == len(records)
    assert bodies(site, "budget.charged")[-1]["cost"] == {"event": "NonPrivate"}
    assert bodies(site, "release.outputs")[-1]["mechanism"] == "none"
    assert refused(site, run, thresholds=(0.5,)) is Reason.NOT_ACCEPTED


SCHEMA = """\
label: {column: ill, classes: {"no": ["no"], "yes": ["yes"]}}
columns:
  age: {kind: numeric, low: 18, high: 100}
  sex: {kind: categorical, categories: [f, m]}
"""


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A table with a column to tell groups by."""
    folder = tmp_path_factory.mktemp("ward")
    rng = np.random.default_rng(0)
    rows = [
        f"{rng.integers(20, 95)},{rng.choice(['f', 'm', ''])},{rng.choice(['no', 'yes'])}"
        for _ in range(300)
    ]
    (folder / "ward.csv").write_text("age,sex,ill\n" + "\n".join(rows) + "\n")
    (folder / "ward.csv.schema.yaml").write_text(SCHEMA)
    return founded(
        folder / "run", "data=table", f"data.path={folder / 'ward.csv'}", "data.validation=0.4",
        "data.records=200", "mechanism=dp_training", "mechanism.epsilon=1", "budget.epsilon=2",
    )  # fmt: skip


def test_groups_are_told_apart_where_the_officer_allows_them_alone(
    ward: Run, tmp_path: Path
) -> None:
    site = Path(shutil.copytree(ward.sites["site-01"], tmp_path / "site-01"))
    place_model(site, model_file(ward, tmp_path), "logistic")
    assert refused(site, ward, group="sex") is Reason.NOT_ACCEPTED
    accepts(site, groups=["sex", "age"])
    message = said(site, ward, evaluation(site, ward, group="sex"))
    assert isinstance(message, Counts)
    assert message.counts.shape == (3, 3, 2)  # f, m, none of these
    assert refused(site, ward, group="age") is Reason.NOT_ACCEPTED, "a numeric column"


def test_in_a_rehearsal_the_command_says_what_counts_by_group_need(
    ward: Run, tmp_path: Path
) -> None:
    """No officer signs for a rehearsal: said before anybody is asked, or anything is placed."""
    site = Path(shutil.copytree(ward.sites["site-01"], tmp_path / "site-01"))
    place_model(site, model_file(ward, tmp_path), "logistic")
    question = evaluation(site, ward, group="sex")
    with pytest.raises(BadInput, match=r"--group sex in a rehearsal.*evaluation_groups: \[sex\]"):
        ask_here(ward, question, Grouping(ward.dataset().schema, "sex"), None)
    assert not (ward.sites["site-01"] / "evaluates").exists()


def test_a_group_is_what_a_model_sees_of_its_column(ward: Run) -> None:
    schema = ward.dataset().schema
    assert schema is not None
    grouping = Grouping(schema, "sex")
    assert grouping.names == ("f", "m", "none of these")
    frame = {"age": [20.0, 30.0, 40.0], "sex": ["m", None, "f"]}
    assert grouping.codes(schema.encode(frame)).tolist() == [1, 2, 0]
    assert Grouping(None, None).codes(np.zeros((2, 5))).tolist() == [0, 0]
    for column in ("age", "sox"):
        with pytest.raises(BadInput):
            Grouping(schema, column)
    with pytest.raises(BadInput, match="no table"):
        Grouping(None, "sex")


def test_a_site_that_is_no_rehearsal_counts_nothing_without_its_officers_paper(
    run: Run, site: Path
) -> None:
    told = read_json(site / "site.json")
    told |= {"rehearsal": False, "seed": None, "epsilon": None, "delta": None}
    (site / "site.json").write_text(json.dumps(told))
    assert refused(site, run) is Reason.NOT_SIGNED
    assert not bodies(site, "release.outputs")


def test_a_hospitals_groups_are_those_of_its_officers_paper_and_its_noise_the_systems(
    ward: Run, tmp_path: Path
) -> None:
    table = ward.config["data"]["path"]
    run = founded(
        tmp_path / "run", "data=table", f"data.path={table}", "data.validation=0.4",
        "data.records=200", "mechanism=dp_training", f"sites.dir={tmp_path / 'sites'}",
        "sites.rehearsal=false",
    )  # fmt: skip
    site = run.sites["site-01"]
    place_model(site, model_file(run, tmp_path), "logistic")
    accepts(site, groups=["sex"])  # what the engineer types is not the officer's word
    key = officer(tmp_path)
    installed(site, key, paper("site-01", epsilon=4.0))
    assert refused(site, run, group="sex") is Reason.NOT_ACCEPTED
    first = bodies(site, "budget.opened")[-1]["paper"]
    installed(site, key, paper("site-01", epsilon=4.0, evaluation_groups=["sex"], replaces=first))
    message = said(site, run, evaluation(site, run, group="sex"))
    assert isinstance(message, Counts)
    assert message.counts.shape == (3, 3, 2)
    assert bodies(site, "release.outputs")[-1]["noise"] == "operating system"
