"""Deployed runs, from the proposal to the figures, without a network: real folders, real apps."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from fedkd.audit import Log
from fedkd.cli.following import _failed
from fedkd.cli.run import open_run
from fedkd.cli.site import disclose_bodies
from fedkd.deploy.approving import rule
from fedkd.deploy.consent import Desk, Shelf
from fedkd.deploy.coordinator import revoke
from fedkd.federation.checkpoint import ServerFolder
from fedkd.federation.paying import ledger_of
from fedkd.federation.rounds import NoQuorum
from fedkd.report.building import build as build_report
from fedkd.report.disclosing import read_bundle
from tests.deploy.federated import Federated, FederatedGrid, approve, students, taken_in


class Dying(FederatedGrid):
    """A grid whose server is killed once it has heard so many replies."""

    def __init__(self, federated: Federated, replies: int) -> None:
        super().__init__(federated)
        self.left = replies

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return super().pull_messages(message_ids)


class Killed(FederatedGrid):
    """A grid whose server is killed once the closing question is answered, before all cosigned."""

    def __init__(self, federated: Federated, run: Path) -> None:
        super().__init__(federated)
        self.server = ServerFolder(run / "server")

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        if self.server.load().closed:
            raise KeyboardInterrupt
        return super().push_messages(messages)


class Deserted(FederatedGrid):
    """A grid that no hospital is connected to."""

    def get_node_ids(self) -> list[int]:
        return []


def events(folder: Path, site: str, type: str) -> list[dict[str, Any]]:
    with Log(folder / "log.sqlite", site) as log:
        return [dict(entry.body) for entry in log.entries(type)]


def test_a_rehearsal_reads_no_record_and_charges_nothing(federated: Federated) -> None:
    for hospital in federated.hospitals.values():
        (hospital.site / "train.npz").unlink()
        (hospital.site / "validation.npz").unlink()
        (hospital.folder / "records.csv").unlink()
        before = (hospital.site / "log.sqlite").read_bytes()
        (hospital.folder / "before").write_bytes(before)
    run = federated.proposed(rehearsal=True)
    folder = federated.conducted(run)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["engine"] == "deployed"
    assert [row["site"] for row in summary["clients"]] == sorted(federated.hospitals)
    assert not any(row["left_out"] for row in summary["clients"])
    assert summary["student"]["accuracy"] is None  # labels are at the hospitals
    for site, hospital in federated.hospitals.items():
        assert (hospital.site / "log.sqlite").read_bytes() == (
            hospital.folder / "before"
        ).read_bytes()
        (opened,) = events(hospital.rehearsal, site, "log.opened")
        assert opened["rehearsal"] is True
        assert len(events(hospital.rehearsal, site, "release.outputs")) == 2
        with Log(hospital.rehearsal / "log.sqlite", site) as log:
            assert "rehearsal/" in log.origin
    (opened,) = events(folder / "server", "server", "log.opened")
    assert opened["rehearsal"] is True


def test_without_privacy_the_student_is_the_simulations_to_the_last_bit(
    as_simulated: Federated, simulation: Path
) -> None:
    federated = as_simulated
    run = federated.proposed()
    with pytest.raises(NoQuorum, match="pending"):
        federated.conducted(run)
    approve(federated, run)
    folder = federated.conducted(run)
    assert students(folder) == students(simulation)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["audit"]["verified"]
    assert not (folder / "sites").exists()
    (opened,) = events(folder / "server", "server", "log.opened")
    assert opened["rehearsal"] is False


def test_why_a_run_did_not_end_is_said_also_where_no_progress_is_to_be(
    as_simulated: Federated, capsys: pytest.CaptureFixture[str]
) -> None:
    assert os.environ["FEDKD_QUIET"]
    run = as_simulated.proposed()
    run.tell("failed", why="2 of 3 hospitals did not answer")
    assert _failed(run, as_json=False) == 1
    said = capsys.readouterr().err
    assert "the run did not end: 2 of 3 hospitals did not answer" in said
    assert "fedkd run --resume" in said


def test_a_run_that_was_cut_off_within_a_round_ends_with_the_same_student(
    as_simulated: Federated, simulation: Path
) -> None:
    federated = as_simulated
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    with pytest.raises(KeyboardInterrupt):
        federated.conducted(run, Dying(federated, replies=13))
    assert open_run(str(run.folder)).told()["state"] == "failed"
    again = open_run(str(run.folder))
    assert students(federated.conducted(again)) == students(simulation)


@pytest.mark.parametrize("grid", [Deserted, FederatedGrid])
def test_a_run_that_was_cut_off_after_its_closing_question_needs_no_hospital(
    as_simulated: Federated, simulation: Path, grid: type[FederatedGrid]
) -> None:
    """Whoever is there cosigns the last entries; nobody is proposed to, and nobody waited for."""
    federated = as_simulated
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    with pytest.raises(KeyboardInterrupt):
        federated.conducted(run, Killed(federated, run.folder))
    assert not (run.folder / "summary.json").exists()
    rulings = run.told()["rulings"]

    folder = federated.conducted(open_run(str(run.folder)), grid(federated))

    assert students(folder) == students(simulation)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["audit"]["verified"]
    assert not any(row["left_out"] for row in summary["clients"])
    assert run.told()["rulings"] == rulings
    assert not events(folder / "server", "server", "party.left")
    said = (folder / "audit" / "server.checkpoint").read_text()
    assert said.count("\n— ") == (1 if grid is Deserted else 4), said


def test_a_private_run_spends_what_was_planned_and_nothing_twice(private: Federated) -> None:
    run = private.proposed("mechanism=dp_training", "mechanism.epsilon=0.3")
    taken_in(private, run)
    approve(private, run)
    with pytest.raises(KeyboardInterrupt):
        private.conducted(run, Dying(private, replies=13))
    folder = private.conducted(open_run(str(run.folder)))
    for site, hospital in private.hospitals.items():
        with Log(hospital.site / "log.sqlite", site) as log:
            ledger = ledger_of(log, site)
            assert 0 < ledger.spent() <= 0.3 + 1e-9  # the less of 0.3 and site.yaml's 0.5
            paid = [
                it for it in log.entries("budget.charged") if it.body["cost"]["event"] != "NoOp"
            ]
            assert len(paid) == 1
            trained = [it.body for it in log.entries("train.local") if it.body["dp"]]
        assert [it["dp"]["noise"] for it in trained] == ["operating system"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["private"]
    assert set(summary["privacy"]["without"]) == set(private.hospitals)
    assert all(row["epsilon"] is None for row in summary["clients"])


def test_an_epsilon_may_be_typed_as_a_whole_number(private: Federated) -> None:
    run = private.proposed("mechanism=dp_training", "mechanism.epsilon=1")
    assert run.proposal().asked["epsilon"] == 1.0


@pytest.mark.parametrize("how", ["declines", "pauses", "policy"])
def test_the_run_goes_on_without_a_site_that_takes_no_part(federated: Federated, how: str) -> None:
    west = federated.hospitals["west"]
    if how == "policy":
        text = west.site_yaml.read_text().replace(
            "smallest_training_set: 20", "smallest_training_set: 500"
        )
        west.site_yaml.write_text(text)
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run, "east", "north")
    proposal = run.proposal()
    if how == "declines":
        rule(west, proposal, federated.build, by="Bo", decline="not now")
    if how == "pauses":
        west.paused.write_text("now\n")
    folder = federated.conducted(run)
    clients = {
        row["site"]: row for row in json.loads((folder / "summary.json").read_text())["clients"]
    }
    assert clients["west"]["left_out"] == [
        {"round": 0, "reason": "refused: paused" if how == "pauses" else "declined"}
    ]
    assert not clients["east"]["left_out"]
    assert not events(west.site, "west", "release.outputs")
    if how == "policy":
        (refused,) = events(west.site, "west", "release.refused")
        assert refused["reason"].startswith("smallest_training_set: found ")
    (left,) = events(folder / "server", "server", "party.left")
    assert left["party"] == "west"


def test_a_site_that_takes_its_yes_back_is_left_out_from_then_on(federated: Federated) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    west = federated.hospitals["west"]
    rule(west, run.proposal(), federated.build, by="Bo", decline="a complaint")
    folder = federated.conducted(run)
    clients = json.loads((folder / "summary.json").read_text())["clients"]
    assert [row["site"] for row in clients if row["left_out"]] == ["west"]


class Revoking(FederatedGrid):
    """A grid on which a site is revoked while the first round's answers come in."""

    def __init__(self, federated: Federated, site: str) -> None:
        super().__init__(federated)
        self.federated, self.site = federated, site
        self.began = self.revoked = False
        self.asked_after: set[int] = set()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        letters = list(messages)
        self.began |= any(letter.metadata.group_id == "1" for letter in letters)
        if self.revoked:
            self.asked_after |= {letter.metadata.dst_node_id for letter in letters}
        return super().push_messages(letters)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        if self.began and not self.revoked:
            revoke(self.federated.server, self.site)
            self.revoked = True
        return super().pull_messages(message_ids)


def test_a_site_that_is_revoked_in_a_run_is_asked_nothing_more(federated: Federated) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    grid = Revoking(federated, "west")
    folder = federated.conducted(run, grid)
    assert grid.asked_after == {federated.nodes[site] for site in ("east", "north")}
    with Log(folder / "server" / "log.sqlite", "server") as log:
        left_out = [entry.body["left_out"] for entry in log.entries("answers.admitted")]
    assert left_out == [{}, {"west": "not admitted"}]


def test_a_site_that_left_and_is_there_when_the_run_goes_on_is_enrolled_again(
    federated: Federated,
) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    west = federated.hospitals["west"]
    west.paused.write_text("now\n")
    with pytest.raises(KeyboardInterrupt):
        federated.conducted(run, Dying(federated, replies=6))
    for _ in range(2):  # the same is said once
        with pytest.raises(KeyboardInterrupt):
            federated.conducted(open_run(str(run.folder)), Dying(federated, replies=3))
    west.paused.unlink()
    folder = federated.conducted(open_run(str(run.folder)))
    with Log(folder / "server" / "log.sqlite", "server") as log:
        told = [(it.type, it.body) for it in log.entries()]
    about_west = [
        type
        for type, body in told
        if body.get("party") == "west" or (type == "answers.admitted" and "west" in body["answers"])
    ]
    assert about_west == [
        "party.enrolled",
        "party.left",
        "party.enrolled",
        *["answers.admitted"] * 2,
    ]
    assert json.loads((folder / "summary.json").read_text())["audit"]["verified"]
    assert not build_report(folder, {}).derived.trouble


def test_a_site_that_is_revoked_while_people_decide_takes_no_part(federated: Federated) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    grid = Revoking(federated, "west")
    grid.began = True  # with the first ruling that comes in
    folder = federated.conducted(run, grid)
    assert federated.nodes["west"] not in grid.asked_after
    (left,) = events(folder / "server", "server", "party.left")
    assert left["party"] == "west"


def playing(own: Desk, other: Desk) -> Desk:
    """A node that rules on the proposal as itself, and then plays another site."""

    class Player(Desk):
        def handle(self, letter: bytes) -> bytes:
            is_proposal = b'"kind":"proposal"' in letter
            return (own if is_proposal else other).handle(letter)

    return Player(own.hospital.folder, lambda spec: None)


def test_a_node_cannot_speak_for_another_site(federated: Federated) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    grid = federated.grid()
    grid.desks["west"] = playing(grid.desks["west"], grid.desks["east"])
    folder = federated.conducted(run, grid)
    with Log(folder / "server" / "log.sqlite", "server") as log:
        admitted = [set(entry.body["answers"]) for entry in log.entries("answers.admitted")]
    assert admitted == [{"east", "north"}] * 2


def test_what_is_handed_over_makes_a_report(federated: Federated, tmp_path: Path) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    approve(federated, run)
    folder = federated.conducted(run)
    bundles = {}
    for site, hospital in federated.hospitals.items():
        form, out = tmp_path / f"{site}.yaml", tmp_path / f"{site}.bundle"
        for _ in range(2):
            assert (
                disclose_bodies(
                    hospital.site, run=run.id, form=form, by="Bo", out=out, as_json=False
                )
                == 0
            )
        bundles[site] = read_bundle(out)[1]
    built = build_report(folder, bundles)
    assert not built.derived.trouble
    assert not built.derived.simulation
    assert built.derived.evidence.sites == tuple(sorted(federated.hospitals))


def test_nobody_who_did_not_approve_is_asked_about_records(federated: Federated) -> None:
    run = federated.proposed()
    taken_in(federated, run)
    for hospital in federated.hospitals.values():
        assert Shelf(hospital).read(run.proposal().digest) == run.proposal()
        assert events(hospital.site, hospital.name, "release.outputs") == []
