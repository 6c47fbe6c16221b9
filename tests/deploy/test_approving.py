"""What a person at a hospital sees of a proposed run, and how a yes or a no is kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedkd.audit import Log
from fedkd.cli.app import run as fedkd
from fedkd.cli.deployed import DeployedRun
from fedkd.cli.following import asks_for_everything
from fedkd.deploy.consent import Desk, Shelf
from fedkd.deploy.decisions import decided
from fedkd.deploy.hospital import Hospital
from fedkd.wire import (
    UNKNOWN,
    Considered,
    Message,
    Proposal,
    Reason,
    Refusal,
    RollCall,
    Ruling,
    decode,
    encode,
)
from tests.deploy.federated import Federated, taken_in


def log_of(folder: Path, site: str) -> Log:
    return Log(folder / "log.sqlite", site)


def test_a_person_sees_code_queries_cost_and_all_that_would_leave(
    private: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    run = private.proposed("mechanism=dp_training", "mechanism.epsilon=0.3")
    taken_in(private, run)
    east = str(private.hospitals["east"].folder)
    digest = run.proposal().digest
    assert fedkd(["site", "approve", east]) == 0
    assert f"{digest.removeprefix('sha256:')[:12]}  pending" in capsys.readouterr().out
    assert fedkd(["site", "approve", east, digest]) == 0  # no terminal: shown, nothing decided
    told = capsys.readouterr().out
    for part in (
        digest,
        run.proposal().bundle,
        "that of the fedkd installed here",
        "drawn by dictionary",
        "at most epsilon 0.3 with dp_training",
        "spent 0, afterwards at most 0.3, left now 1, ",
        "2 answers [30, 2] of probabilities, as float32",
        "60 rows, 480 bytes",
        "no weights, gradients or features",
        "east, north, west",
    ):
        assert part in told
    with log_of(private.hospitals["east"].site, "east") as log:
        assert decided(log, run.id) is None


def test_what_would_leave_nothing_of_the_budget_is_said_on_both_sides(
    private: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    some = private.proposed("mechanism=dp_training", "mechanism.epsilon=0.3")
    all_of_it = private.proposed("mechanism=dp_training")
    assert [asks_for_everything(it) for it in (some, all_of_it)] == [False, True]
    assert not asks_for_everything(private.proposed())  # nothing is protected, nothing spent
    hospital = private.hospitals["east"]
    site_yaml = hospital.site_yaml.read_text()
    assert "epsilon: 0.5" in site_yaml  # a hospital's own word for a plan bounds it, too
    hospital.site_yaml.write_text(site_yaml.replace("epsilon: 0.5", "epsilon: null"))
    assert fedkd(["site", "init", str(hospital.folder)]) == 0
    for run, says in ((some, False), (all_of_it, True)):
        taken_in(private, run)
        capsys.readouterr()
        digest = run.proposal().digest
        assert fedkd(["site", "approve", str(hospital.folder), digest]) == 0
        assert ("ALL THAT IS LEFT" in capsys.readouterr().out) is says


def test_a_yes_stands_in_the_log_with_its_name_and_can_be_taken_back(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    east = federated.hospitals["east"]
    words = ["site", "approve", str(east.folder), run.proposal().digest[7:20]]
    assert fedkd([*words, "--yes"]) == 2  # by nobody
    assert fedkd([*words, "--yes", "--by", "Ada Example", "--json"]) == 0
    assert fedkd([*words, "--yes", "--by", "Bo"]) == 0  # decided already: the first name stays
    with log_of(east.site, "east") as log:
        first = decided(log, run.id)
        entry = log.entry(f"consent/{run.id}/1")
        assert first is not None
        assert entry is not None
        assert (first.ruling, first.by) == (Ruling.APPROVED, "Ada Example")
        assert entry.body["would_leave"]["rows"] == 60
        assert set(log.entry(f"roster/{run.id}").body["peers"]) == {"server", "north", "west"}
    assert fedkd([*words, "--decline", "a complaint", "--by", "Bo"]) == 0
    capsys.readouterr()
    assert fedkd(["site", "approve", str(east.folder), run.id, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["state"] == "declined"
    assert (told["decision"]["by"], told["decision"]["reason"]) == ("Bo", "a complaint")


def test_what_the_policy_does_not_allow_cannot_be_approved(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    run = federated.proposed()
    east = federated.hospitals["east"]
    typed = east.site_yaml.read_text()
    east.site_yaml.write_text(typed.replace("policy:", "policy:\n  most_rounds: 1"))
    taken_in(federated, run)
    words = ["site", "approve", str(east.folder), run.id]
    assert fedkd([*words, "--yes", "--by", "Ada"]) == 2
    assert "most_rounds" in capsys.readouterr().err
    east.site_yaml.write_text(typed)  # the hospital's own file: its people may change their mind
    assert fedkd([*words, "--yes", "--by", "Ada"]) == 0
    with log_of(east.site, "east") as log:
        assert decided(log, run.id).ruling is Ruling.APPROVED


def test_a_private_run_without_the_officers_paper_says_so(
    private: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    run = private.proposed("mechanism=dp_training")
    taken_in(private, run)
    east = private.hospitals["east"]
    (east.site / "officer.vkey").unlink()
    assert fedkd(["site", "approve", str(east.folder), run.id]) == 0
    assert "PROBLEM     found no officer.vkey" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "0 proposals named 'nothing'"),
        ([], "no run was proposed here"),
        (["--yes", "--by", "Ada"], "no proposal"),
    ],
)
def test_what_is_not_there_is_said(
    federated: Federated, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    fedkd(["site", "approve", str(federated.hospitals["east"].folder), *words])
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_a_server_says_no_to_what_is_a_hospitals_to_decide(
    federated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("budget.epsilon=3", "sites.dir=/tmp", "engine=ray", "baselines=true"):
        with pytest.raises(ValueError, match="in a deployed run"):
            federated.proposed(word)
    assert not list((federated.server.folder / "runs").iterdir())
    folder = str(federated.server.folder)
    assert fedkd(["run", "--federation", folder]) == 2
    assert "no SuperLink that answers" in capsys.readouterr().err
    assert fedkd(["run", "rehearsal=maybe", "--federation", folder]) == 2


def kept(hospital: Hospital) -> int:
    """Bytes of all that lies at a hospital."""
    return sum(path.stat().st_size for path in hospital.folder.rglob("*") if path.is_file())


def test_a_server_that_floods_a_site_with_runs_fills_no_disk(federated: Federated) -> None:
    hospital = federated.hospitals["east"]
    now = [2e9]
    desk = Desk(hospital.folder, federated.build, lambda: now[0], most=4)

    def called(number: int) -> Refusal:
        said = decode(desk.handle(encode(RollCall(f"run-{number}"))), 1 << 16)
        assert isinstance(said, Refusal)
        return said

    assert [called(it).run for it in range(4)] == ["run-0", "run-1", "run-2", "run-3"]
    beyond = called(4)
    assert (beyond.reason, beyond.run) == (Reason.NOT_APPROVED, UNKNOWN)
    before = kept(hospital)
    assert {called(it) for it in range(5, 40)} == {beyond}
    assert kept(hospital) == before
    assert (hospital.folder / "errors.txt").read_text().count("more than 4 letters") == 1
    now[0] += 86_400
    assert called(50).run == "run-50"


def test_new_proposals_of_a_flood_are_not_kept_and_known_ones_are_ruled_on(
    federated: Federated,
) -> None:
    hospital = federated.hospitals["east"]
    desk = Desk(hospital.folder, federated.build, most=1)
    first, second = (federated.proposed(f"seed={seed}") for seed in (1, 2))

    def ruled(run: DeployedRun) -> Message:
        body, signature = run.paper()
        letter = Proposal(run.id, np.frombuffer(body, np.uint8), signature)
        return decode(desk.handle(encode(letter)), 1 << 16)

    assert isinstance(ruled(first), Considered)
    refused = ruled(second)
    assert isinstance(refused, Refusal)
    assert refused.reason is Reason.NOT_ACCEPTED
    assert [it.run for it in Shelf(hospital).all()] == [first.id]
    assert isinstance(ruled(first), Considered)
