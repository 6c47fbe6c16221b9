"""A finished run's student is evaluated: by a question to hospitals, and on a set of one's own."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli import main
from fedkd.cli.evaluate import NAME
from fedkd.cli.run import open_run
from fedkd.cli.simulate import simulate_one
from fedkd.data import Records
from fedkd.data.sources.breast_cancer import breast_cancer
from fedkd.distill import load_weights
from fedkd.federation.evaluating import Grouping
from fedkd.federation.evaluation import owned
from fedkd.federation.participant import open_participant
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import digest_of_bytes
from fedkd.privacy.count_limits import NoiseLaw
from fedkd.wire import Counts, Evaluation, Reason, Refusal, decode, encode, unpack

TINY = [
    "query.size=16", "rounds=1", "clients.count=3", "clients.models=[logistic]",
    "training.local_epochs=1", "training.lesson_epochs=1", "student.model=logistic",
    "student.epochs=1", "data.validation=0.4", "report=false",
]  # fmt: skip
PRIVATE = ["data=breast_cancer", "mechanism=dp_training", "mechanism.steps=5"]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has left some of its budgets. Nobody may change it."""
    run = tmp_path_factory.mktemp("private") / "run"
    simulate_one([*TINY, *PRIVATE, "mechanism.epsilon=1", "budget.epsilon=6", f"out={run}"])
    return run


@pytest.fixture
def run(private: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(private, tmp_path / "run"))


@pytest.fixture(scope="module")
def open_budget(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("open") / "run"
    simulate_one([*TINY, "data=digits", "data.records=200", "data.test_size=30", f"out={run}"])
    return run


def asked(run: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `fedkd evaluate --json` prints, which is what it keeps."""
    capsys.readouterr()
    assert main(["evaluate", str(run), *words, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert json.loads((run / NAME).read_text())["evaluations"][-1] == told
    return told


def entries(path: Path, party: str, type: str) -> list[dict[str, Any]]:
    with Log(path / "log.sqlite", party) as log:
        return [dict(entry.body) for entry in log.entries(type)]


def verdict(run: Path, *words: str) -> int:
    return main(["audit", "verify", str(run), *words])


def counts_of(run: Path, site: str) -> Any:
    """The exact counts at a site, as nobody but it may know them, at a threshold of 0.5."""
    opened = open_run(str(run))
    student = opened.student().with_weights(load_weights(run / "student.safetensors"))
    records = SiteFolder(opened.sites[site]).validation()
    return owned(student, [records], (0.5,), Grouping(None, None), 2).seen[0].counts


def test_hospitals_are_asked_charged_and_summed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = asked(run, "--epsilon", "3", capsys=capsys)
    assert told["private"] is True
    total = np.zeros((1, 2, 2))
    for row in told["sites"]:
        assert row["answered"], row
        assert row["cost"]["spent_before"] == pytest.approx(1.0, rel=0.01)
        assert row["cost"]["spent"] < 1.0 + 3.0  # squares of mu add up
        assert 0 < row["cost"]["left"] < row["cost"]["budget"] == 6.0
        true, deviation = counts_of(run, row["site"]), NoiseLaw(row["noise"], row["scale"]).variance
        for found, exact in zip(np.ravel(row["counts"]), true.ravel(), strict=True):
            assert found is None or abs(found - exact) < 10 * deviation**0.5
        total += true
    (row,) = told["together"]["all"]["thresholds"]
    (tn, fn), (fp, tp) = total[0]
    # A 95 % interval misses now and then, and each run draws other noise: six deviations never do.
    slack = 6 * (deviation * len(told["sites"])) ** 0.5
    for name, true in (("tp", tp), ("fp", fp), ("tn", tn), ("fn", fn)):
        one = row["counts"][name]
        assert one["low"] - slack <= true <= one["high"] + slack, name
    for name, true, of in (("sensitivity", tp, tp + fn), ("specificity", tn, tn + fp)):
        beside = 2 * slack / of
        assert row[name]["low"] - beside <= true / of <= row[name]["high"] + beside


def test_the_logs_go_on_from_the_runs_and_still_hold(
    run: Path, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Copies are renewed, never written to: the earlier ones are what an auditor has."""
    handed = {path.name: path.read_bytes() for path in (private / "audit").iterdir()}
    asked(run, capsys=capsys)
    assert {path.name for path in (run / "audit").iterdir()} == set(handed)
    assert verdict(run, "--seen", str(private / "audit")) == 0
    said = capsys.readouterr().out
    assert "CONSISTENT   double entry" in said
    policies = str(private / "audit")
    assert verdict(run, "--policy", policies) == 0
    assert "VERIFIED" in capsys.readouterr().out
    assert main(["audit", "recompute", str(run)]) == 0
    assert handed == {path.name: path.read_bytes() for path in (private / "audit").iterdir()}


def test_server_and_sites_write_down_the_same_bodies(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = asked(run, capsys=capsys)
    done = entries(run / "server", "server", "evaluation.done")[-1]
    assert (done["question"], done["model"]) == (told["question"], told["model"])
    for site, payload in done["answers"].items():
        folder = run / "sites" / site
        release = entries(folder, site, "release.outputs")[-1]
        assert release["payload"] == payload
        body = SiteFolder(folder).outgoing(payload)
        assert isinstance(decode(body, 1 << 20), Counts)
        charged = entries(folder, site, "budget.charged")[-1]
        assert charged["question"] == done["question"] == release["question"]
        heads = done["checkpoints"][site]
        with Log(folder / "log.sqlite", site) as log:
            index = [e.index for e in log.entries("release.outputs")][-1]
        assert index < heads["size"], "it was in the log before it left"
    assert "sensitivity at 0.5" in done["figures"]["student"]


def test_asked_again_it_costs_nothing_and_says_the_same(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = asked(run, capsys=capsys)
    second = asked(run, capsys=capsys)
    for before, after in zip(first["sites"], second["sites"], strict=True):
        assert before["counts"] == after["counts"]
        assert after["cost"]["charged"] == []
        assert after["cost"]["spent"] == before["cost"]["spent"]
    assert len(json.loads((run / NAME).read_text())["evaluations"]) == 1
    assert main(["evaluate", str(run)]) == 0
    assert "free (asked before)" in capsys.readouterr().out


def test_a_site_whose_budget_is_spent_refuses_and_the_others_go_on(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(
        run,
        "--sites",
        "site-02",
        "--epsilon",
        "4",
        "--threshold",
        "0.4",
        "--threshold",
        "0.6",
        capsys=capsys,
    )
    told = asked(run, "--epsilon", "4", capsys=capsys)
    reasons = {row["site"]: row["left_out"] for row in told["sites"]}
    refused = "refused: budget_exhausted"
    assert reasons == {"site-01": None, "site-02": refused, "site-03": None}
    refusal = entries(run / "sites" / "site-02", "site-02", "release.refused")[-1]
    assert refusal["rule"] == "budget_exhausted"
    assert verdict(run) == 0


def test_a_run_that_spent_everything_is_refused_before_anybody_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    simulate_one([*TINY, *PRIVATE, "budget.epsilon=1", f"out={run}"])
    for site in ("site-01", "site-02", "site-03"):
        with SiteFolder(run / "sites" / site).log(site) as log:
            (opened,) = log.entries("budget.opened")
            cost = {"event": "Gaussian", "noise_multiplier": 1.0}
            body = {"population": opened.body["population"], "cost": cost, "question": "earlier"}
            log.append("earlier", "budget.charged", body)
    capsys.readouterr()
    assert main(["evaluate", str(run)]) == 2
    assert "no budget with anything left" in capsys.readouterr().err
    assert not (run / NAME).exists()
    assert not (run / "sites" / "site-01" / "evaluates").exists()


def test_without_a_bound_counts_are_exact_and_not_private_is_said(
    open_budget: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(open_budget, tmp_path / "run"))
    told = asked(run, capsys=capsys)
    assert told["private"] is False
    assert {row["noise"] for row in told["sites"]} == {"none"}
    assert {row["floor"] for row in told["sites"]} == {5}
    assert all(np.shape(row["counts"]) == (1, 10, 10) for row in told["sites"])
    assert len(told["together"]["all"]["classes"]) == 10
    assert main(["evaluate", str(run)]) == 0
    assert "NOT PRIVATE" in capsys.readouterr().out
    assert verdict(run) == 0


def test_a_site_that_was_never_given_the_model_says_that_it_is_unknown(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedkd.cli.evaluate_sites.place_model", lambda *_: None)
    assert main(["evaluate", str(run)]) == 1
    assert capsys.readouterr().out.count("no answer, refused: unknown_model") == 3
    told = json.loads((run / NAME).read_text())["evaluations"][-1]
    assert all(row["cost"]["charged"] == [] for row in told["sites"])


# A labelled set of the coordinator's own.


def write_own(path: Path, run: Path) -> Records:
    """The first rows of the data as a table that somebody else typed in; the test's own labels."""
    opened = open_run(str(run))
    schema = opened.dataset().schema
    assert schema is not None
    from sklearn.datasets import load_breast_cancer

    raw, places = load_breast_cancer(as_frame=True), np.arange(0, 569, 3)
    names = [column.name for column in schema.columns]
    frame = raw.frame.iloc[places]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*names, schema.label.column])
        for (_, row), label in zip(frame.iterrows(), raw.target[places], strict=True):
            rows.writerow([*row.to_numpy()[: len(names)], raw.target_names[label]])
    return breast_cancer().records.take(places)


def test_a_set_of_ones_own_asks_nobody_and_costs_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = write_own(tmp_path / "own.csv", run)
    outboxes = {path.name for path in run.glob("sites/*/outbox/*.bin")}
    charges = {site: len(entries(run / "sites" / site, site, "budget.charged")) for site in
               ("site-01", "site-02", "site-03")}  # fmt: skip
    told = asked(run, "--data", str(tmp_path / "own.csv"), capsys=capsys)
    assert told["patients"] == told["records"] == len(records)
    student = open_run(str(run)).student().with_weights(load_weights(run / "student.safetensors"))
    said = student.probs(records.inputs)[:, 1] >= 0.5
    (row,) = told["together"]["all"]["thresholds"]
    assert row["counts"]["tp"]["value"] == int((said & (records.labels == 1)).sum())
    assert row["accuracy"]["value"] == pytest.approx(np.mean(said == records.labels))
    assert row["accuracy"]["low"] < row["accuracy"]["value"] < row["accuracy"]["high"]
    assert told["auroc"]["low"] < told["auroc"]["value"] <= told["auroc"]["high"]
    done = entries(run / "server", "server", "evaluation.done")[-1]
    assert done["figures"]["student"]["auroc"] == told["auroc"]["value"]
    for site, count in charges.items():
        assert len(entries(run / "sites" / site, site, "budget.charged")) == count
    kinds = {type(decode(path.read_bytes(), 1 << 20)).__name__
             for path in run.glob("sites/*/outbox/*.bin") if path.name not in outboxes}  # fmt: skip
    assert kinds <= {"Present"}
    assert verdict(run) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(tmp_path / "own.csv")]) == 0
    assert "nothing was charged" in capsys.readouterr().out


# What does not fit.

WRONG = {
    "--epsilon 0": "a finite number above 0",
    "--epsilon -1": "a finite number above 0",
    "--epsilon nan": "a finite number above 0",
    "--threshold 0": "above 0 and below 1",
    "--threshold 1": "above 0 and below 1",
    "--threshold nan": "above 0 and below 1",
    "--threshold 0.5 --threshold 0.5": "each once",
    "--sites site-09": "site-01, site-02, site-03",
    "--group sex": "one of",
    "--data nowhere": "a table's file",
    "--data breast_cancer": "dealt out to the hospitals",
    "--data digits": "as the federation's records have",
    "--data digits --epsilon 1": "costs nothing",
    "--data-path x": "without --data",
}


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    words: str, private: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(private), *words.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: found ")
    assert WRONG[words] in said
    assert not (private / NAME).exists()


def test_a_run_that_is_not_finished_or_has_another_student_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "student.safetensors").write_bytes(
        next(run.glob("sites/site-01/speakers/*.safetensors")).read_bytes()
    )
    assert main(["evaluate", str(run)]) == 2
    assert "the student that the server's log names" in capsys.readouterr().err
    (run / "student.safetensors").unlink()
    assert main(["evaluate", str(run)]) == 2
    (run / "summary.json").unlink()
    assert main(["evaluate", str(run)]) == 2
    assert "summary.json" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "nowhere")]) == 2


def test_thresholds_belong_to_two_classes(
    open_budget: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(open_budget), "--threshold", "0.5"]) == 2
    assert "for 10 classes" in capsys.readouterr().err


def test_an_evaluation_that_brings_no_word_of_the_peers_is_not_answered(run: Path) -> None:
    """As any question: a site that may be an old copy of itself would spend its budget twice."""
    opened = open_run(str(run))
    question = Evaluation(opened.id, 3, digest_of_bytes(b"a model"), (0.5,), None, 1.0)
    body = open_participant(opened.sites["site-01"], opened.build).answer(encode(question))
    assert decode(body, 1 << 20) == Refusal("site-01", opened.id, 3, Reason.NOT_FRESH)


def test_what_leaves_with_an_evaluation_is_counts_and_no_more(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in run.glob("sites/*/outbox/*.bin")}
    asked(run, capsys=capsys)
    fresh = [path for path in run.glob("sites/*/outbox/*.bin") if path.name not in before]
    sent = [unpack(path.read_bytes(), 1 << 20) for path in fresh]
    assert {header["kind"] for header, _ in sent} <= {"counts", "present"}
    counts = [(header, arrays) for header, arrays in sent if header["kind"] == "counts"]
    assert len(counts) == 3
    for header, arrays in counts:
        assert set(header) == {
            "v", "kind", "site", "run", "round", "question", "model", "noise", "scale", "floor",
        }  # fmt: skip
        assert set(arrays) == {"counts"}
        assert arrays["counts"].shape == (1, 2, 2)
