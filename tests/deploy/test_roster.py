"""The roster: an invitation is for one use, keys are nobody else's, who is revoked stays so."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedkd.audit.keys import log_key
from fedkd.deploy.coordinator import admit, invite, revoke, roster_of
from fedkd.deploy.invitations import Enrolment
from fedkd.deploy.joining import join
from fedkd.deploy.roster import read_roster, write_roster
from fedkd.deploy.running import _started
from fedkd.deploy.server_folder import ServerFolder
from fedkd.deploy.superlink import CannotTell
from fedkd.knowledge import BadInput
from tests.deploy.federations import coordinator, enrolled


@pytest.fixture
def server(tmp_path: Path) -> ServerFolder:
    return coordinator(tmp_path)


def yes(_: Enrolment) -> bool:
    return True


def test_a_site_is_invited_and_then_admitted_with_its_keys(
    server: ServerFolder, tmp_path: Path
) -> None:
    joined = enrolled(server, "cleveland", tmp_path / "cleveland")
    assert roster_of(server).expect("cleveland").state == "invited"
    done = admit(server, joined.path.read_bytes(), yes)
    assert done is not None
    assert done.node_id is None  # nothing runs: the SuperLink is told at its start
    [member] = roster_of(server).admitted()
    assert member.peer == joined.enrolment.peer
    assert member.rehearsal_peer == joined.enrolment.rehearsal_peer
    assert member.node_key == joined.enrolment.node_key


def test_no_secret_is_in_the_roster(server: ServerFolder, tmp_path: Path) -> None:
    joined = enrolled(server, "cleveland", tmp_path / "cleveland")
    admit(server, joined.path.read_bytes(), yes)
    written = (server.folder / "roster.json").read_text()
    assert joined.invitation.token not in written
    assert "PRIVATE" not in written


def test_nobody_is_admitted_where_a_person_says_no(server: ServerFolder, tmp_path: Path) -> None:
    joined = enrolled(server, "cleveland", tmp_path / "cleveland")
    assert admit(server, joined.path.read_bytes(), lambda _: False) is None
    assert roster_of(server).admitted() == ()


def test_an_invitation_is_for_one_use(server: ServerFolder, tmp_path: Path) -> None:
    joined = enrolled(server, "cleveland", tmp_path / "cleveland")
    admit(server, joined.path.read_bytes(), yes)
    with pytest.raises(BadInput, match="which is admitted"):
        admit(server, joined.path.read_bytes(), yes)
    with pytest.raises(BadInput, match="revoke"):
        invite(server, "cleveland")


def test_an_older_invitation_holds_no_longer(server: ServerFolder, tmp_path: Path) -> None:
    first = enrolled(server, "cleveland", tmp_path / "cleveland")
    invite(server, "cleveland")
    with pytest.raises(BadInput, match="without the token of its newest invitation"):
        admit(server, first.path.read_bytes(), yes)


def test_an_enrolment_without_an_invitation_is_refused(
    server: ServerFolder, tmp_path: Path
) -> None:
    joined = enrolled(server, "cleveland", tmp_path / "cleveland")
    key = log_key(tmp_path / "cleveland" / "site")
    for forged, says in (
        (replace(joined.enrolment, site="hungarian"), "no site 'hungarian'"),
        (replace(joined.enrolment, token="0" * 32), "without the token"),
        (replace(joined.enrolment, federation="lungs"), "one for heart"),
    ):
        with pytest.raises(BadInput, match=says):
            admit(server, forged.signed(key).to_bytes(), yes)


def test_an_expired_invitation_is_refused(server: ServerFolder, tmp_path: Path) -> None:
    joined = enrolled(server, "cleveland", tmp_path / "cleveland")
    path = server.folder / "roster.json"
    plain = json.loads(path.read_text())
    plain[0]["expires"] = "2020-01-01T00:00:00Z"
    path.write_text(json.dumps(plain))
    with pytest.raises(BadInput, match="expired at 2020"):
        admit(server, joined.path.read_bytes(), yes)


def test_a_key_of_another_site_is_refused(server: ServerFolder, tmp_path: Path) -> None:
    """One who was admitted shows its own keys under a second name."""
    admit(server, enrolled(server, "cleveland", tmp_path / "a").path.read_bytes(), yes)
    second = enrolled(server, "hungarian", tmp_path / "b")
    shutil.copy(tmp_path / "a" / "keys" / "node.key", tmp_path / "b" / "keys" / "node.key")
    again = join(server.folder / "invitations" / "hungarian.json", tmp_path / "b")
    assert again.enrolment.node_key != second.enrolment.node_key
    with pytest.raises(BadInput, match="a key of cleveland in the enrolment of hungarian"):
        admit(server, again.path.read_bytes(), yes)


def test_a_revoked_node_key_is_never_taken_again(server: ServerFolder, tmp_path: Path) -> None:
    joined = enrolled(server, "cleveland", tmp_path / "cleveland")
    admit(server, joined.path.read_bytes(), yes)
    stolen = (tmp_path / "cleveland" / "keys" / "node.key").read_bytes()
    revoke(server, "cleveland", "the machine was stolen")
    member = roster_of(server).expect("cleveland")
    assert (member.state, member.reason) == ("revoked", "the machine was stolen")
    with pytest.raises(BadInput, match="revoked at"):
        revoke(server, "cleveland")

    again = enrolled(server, "cleveland", tmp_path / "cleveland")
    assert again.enrolment.peer == joined.enrolment.peer  # log and ledger go on
    fresh = (tmp_path / "cleveland" / "keys" / "node.key").read_bytes()
    (tmp_path / "cleveland" / "keys" / "node.key").write_bytes(stolen)
    with_stolen = join(server.folder / "invitations" / "cleveland.json", tmp_path / "cleveland")
    with pytest.raises(BadInput, match="that was revoked"):
        admit(server, with_stolen.path.read_bytes(), yes)

    (tmp_path / "cleveland" / "keys" / "node.key").write_bytes(fresh)
    last = join(server.folder / "invitations" / "cleveland.json", tmp_path / "cleveland")
    assert admit(server, last.path.read_bytes(), yes) is not None
    revoke(server, "cleveland")
    invite(server, "cleveland")
    assert len(roster_of(server).expect("cleveland").former_nodes) == 2


def test_a_revocation_that_the_superlink_did_not_hear_of_is_finished_by_the_next(
    server: ServerFolder, tmp_path: Path
) -> None:
    admit(server, enrolled(server, "cleveland", tmp_path / "cleveland").path.read_bytes(), yes)
    roster = roster_of(server)
    known = replace(roster.expect("cleveland"), node_id=7)
    write_roster(server.folder / "roster.json", roster.with_member(known))
    pid = server.folder / "pids" / "superlink.pid"
    pid.write_text(f"{os.getpid()} {_started(os.getpid())}\n")  # a process, and nobody answers
    joined = enrolled(server, "zurich", tmp_path / "zurich")
    with pytest.raises(CannotTell):
        admit(server, joined.path.read_bytes(), yes)
    assert roster_of(server).expect("zurich").state == "invited"
    for _ in range(2):
        with pytest.raises(CannotTell):
            revoke(server, "cleveland")
        member = roster_of(server).expect("cleveland")
        assert (member.state, member.node_id) == ("revoked", 7)
    pid.unlink()
    assert revoke(server, "cleveland") is False  # nothing runs: not registered at the next start


def test_names_that_differ_by_case_alone_are_one(server: ServerFolder) -> None:
    invite(server, "cleveland")
    with pytest.raises(BadInput, match="another name"):
        invite(server, "Cleveland")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"site": "a"}]'])
def test_a_damaged_roster_is_an_error_and_never_an_empty_one(tmp_path: Path, content: str) -> None:
    (tmp_path / "roster.json").write_text(content)
    with pytest.raises(BadInput, match="no roster"):
        read_roster(tmp_path / "roster.json")


def test_a_roster_that_a_newer_version_wrote_is_left_alone(server: ServerFolder) -> None:
    invite(server, "cleveland")
    path = server.folder / "roster.json"
    listed = json.loads(path.read_text())
    path.write_text(json.dumps([{**listed[0], "country": "DE"}]))
    with pytest.raises(BadInput, match=r"with the keys country.*a newer fedkd wrote it"):
        invite(server, "zurich")
    assert json.loads(path.read_text())[0]["country"] == "DE"
