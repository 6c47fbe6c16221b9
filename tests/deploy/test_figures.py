"""A deployed run's student is evaluated: hospitals say yes, count, charge, and are reported."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedkd.audit import Log
from fedkd.cli import main
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.evaluated import report
from fedkd.cli.examine import hand_over
from fedkd.cli.server import status as server_status
from fedkd.deploy.approving import rule
from fedkd.deploy.consent import Desk
from fedkd.deploy.metrics import text_of
from fedkd.deploy.server_metrics import server_metrics
from fedkd.deploy.standing import standing
from fedkd.distill.saving import save_weights
from fedkd.federation.paying import ledger_of
from fedkd.federation.rounds import NoQuorum
from fedkd.federation.site import SiteFolder
from fedkd.knowledge import BadInput
from fedkd.wire import (
    Considered,
    Counts,
    Reason,
    Refusal,
    Ruling,
    decode,
    encode,
)
from tests.deploy.federated import SITES, Federated, approve, taken_in
from tests.deploy.figured import World, agreed, copied, entries, proposed, said
from tests.deploy.test_pausing import interrupted
from tests.deploy.test_policy import with_policy

SPENT = 1e-6


@pytest.fixture
def unprotected(open_world: World, tmp_path: Path) -> World:
    return copied(open_world, tmp_path / "all")


@pytest.fixture
def private(private_world: World, tmp_path: Path) -> World:
    return copied(private_world, tmp_path / "all")


def counts_released(federated: Federated, site: str) -> list[dict[str, Any]]:
    released = entries(federated.hospitals[site].site, site, "release.outputs")
    return [one for one in released if one["kind"] == "confusion counts"]


def spent(federated: Federated, site: str) -> float:
    with SiteFolder(federated.hospitals[site].site).log(site) as log:
        return float(ledger_of(log, site).spent())


def handed_over(federated: Federated, run: DeployedRun, site: str) -> str:
    """What a hospital discloses for the report: all that the form proposes."""
    folder = federated.server.folder.parent
    form, out = folder / f"{site}.form", folder / f"{site}.bundle"
    for _ in ("the form is written", "it is taken as their choices"):
        words = ["--run", run.id, "--form", str(form), "--by", "Bo", "--out", str(out)]
        assert main(["site", "disclose", str(federated.hospitals[site].site), *words]) == 0
    return str(out)


def rows_of(told: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {row["site"]: row for row in told["sites"]}


def test_hospitals_count_and_one_that_took_no_part_counts_by_itself(unprotected: World) -> None:
    federated, run = unprotected
    evaluation = proposed(run)
    agreed(federated, evaluation)
    told = federated.evaluated(evaluation)
    rows = rows_of(told)
    assert {site: row["took_part"] for site, row in rows.items()} == {
        "east": True, "north": True, "west": False,
    }  # fmt: skip
    assert all(row["answered"] and row["noise"] == "none" for row in rows.values())
    (both,) = told["together"]["all"]["thresholds"]
    alone = [rows[site]["figures"]["all"]["thresholds"][0]["counts"] for site in ("east", "north")]
    assert both["counts"]["tp"]["value"] == sum(one["tp"]["value"] for one in alone)
    (logged,) = entries(run.folder / "server", "server", "evaluation.done")
    assert set(logged["answers"]) == set(SITES)
    for site, digest in logged["answers"].items():
        (released,) = counts_released(federated, site)
        assert (released["payload"], released["question"]) == (digest, logged["question"])
    fewer = proposed(run, epsilon=1.0, sites="east,north")
    agreed(federated, fewer, "east", "north")
    assert set(rows_of(federated.evaluated(fewer))) == {"east", "north"}
    text = "\n".join(report(told))
    assert "NOT PRIVATE" in text
    assert "west (took no part), threshold 0.5" in text


def test_the_report_shows_figures_by_hospital(
    unprotected: World, capsys: pytest.CaptureFixture[str]
) -> None:
    federated, run = unprotected
    evaluation = proposed(run)
    agreed(federated, evaluation)
    federated.evaluated(evaluation)
    assert main(["audit", "verify", str(run.folder)]) == 0
    with_them = [word for site in SITES for word in ("--with", handed_over(federated, run, site))]
    assert main(["report", "build", str(run.folder), *with_them]) == 0
    assert main(["report", "verify", str(run.folder / "report")]) == 0
    evidence = json.loads((run.folder / "report" / "evidence.json").read_text())
    stated = [one["text"] for one in evidence["statements"]]
    for part in ("east, on its own", "north, on its own", "west, a hospital that took no part"):
        assert any(part in one for one in stated), part
    capsys.readouterr()


def test_a_private_hospital_charges_once_and_noises(private: World) -> None:
    federated, run = private
    before = {site: spent(federated, site) for site in SITES}
    evaluation = proposed(run, epsilon=3.0, group="sex")
    agreed(federated, evaluation)
    told = federated.evaluated(evaluation)
    assert told["private"]
    assert set(told["together"]) == {"all", "f", "m", "none of these"}
    for site, row in rows_of(told).items():
        assert row["answered"], row
        assert row["noise"] == "geometric"
        assert row["cost"] is None  # the hospital's to know
        assert before[site] < spent(federated, site) <= before[site] + 3.0
        (released,) = counts_released(federated, site)
        assert released["noise"] == "operating system"
    after = {site: spent(federated, site) for site in SITES}
    again = federated.evaluated(proposed(run, epsilon=3.0, group="sex"))
    assert again["sites"] == told["sites"]  # the same paper and question: the same counts, free
    assert {site: spent(federated, site) for site in SITES} == after
    with_them = [word for site in SITES for word in ("--with", handed_over(federated, run, site))]
    assert main(["report", "build", str(run.folder), *with_them]) == 0
    assert main(["report", "verify", str(run.folder / "report")]) == 0
    evidence = json.loads((run.folder / "report" / "evidence.json").read_text())
    assert any("sex f, on" in one["text"] for one in evidence["statements"])


def test_nobody_is_asked_before_a_person_said_yes(
    private: World, capsys: pytest.CaptureFixture[str]
) -> None:
    federated, run = private
    evaluation = proposed(run)
    ruled = taken_in(federated, evaluation)
    assert all(
        isinstance(one, Considered) and one.ruling is Ruling.PENDING for one in ruled.values()
    )
    question = evaluation.proposal().question()
    for site in SITES:  # they approved the run, and not this
        refused = said(federated, site, question)
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.NOT_APPROVED
    with pytest.raises(NoQuorum, match="east: pending"):
        federated.evaluated(evaluation)
    assert not any(counts_released(federated, site) for site in SITES)
    assert evaluation.told()["state"] == "failed"
    assert server_status(federated.server.folder, as_json=False) == 0
    line = f"evaluation {evaluation.name} of its student: failed, epsilon 3 each; east pending"
    assert line in " ".join(capsys.readouterr().out.split())
    (standing_now,) = standing(federated.server).progress[-1].evaluations
    assert standing_now.rulings == dict.fromkeys(SITES, "pending")
    assert 'fedkd_server_evaluations{state="failed"} 1' in text_of(
        server_metrics(standing(federated.server))
    )
    approve(federated, evaluation, "east", "north")
    told = federated.evaluated(evaluation)
    assert rows_of(told)["west"]["left_out"] == "pending"


def test_what_was_not_approved_word_for_word_is_refused(private: World) -> None:
    federated, run = private
    evaluation = proposed(run, epsilon=1.0)
    agreed(federated, evaluation)
    question = evaluation.proposal().question()
    before = spent(federated, "east")
    for other in (
        replace(question, epsilon=1.5),
        replace(question, thresholds=(0.4,)),
        replace(question, group="sex"),
        replace(question, round=question.round + 1),
        replace(question, model=evaluation.proposal().digest),
    ):
        refused = said(federated, "east", other)
        assert isinstance(refused, Refusal)
        assert refused.reason is Reason.NOT_APPROVED
    assert spent(federated, "east") == before
    assert not counts_released(federated, "east")


def test_a_yes_that_is_taken_back_stops_the_counts(private: World) -> None:
    federated, run = private
    evaluation = proposed(run)
    agreed(federated, evaluation)
    east = federated.hospitals["east"]
    rule(east, evaluation.proposal(), federated.build, by="Bo", decline="a complaint")
    told = federated.evaluated(evaluation)
    assert rows_of(told)["east"]["left_out"] == "declined"
    assert not counts_released(federated, "east")
    (logged,) = entries(run.folder / "server", "server", "evaluation.done")
    assert logged["left_out"] == {"east": "declined"}


@pytest.mark.parametrize("how", ["figures", "epsilon", "hours", "pause", "group"])
def test_the_policy_has_the_last_word(private: World, how: str) -> None:
    federated, run = private
    east = federated.hospitals["east"]
    typed = yaml.safe_load(east.site_yaml.read_text())
    if how == "figures":
        typed["policy"]["figures"] = []
    if how == "hours":
        typed["policy"]["hours"] = "03:00-03:00"  # never
    group = "sex" if how == "group" else None
    evaluation = proposed(run, epsilon=9.0 if how == "epsilon" else 2.0, group=group)
    if how == "pause":
        agreed(federated, evaluation)
        east.paused.write_text("now\n")
    elif how in ("hours", "group"):
        agreed(federated, evaluation)
        east.site_yaml.write_text(yaml.safe_dump(typed, sort_keys=False))
    else:
        east.site_yaml.write_text(yaml.safe_dump(typed, sort_keys=False))
        ruled = taken_in(federated, evaluation)["east"]
        assert isinstance(ruled, Considered)
        assert ruled.ruling is Ruling.DECLINED
        with pytest.raises(BadInput, match="cannot be approved here"):
            rule(east, evaluation.proposal(), federated.build, by="Ada", decline=None)
    before = spent(federated, "east")
    if how == "group":  # the officer allowed it
        assert rows_of(federated.evaluated(evaluation))["east"]["answered"]
        return
    refused = said(federated, "east", evaluation.proposal().question())
    assert isinstance(refused, Refusal)
    assert refused.reason is {
        "figures": Reason.OUTSIDE_POLICY, "epsilon": Reason.NOT_APPROVED,
        "hours": Reason.OUTSIDE_POLICY, "pause": Reason.PAUSED,
    }[how]  # fmt: skip
    assert spent(federated, "east") == before
    assert not counts_released(federated, "east")


@pytest.mark.parametrize("how", ["pause", "hours"])
@pytest.mark.parametrize("again", [False, True])
def test_counts_stay_once_people_want_nothing_more_let_out(
    private: World, how: str, again: bool
) -> None:
    """They are looked at when the counting begins, and when counts would leave."""
    federated, run = private
    east, evaluation = federated.hospitals["east"], proposed(run)
    agreed(federated, evaluation, "east")
    asked = evaluation.proposal().question()
    if again:
        assert isinstance(said(federated, "east", asked), Counts)
    released = len(counts_released(federated, "east"))
    typed = east.site_yaml.read_text()

    def happens() -> None:
        if how == "pause":
            east.paused.write_text("now\n")
        else:
            with_policy(federated, hours="03:00-03:00")

    # In the turn: a mechanism is built to hold it against the paper, a model to be counted.
    build = interrupted(federated, happens, "mechanisms" if again else "distill.models")
    refused = decode(Desk(east.folder, build).handle(encode(asked)), 1 << 20)
    assert isinstance(refused, Refusal)
    assert refused.reason is (Reason.PAUSED if how == "pause" else Reason.OUTSIDE_POLICY)
    assert len(counts_released(federated, "east")) == released
    paid = spent(federated, "east")
    east.paused.unlink(missing_ok=True)
    east.site_yaml.write_text(typed)
    assert isinstance(said(federated, "east", asked), Counts)
    assert spent(federated, "east") == paid, "it was paid once"


def test_without_a_bounded_budget_counts_need_the_long_word(unprotected: World) -> None:
    """Nobody lets exact counts out by a word that elsewhere means noised ones."""
    federated, run = unprotected
    evaluation, east = proposed(run), federated.hospitals["east"]
    agreed(federated, evaluation)
    typed = east.site_yaml.read_text()
    east.site_yaml.write_text(typed.replace("  - exact_counts\n", ""))
    rows = rows_of(federated.evaluated(evaluation))
    assert {site: row["left_out"] for site, row in rows.items()} == {
        "east": "refused: outside_policy", "north": None, "west": None,
    }  # fmt: skip
    assert not counts_released(federated, "east")
    why = "figures: found counts without noise: the budget bounds nothing, expected [counts, exac"
    assert why in (east.site / "errors.txt").read_text()
    another = proposed(run, epsilon=2.0)
    ruled = {site: one.ruling for site, one in taken_in(federated, another).items()}
    assert ruled == {"east": Ruling.DECLINED, "north": Ruling.PENDING, "west": Ruling.PENDING}
    with pytest.raises(BadInput, match="without noise"):
        approve(federated, another, "east")


def test_a_model_is_brought_by_a_person_and_is_the_one_that_was_proposed(
    unprotected: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federated, run = unprotected
    evaluation = proposed(run)
    taken_in(federated, evaluation)
    east = str(federated.hospitals["east"].folder)
    words = ["site", "approve", east, evaluation.proposal().digest]
    assert main(words) == 0
    told = capsys.readouterr().out
    for part in (
        f"evaluation of the student of run {run.id}",
        evaluation.proposal().question().model,
        "NOT HERE: bring the file with --model FILE",
        "thresholds 0.5",
        "4 counts [1, 2, 2] of patients",
        "a count below 5 stays here",
        "NOT PRIVATE: an open budget lets counts out as they are",
    ):
        assert part in told, part
    assert main([*words, "--yes", "--by", "Ada"]) == 2
    assert "a model never travels in a message" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    save_weights(other, {"weight": np.ones(3, "<f4")})
    assert main([*words, "--model", str(other), "--yes", "--by", "Ada"]) == 2
    assert "which the proposal names" in capsys.readouterr().err
    student = run.folder / "student.safetensors"
    assert main([*words, "--model", str(student), "--yes", "--by", "Ada", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["counting"]["model_is_here"]
    assert shown["decision"]["by"] == "Ada"
    told = rows_of(federated.evaluated(evaluation))
    assert {site for site, row in told.items() if row["answered"]} == {"east"}


def test_a_person_sees_what_counts_cost_and_their_noise(
    private: World, capsys: pytest.CaptureFixture[str]
) -> None:
    federated, run = private
    evaluation = proposed(run, epsilon=2.0, group="sex")
    taken_in(federated, evaluation)
    assert main(["site", "approve", str(federated.hospitals["east"].folder)]) == 0
    assert f"evaluation of run {run.id}, epsilon 2" in capsys.readouterr().out
    east = str(federated.hospitals["east"].folder)
    assert main(["site", "approve", east, evaluation.proposal().digest]) == 0
    told = capsys.readouterr().out
    for part in ("geometric of scale", "epsilon 2, once", "apart by sex, 3 groups", "12 counts",
                 "WATCHED BY NOBODY"):  # fmt: skip
        assert part in told, part


def test_a_rehearsal_counts_made_up_rows(unprotected: World) -> None:
    federated, _ = unprotected
    run = federated.proposed(rehearsal=True)
    federated.conducted(run)
    evaluation = proposed(run)
    ruled = taken_in(federated, evaluation)
    assert {one.ruling for one in ruled.values()} == {Ruling.PENDING}  # nobody brought the model
    approve(federated, evaluation)
    told = federated.evaluated(evaluation)
    assert told["rehearsal"]
    assert all(row["answered"] for row in told["sites"])
    for site, hospital in federated.hospitals.items():
        assert not counts_released(federated, site)
        assert "confusion counts" in {
            one["kind"] for one in entries(hospital.rehearsal, site, "release.outputs")
        }


def test_an_external_hospital_needs_others_who_cosign_its_log(unprotected: World) -> None:
    federated, run = unprotected
    evaluation = proposed(run, sites="west")
    agreed(federated, evaluation, "west")
    with pytest.raises(NoQuorum, match="found 1 cosigners of the log of west"):
        federated.evaluated(evaluation)


def test_the_command_says_what_does_not_fit(
    unprotected: World, capsys: pytest.CaptureFixture[str]
) -> None:
    federated, run = unprotected
    folder = str(run.folder)
    for words, found in (
        ([], "no SuperLink that answers"),
        (["--sites", "nowhere"], "no SuperLink that answers"),
        (["--threshold", "2"], "threshold 2"),
        (["--federation", folder], "a folder that fedkd server init made"),
        (["--data", "digits", "--federation", folder], "leave --federation out"),
    ):
        assert main(["evaluate", folder, *words]) == 2, words
        assert found in capsys.readouterr().err, words
    with pytest.raises(BadInput, match="the site 'nowhere'"):
        proposed(run, sites="nowhere")
    assert federated.hospitals  # nobody was asked


def test_counts_that_a_hospital_never_released_do_not_pass(
    unprotected: World, capsys: pytest.CaptureFixture[str]
) -> None:
    federated, run = unprotected
    evaluation = proposed(run)
    agreed(federated, evaluation)
    federated.evaluated(evaluation)
    with Log(run.folder / "server" / "log.sqlite", "server") as log:
        (true,) = log.entries("evaluation.done")
        lied = {**true.body, "answers": {**true.body["answers"], "west": "sha256:" + "0" * 64}}
        log.append(f"{run.id}/evaluation/lied", "evaluation.done", lied)
    hand_over(run)
    with_them = [word for site in SITES for word in ("--with", handed_over(federated, run, site))]
    main(["report", "build", str(run.folder), *with_them])
    capsys.readouterr()
    assert main(["report", "verify", str(run.folder / "report")]) == 1
    assert "in the site's log" in capsys.readouterr().out
