"""What follows from evidence: every field once, what is kept back, what does not hold."""

import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fedkd.audit import Log
from fedkd.audit.verify import CannotTell, Refuted
from fedkd.cli import main
from fedkd.privacy.accounting import epsilon_of_mu
from fedkd.privacy.ledger import Ledger
from fedkd.report.building import build
from fedkd.report.verify import catalogue
from fedkd.report.verify.glance import traffic, unanswered_lessons
from fedkd.report.verify.judging import judge
from fedkd.report.verify.spending import spent
from tests.report_verify.conftest import refutations


def test_every_field_of_the_catalogue_appears_once_with_a_status(run: Path) -> None:
    answers = build(run).derived.answers
    assert [answer.field.id for answer in answers] == [one.id for one in catalogue().fields]
    assert len({one.id for one in catalogue().fields}) == len(catalogue().fields) == 93
    for answer in answers:
        assert bool(answer.why) == (answer.status in ("MISSING", "WITHHELD"))


def test_every_rule_of_the_catalogue_can_be_read() -> None:
    known = {"say", "each", "with", "status", "about", "may_be_empty", "figures", "tag", "unless",
             "alone"}  # fmt: skip
    for field in catalogue().fields:
        assert catalogue().chapter(field)
        for rule in field.rules:
            assert set(rule) <= known, field.id
            assert rule.get("status", "COMPUTED") in ("COMPUTED", "RECORDED")
            if "unless" in rule:
                assert rule["unless"] == "attacked" or "{" not in rule["say"], field.id


def test_a_simulation_leaves_legal_fields_open(run: Path) -> None:
    derived = build(run).derived
    assert derived.simulation
    legal = [answer for answer in derived.answers if answer.field.legal]
    assert legal
    assert {answer.status for answer in legal} == {"MISSING"}
    assert b"NOT FOR FILING" in build(run).files["report.md"]


def test_licence_and_legal_basis_are_at_best_recorded(run: Path) -> None:
    answer = build(run).derived.answer("a4.2d.datasets")
    assert answer.status == "RECORDED"
    assert all(one.status == "RECORDED" for one in answer.statements if "legal basis" in one.text)


def test_what_a_site_keeps_back_is_withheld_by_name(run: Path) -> None:
    path = run / "audit" / "site-02.sqlite"
    database = sqlite3.connect(path)
    with database:
        database.execute("UPDATE entries SET body = NULL, salt = NULL WHERE type = 'train.local'")
    database.close()
    built = build(run)
    said = [one for one in built.derived.statements if one.status == "WITHHELD"]
    assert said
    assert all("site-02" in one.text for one in said)
    assert not built.derived.trouble


def test_a_log_that_does_not_hold_is_said_at_the_top_and_at_each_statement(run: Path) -> None:
    path = run / "audit" / "site-02.sqlite"
    database = sqlite3.connect(path)
    with database:
        (body,) = database.execute(
            "SELECT body FROM entries WHERE type = 'dataset.registered'"
        ).fetchone()
        database.execute(
            "UPDATE entries SET body = ? WHERE type = 'dataset.registered'",
            (body.replace("CC BY 4.0", "public domain"),),
        )
    database.close()
    built = build(run)
    assert "site-02" in built.derived.trouble[0]
    doubted = [one for one in built.derived.statements if one.doubt]
    assert doubted
    for one in built.derived.statements:
        assert bool(one.doubt) == any(place.log == "site-02" for place in one.evidence)
    assert b"NOT HOLD" in built.files["report.md"].splitlines()[2]
    assert main(["report", "build", str(run)]) == 1
    found = judge(run / "report" / "evidence.json")
    assert "log site-02" in refutations(found)


def test_a_missing_log_cannot_be_passed_over(run: Path) -> None:
    (run / "audit" / "site-03.sqlite").unlink()
    (run / "report" / "evidence.json").write_bytes(build(run / "audit").bundle)
    found = judge(run / "report" / "evidence.json")
    assert found.verdict == "CANNOT TELL"


def test_a_policy_of_ones_own_is_what_verifies(run: Path, tmp_path: Path, capsys: Any) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in (run / "audit").glob("*.policy"):
        (own / path.name).write_bytes(path.read_bytes())
    told = ["report", "verify", str(run)]
    assert main([*told, "--policy", str(own)]) == 0
    assert "VERIFIED" in capsys.readouterr().out
    assert main([*told, "--policy", str(run / "audit")]) == 2
    (own / "site-01.policy").write_bytes((own / "site-02.policy").read_bytes())
    assert main([*told, "--policy", str(own)]) == 1
    (own / "site-01.policy").unlink()
    assert main([*told, "--policy", str(own)]) == 3


def test_a_checkpoint_that_was_kept_must_be_gone_on_from(run: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    told = ["report", "verify", str(run), "--seen", str(kept)]
    (kept / "a.checkpoint").write_bytes((run / "audit" / "site-01.checkpoint").read_bytes())
    assert main(told) == 0
    with Log(run / "sites" / "site-01" / "log.sqlite", "site-01") as log:
        log.append("more", "error.raised", {"kind": "later"})
        note = log.checkpoint()
    assert note is not None
    (kept / "b.checkpoint").write_bytes(note.to_bytes())
    assert main(told) == 1  # the report's log is shorter than what the auditor saw


OPENED = {"delta": 1e-5, "filter": "gdp", "order": None}


@pytest.mark.parametrize("noise", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("steps", [1, 60, 5000])
def test_the_closed_form_is_the_ledgers(noise: float, steps: int) -> None:
    cost = {
        "event": "SelfComposed",
        "count": steps,
        "of": {"event": "Gaussian", "noise_multiplier": noise},
    }
    exact = epsilon_of_mu(math.sqrt(steps) / noise, 1e-5)
    assert spent(OPENED, [cost]) == pytest.approx(exact, rel=1e-9, abs=1e-12)
    pure = {"event": "EpsilonDelta", "epsilon": 0.3, "delta": 0.0}
    ledger = Ledger("p", 1e6, 1e-5).charge(cost).charge(pure)
    assert spent(OPENED, [cost, pure]) == pytest.approx(ledger.spent(), rel=1e-6)


def test_spending_without_bound_and_without_an_accountant(monkeypatch: Any) -> None:
    assert spent(OPENED, [{"event": "NonPrivate"}]) == math.inf
    assert spent(OPENED, [{"event": "NoOp"}]) == 0.0
    sampled = {
        "event": "PoissonSampled",
        "rate": 0.1,
        "of": {"event": "Gaussian", "noise_multiplier": 2.0},
    }
    with pytest.raises(CannotTell):
        spent(OPENED, [sampled])
    rdp = {"delta": 1e-5, "filter": "rdp", "order": 8.0}
    ledger = Ledger("p", 100.0, 1e-5, filter="rdp", order=8.0).charge(sampled)
    assert spent(rdp, [sampled]) == pytest.approx(ledger.spent(), rel=1e-6)
    monkeypatch.setitem(__import__("sys").modules, "dp_accounting", None)
    with pytest.raises(CannotTell, match="dp_accounting"):
        spent(rdp, [sampled])
    with pytest.raises(Refuted):
        spent(OPENED, [{"cost": 1}])


def test_bytes_are_counted_once(run: Path) -> None:
    """Each admitted round's entry counts from the start of the run: the last one is the sum."""
    with Log(run / "server" / "log.sqlite", "server") as log:
        counted = [entry.body["traffic"] for entry in log.entries("answers.admitted")]
    assert len(counted) == 2
    found = traffic(build(run).derived.evidence)
    assert {site: (one.up, one.down) for site, one in found.items()} == {
        site: (counted[-1]["up"][site], counted[-1]["down"][site]) for site in counted[-1]["up"]
    }


def test_what_no_entry_counts_is_said_beside_the_bytes(run: Path) -> None:
    """The closing lesson's entry names whom it went to, and not how many bytes it had."""
    built = build(run)
    (lesson,) = unanswered_lessons(built.derived.evidence)
    assert lesson.body is not None
    assert (lesson.type, lesson.body["round"]) == ("lesson.sent", 3)
    counted = sum(it.up + it.down for it in traffic(built.derived.evidence).values())
    summary = json.loads((run / "summary.json").read_bytes())
    assert counted < summary["bytes_up"] + summary["bytes_down"]
    page = built.files["index.html"].decode()
    said = page[page.index("<strong>NOT COUNTED</strong>") :][:1200]
    assert "brought the last lesson to site-01, site-02, site-03" in said
    assert f"server#{lesson.index}" in said
