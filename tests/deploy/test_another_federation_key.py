"""The federation signs with another key: runs of before go on, and are evaluated."""

import json
from pathlib import Path

import pytest

from fedkd.cli.deployed import DeployedRun
from fedkd.cli.run import open_run
from fedkd.deploy.consent import Desk
from fedkd.deploy.coordinator import rotate_key
from fedkd.deploy.succeeding import succeed
from fedkd.knowledge import BadInput
from fedkd.wire import Reason, Refusal, RollCall, decode, encode
from tests.deploy.federated import SITES, Federated, approve, taken_in
from tests.deploy.figured import agreed, made, proposed, trained
from tests.deploy.test_figures import rows_of
from tests.deploy.test_runs_in_process import Dying


def rotated(federated: Federated, times: int = 1) -> None:
    """A new key, or several one after the other, that every hospital trusts."""
    for number in range(times):
        paper = rotate_key(federated.server, f"2026-01-0{number + 1}T00:00:00Z").read_bytes()
        for hospital in federated.hospitals.values():
            assert succeed(hospital, paper, lambda _: True, "Ada Example") is not None


def opened(run: DeployedRun) -> DeployedRun:
    again = open_run(str(run.folder))
    assert isinstance(again, DeployedRun)
    return again


def test_a_run_that_was_cut_off_goes_on_under_the_new_key(federated: Federated) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    with pytest.raises(KeyboardInterrupt):
        federated.conducted(run, Dying(federated, replies=13))
    rotated(federated, times=2)
    desk = Desk(federated.hospitals["east"].folder, federated.build)
    reply = decode(desk.handle(encode(RollCall(run.id))), 1 << 16)
    assert reply == Refusal("east", run.id, 0, Reason.NOT_APPROVED)  # until it is signed again
    again = opened(run)
    assert again.proposal().digest == run.proposal().digest
    again.sign_again()
    summary = json.loads((federated.conducted(again) / "summary.json").read_text())
    assert [row["left_out"] for row in summary["clients"]] == [[]] * len(SITES)


def test_a_finished_run_is_evaluated_under_the_new_key(tmp_path: Path) -> None:
    federated = made(tmp_path / "all")
    run = trained(federated)
    before = proposed(run)
    rotated(federated)
    again = opened(run)
    evaluation = proposed(again)
    assert evaluation.folder == before.folder
    agreed(federated, evaluation)
    told = federated.evaluated(evaluation)
    assert [row["answered"] for row in rows_of(told).values()] == [True] * len(SITES)


def test_a_key_that_nobody_followed_signs_nothing_here(federated: Federated) -> None:
    run = federated.proposed()
    paper = rotate_key(federated.server)
    told = json.loads(paper.read_bytes())
    paper.write_text(json.dumps({**told, "made": "2026-01-01T00:00:00Z"}))
    assert federated.server.vkeys() == (federated.server.vkey(),)
    with pytest.raises(BadInput, match=r"another key made.*fedkd site trust"):
        opened(run).proposal()
