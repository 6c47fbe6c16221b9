"""`fedkd privacy attack RUN`, on a small federation that ran through its own ServerApp."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.audit.verify.logs import check_log
from fedkd.cli.app import run as fedkd
from fedkd.cli.attack import KINDS, Target, attack
from fedkd.cli.run import Run, open_run
from fedkd.cli.shadows import steps_of, steps_that_matter
from fedkd.data import Records
from fedkd.federation.claiming import claim_of_site
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.privacy.attacks import auc
from fedkd.report.building import build
from tests.federation.small import Wiretap, finished, founded

SHADOWS = 16


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two hospitals that know their records by heart: as many passes as it takes."""
    made = founded(
        tmp_path_factory.mktemp("attack") / "run",
        "clients.count=2",
        "data.records=100",
        "data.test_size=150",
        "query.size=30",
        "training.local_epochs=40",
        "training.lesson_epochs=20",
        "training.batch=16",
        "training.learning_rate=0.03",
    )
    finished(made, Wiretap(made))
    return made.folder


@pytest.fixture
def claims(run, private_run):
    """Writes a claim into the run's summary that another run could make, and takes it back."""
    path = run / "summary.json"
    before = path.read_text()

    def claim(epsilon, delta):
        summary, other = json.loads(before), json.loads((private_run / "summary.json").read_text())
        for body in other["privacy"]["claims"].values():
            body |= {"epsilon": epsilon, "spent": epsilon, "delta": delta}
        for row in summary["clients"]:
            row |= {"epsilon": epsilon, "delta": delta}
        kept = {"private": True, "privacy": other["privacy"]}
        path.write_text(json.dumps({**summary, **kept}))

    yield claim
    path.write_text(before)


def told(run, capsys, **options):
    asked = {"kind": None, "shadows": SHADOWS, "seed": 0, "as_json": True, **options}
    code = attack(run, **asked)
    said = capsys.readouterr().out
    return code, json.loads(said) if asked["as_json"] else said


def test_every_attack_is_told_beside_the_claim(run, capsys):
    code, report = told(run, capsys)
    assert (code, report["refuted"], report["releasable"]) == (0, False, False)
    assert [site["site"] for site in report["sites"]] == ["site-01", "site-02"]
    for site in report["sites"]:
        assert site["claim"]["epsilon"] is None
        found = {one["attack"]: one for one in site["findings"]}
        assert set(found) == set(KINDS) - {"averaging"}
        assert found["lira"]["auc"] > 0.7
        assert found["lira"]["pairs"] == 45
        for one in found.values():
            assert 0 <= one["tpr_low"] <= one["tpr"] <= one["tpr_high"] <= 1
            assert one["epsilon_at_least"] >= 0
        assert any("averaging" in note for note in site["notes"])
        assert 0 <= site["label_mix"]["off"] <= 1


def test_a_claim_that_is_too_small_is_refuted_with_exit_code_1(run, capsys, claims):
    claims(epsilon=0.01, delta=1e-6)
    code, report = told(run, capsys, kind="lira", sites=["site-01"])
    assert (code, report["refuted"]) == (1, True)
    assert report["sites"][0]["findings"][0]["refutes"]


def test_a_large_claim_is_met_with_silence(run, capsys, claims):
    claims(epsilon=8.0, delta=1e-6)
    code, said = told(run, capsys, kind="loss", as_json=False)
    assert code == 0
    assert "silent" in said
    assert "REFUTED" not in said
    assert "NOT RELEASABLE" in said
    assert "never certifies" in said


def test_the_same_seed_finds_the_same(run, capsys):
    first, again = (told(run, capsys, kind="poisoned", sites=["site-02"]) for _ in range(2))
    assert first == again


def test_shadows_go_through_the_run_as_the_site_did(run):
    target = Target(open_run(str(run)), "site-01", SHADOWS, 0)
    assert [step.name for step in target.steps] == ["came", "round-000002"]
    shadows = target.shadows
    assert len(shadows.speakers) == len(shadows.released) == SHADOWS
    assert all(len(said) == 2 and said[0].shape == (30, 10) for said in shadows.released)
    assert shadows.inside.sum(axis=0).tolist() == [SHADOWS // 2] * (2 * target.pairing.pairs)
    one, other = (speaker(target.attacked.inputs) for speaker in shadows.speakers[:2])
    assert abs(one - other).max() > 0.01


def logged(run, site):
    with Log(run / "sites" / site / "log.sqlite", site) as log:
        return [entry.body for entry in log.entries("access.performed")]


def test_an_attack_is_told_by_the_attacked_sites_own_log_and_leaves_all_else(run, capsys):
    def contents():
        files = (path for path in run.rglob("*") if path.is_file() and "-" not in path.suffix)
        own = run / "sites" / "site-01"
        kept = {path: path.read_bytes() for path in files}
        handed_over = run / "audit" / "site-01.sqlite"
        changes = (own / "log.sqlite", run / "attack.json", handed_over)
        return {path: it for path, it in kept.items() if path not in changes}

    before, accesses = contents(), logged(run, "site-01")
    told(run, capsys, kind="distillation", sites=["site-01"])
    assert contents() == before  # also the other logs that were handed over
    access, found = logged(run, "site-01")[len(accesses) :]
    assert (access["who"], access["kinds"]) == ("privacy attack", ["distillation"])
    assert access["what"] == "records, models"
    assert [one["attack"] for one in found["findings"]] == ["distillation"]
    assert check_log(run / "sites" / "site-01" / "log.sqlite").party == "site-01"
    said = [one.text for one in build(run).derived.answer("gedpb.anonymity").statements]
    assert any(it.startswith("site-01, attack distillation on ") for it in said)  # at once


def test_what_is_refused_reads_nothing_and_logs_nothing(run, capsys):
    before = logged(run, "site-01")
    with pytest.raises(BadInput):
        told(run, capsys, kind="guess", sites=["site-01"])
    with pytest.raises(BadInput):
        told(run, capsys, kind="loss", sites=["site-01", "site-99"])
    assert logged(run, "site-01") == before


def test_the_command_takes_hospitals_by_name(run, capsys):
    asked = ["privacy", "attack", str(run), "--kind", "loss", "--json"]
    assert fedkd([*asked, "--site", "site-02", "--site", "site-01"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [site["site"] for site in report["sites"]] == ["site-01", "site-02"]
    assert report["sentence"] == "An attack refutes a claim or is silent; it never certifies one."
    assert fedkd([*asked, "--site", "site-99"]) == 2


def test_where_nobody_listens_on_the_way_a_model_fitted_afresh_skips_it():
    every = ["came", "round-2", "round-3"]
    assert steps_that_matter(every, warm=False, hears_all=False) == ("came", "round-3")
    assert steps_that_matter(every, warm=True, hears_all=False) == every
    assert steps_that_matter(every, warm=False, hears_all=True) == every
    assert steps_that_matter(every[:1], warm=False, hears_all=False) == every[:1]


def test_where_the_test_names_hospitals_only_this_ones_records_are_alike(run, monkeypatch):
    opened = open_run(str(run))
    dealt = opened.cut()
    names = np.where(np.arange(len(dealt.test)) < 20, "site-01", "site-02")
    test = Records(dealt.test.inputs, dealt.test.labels, sites=names)
    monkeypatch.setattr(Run, "cut", lambda self: replace(dealt, test=test))
    validation = 5
    assert len(Target(opened, "site-01", SHADOWS, 0).others) == validation + 20
    strangers = np.full(len(test), "elsewhere")
    test = Records(dealt.test.inputs, dealt.test.labels, sites=strangers)
    assert len(Target(opened, "site-01", SHADOWS, 0).others) == validation + 150


def test_no_shadow_learns_from_a_record_of_another_hospital(run):
    target = Target(open_run(str(run)), "site-01", SHADOWS, 0)
    allowed = {row.tobytes() for row in target.pool.inputs}
    foreign = Target(open_run(str(run)), "site-02", SHADOWS, 0).learner.records.inputs
    assert not allowed & {row.tobytes() for row in foreign}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "guess"}, "the attack 'guess'"),
        ({"shadows": 4, "kind": "loss"}, "4 shadow models"),
        ({"sites": ["site-99"]}, "no hospital 'site-99'"),
    ],
)
def test_what_cannot_be_asked_is_refused(run, capsys, options, said):
    with pytest.raises(BadInput, match=said):
        told(run, capsys, **options)


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path, capsys):
    with pytest.raises(BadInput, match="summary"):
        told(tmp_path, capsys)
    assert list(tmp_path.iterdir()) == []  # nothing was founded on the way


def test_a_site_that_answered_nothing_is_not_attacked(run, capsys, monkeypatch):
    monkeypatch.setattr("fedkd.cli.attack.steps_of", lambda log, name: [])
    code, report = told(run, capsys, sites=["site-01"])
    assert (code, report["sites"][0]["findings"]) == (0, [])
    assert "no answer in this run" in report["sites"][0]["notes"][0]


def test_a_site_whose_trainings_were_erased_cannot_be_imitated(run):
    erased = SimpleNamespace(key=f"{open_run(str(run)).id}/train/came", said=None)
    log = SimpleNamespace(
        party="site-01", entries=lambda kind: [erased] if kind == "train.local" else []
    )
    with pytest.raises(BadInput, match="they were erased"):
        steps_of(log, open_run(str(run)).id)


def test_noise_on_answers_is_averaged_away_and_the_what_if_refutes_nothing(
    run, capsys, monkeypatch, claims
):
    """A mechanism that noises the answers of one ordinary model, as no mechanism here may."""

    def noised(said, rng):
        wild = abs(said + rng.laplace(scale=0.5, size=said.shape)) + 1e-6
        return (wild / wild.sum(axis=1, keepdims=True)).astype(said.dtype)

    monkeypatch.setattr(Target, "release", property(lambda self: noised))
    claims(epsilon=0.3, delta=1e-6)
    _, report = told(run, capsys, kind="averaging", sites=["site-01"])
    found = {one["attack"]: one for one in report["sites"][0]["findings"]}
    assert list(found) == ["averaging, 1 answer", "averaging, 10 fresh", "averaging, 100 fresh"]
    assert found["averaging, 1 answer"]["auc"] < found["averaging, 100 fresh"]["auc"]
    assert found["averaging, 100 fresh"]["epsilon_at_least"] is None
    assert not found["averaging, 100 fresh"]["refutes"]


@pytest.fixture(scope="module")
def private_run(tmp_path_factory):
    """Two hospitals whose speakers are trained privately."""
    made = founded(
        tmp_path_factory.mktemp("attack") / "private",
        "clients.count=2",
        "data.records=100",
        "data.test_size=150",
        "mechanism=dp_training",
        "mechanism.steps=10",
        "budget.epsilon=2",
    )
    finished(made, Wiretap(made))
    return made.folder


def test_a_private_speaker_is_attacked_by_shadows_that_were_trained_privately(private_run, capsys):
    target = Target(open_run(str(private_run)), "site-01", SHADOWS, 0)
    assert [step.name for step in target.steps] == ["speaker"]  # not what stays at home
    assert [len(said) for said in target.shadows.released] == [2] * SHADOWS
    one, other = (speaker(target.attacked.inputs) for speaker in target.shadows.speakers[:2])
    assert abs(one - other).max() > 0.001
    code, report = told(private_run, capsys, sites=["site-01"])
    assert (code, report["refuted"]) == (0, False)
    (site,) = report["sites"]
    assert 0 < site["claim"]["epsilon"] <= 2
    assert all(abs(one["auc"] - 0.5) < 0.2 for one in site["findings"])
    # What was found is in the run, and in the attacked hospital's claim, wherever it is shown.
    (kept,) = json.loads((private_run / "attack.json").read_text())["reports"]
    assert kept["sites"] == report["sites"]
    privacy = json.loads((private_run / "summary.json").read_text())["privacy"]
    audits = [privacy["claims"][name]["audit"] for name in ("site-01", "site-02")]
    assert audits[0].startswith("attacked (loss, lira, poisoned, distillation, averaging) and not")
    assert audits[0].endswith("which certifies nothing")
    assert audits[1] == "not attacked"
    assert audits[0] in privacy["statement"]
    assert fedkd(["privacy", "status", str(private_run), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["claim"]["audit"] for row in shown] == audits


def test_a_refuted_claim_says_so_wherever_it_stands(private_run, tmp_path):
    site = SiteFolder(
        Path(shutil.copytree(private_run / "sites" / "site-02", tmp_path / "site-02"))
    )
    one = {"attack": "lira", "pairs": 9, "auc": 1.0, "tpr": 1.0, "refutes": True}
    body = {
        "run": "r", "who": "privacy attack", "what": "what was found", "kinds": ["lira"],
        "shadows": 16, "seed": 0, "alpha": 0.01, "findings": [{**one, "epsilon_at_least": 3.25}],
    }  # fmt: skip
    silent = [{**one, "epsilon_at_least": 0.0, "refutes": False}]
    with site.log("site-02") as log:
        log.append("r/attack/1/found", "access.performed", body)
        log.append("r/attack/2/found", "access.performed", {**body, "findings": silent})
        claim = claim_of_site(site, log, site.settings().population)
    assert claim.audit == "REFUTED by lira: epsilon is at least 3.25, with confidence 99%"
    assert "REFUTED" in claim.sentence()


def test_a_ledger_that_adds_gaussian_privacy_claims_it(private_run, run):
    private = Target(open_run(str(private_run)), "site-01", SHADOWS, 0)
    assert private.claim(2.0, 1e-5).gaussian
    assert not Target(open_run(str(run)), "site-01", SHADOWS, 0).claim(None, None).gaussian


@pytest.fixture(scope="module")
def overfitted_run(tmp_path_factory):
    """Two hospitals that went over few records until nothing was left to learn of them."""
    made = founded(
        tmp_path_factory.mktemp("attack") / "overfitted",
        "clients.count=2",
        "data.records=100",
        "data.test_size=150",
        "query.size=30",
        "rounds=1",
        "training.local_epochs=150",
        "training.batch=16",
        "training.learning_rate=0.03",
    )
    finished(made, Wiretap(made))
    return made.folder


def test_lira_finds_a_planted_overfitted_model_by_the_sites_own_fit(overfitted_run, capsys):
    _, report = told(overfitted_run, capsys, kind="lira", sites=["site-01"])
    assert report["sites"][0]["findings"][0]["auc"] >= 0.85


@pytest.mark.parametrize("seed", range(3))
def test_lira_stays_near_a_half_on_non_members_with_shuffled_labels(overfitted_run, seed):
    """The site's records are put aside: two lots of strangers take both sides of each pair."""
    target = Target(open_run(str(overfitted_run)), "site-01", SHADOWS, seed)
    labels = np.random.default_rng(seed).permutation(target.others.labels)
    strangers = Records(target.others.inputs, labels)
    half = np.random.default_rng(10 + seed).permutation(len(strangers)) < len(strangers) // 2
    assert target.bare  # what is attacked learnt from the site's own records
    target.learner.records = strangers.take(half)
    target.others = strangers.take(~half)
    scores = target.by_lira()
    assert target.pairing.pairs >= 50
    assert (
        abs(auc(scores[0::2], scores[1::2]) - 0.5) < 0.15
    )  # two standard deviations of so few pairs
