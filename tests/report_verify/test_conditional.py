"""Fields that ask of another kind of system are shown apart, until a person says how it is."""

import json
from pathlib import Path
from typing import Any

from fedkd.audit.officer import new_key
from fedkd.cli import main
from fedkd.report.building import build
from fedkd.report.declaring import open_questions
from fedkd.report.verify.deriving import STATUSES
from fedkd.report.verify.judging import judge
from tests.report_verify.conftest import Forge, refutations

CONDITIONAL = ["a50.2.marking", "a53.annex11", "a53.1d.summary"]
"""Art. 50 and 53 ask of systems that generate content, and of general-purpose models."""


def test_what_asks_of_another_kind_of_system_counts_nowhere_and_is_shown(run: Path) -> None:
    built = build(run)
    derived = built.derived
    assert [one.field.id for one in derived.conditional] == CONDITIONAL
    assert {one.status for one in derived.conditional} == {"MISSING"}
    assert derived.apart() == {"DECLARED": 0, "MISSING": 3}
    assert sum(derived.coverage().values()) == len(derived.answers) - 3 == 90
    # The facts that would serve are there, although nobody said that they are asked for.
    assert {one.status for one in derived.answer("a53.annex11").statements} == {
        "RECORDED", "COMPUTED",
    }  # fmt: skip
    assert "that it does not and why" in derived.answer("a53.annex11").why
    asked = [one.field.id for one in open_questions(derived)["the provider"]]
    assert set(CONDITIONAL) <= set(asked)
    for name in ("report.md", "index.html"):
        said = built.files[name].decode()
        assert "in none of these counts: 3 fields" in said, name
    told = json.loads(built.files["report.json"])
    assert told["conditional"] == {"DECLARED": 0, "MISSING": 3}
    assert [one["id"] for one in told["fields"] if one["conditional"]] == CONDITIONAL


def test_a_person_says_that_it_does_not_apply(run: Path, tmp_path: Path, capsys: Any) -> None:
    key = tmp_path / "jane.key"
    public = new_key(key, "Jane Doe").verifier().text()
    assert main(["report", "enrol", str(run), "--key", public, "--role", "provider"]) == 0
    why = "Not applicable: the model sorts one kind of record, and is no general-purpose model."
    told = ["report", "declare", str(run), "a53.annex11", "--text", why, "--key", str(key)]
    assert main(told) == 0
    before = build(run).derived.coverage()
    assert main(["report", "build", str(run)]) == 0
    assert "apart        3 fields, under a condition: 1 DECLARED, 2 MISSING" in (
        capsys.readouterr().out
    )
    derived = build(run).derived
    answer = derived.answer("a53.annex11")
    assert (answer.status, answer.statements[-1].text) == ("DECLARED", why)
    assert derived.coverage() == before
    assert derived.coverage()["DECLARED"] == 0
    assert set(derived.coverage()) == set(STATUSES)
    assert judge(run / "report" / "report.json").verdict == "CONSISTENT"


def test_a_condition_that_nobody_declared_met_is_refuted(forged: Forge) -> None:
    def change(told: dict[str, Any]) -> None:
        next(one for one in told["fields"] if one["id"] == "a53.annex11")["status"] = "RECORDED"

    assert "a53.annex11" in refutations(forged(change))
