"""Papers that travel by hand: what was changed or forged on the way is not taken."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from fedkd.audit import Log
from fedkd.audit.officer import fingerprint, new_key
from fedkd.cli import main
from fedkd.deploy.coordinator import invite, rotate_key
from fedkd.deploy.founding import federation_of
from fedkd.deploy.hospital import Hospital
from fedkd.deploy.invitations import Enrolment, Invitation, Succession, address, site_name
from fedkd.deploy.joining import Joined, join
from fedkd.deploy.server_folder import ServerFolder
from fedkd.deploy.succeeding import succeed
from fedkd.knowledge import BadInput
from tests.deploy.federated import Federated
from tests.deploy.federations import coordinator, enrolled


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> ServerFolder:
    return coordinator(tmp_path_factory.mktemp("coordinator"))


@pytest.fixture(scope="module")
def joined(server: ServerFolder, tmp_path_factory: pytest.TempPathFactory) -> Joined:
    return enrolled(server, "cleveland", tmp_path_factory.mktemp("cleveland") / "hospital")


def changed(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    plain = json.loads(content)
    change(plain)
    return rfc8785.dumps(plain)


def test_an_invitation_reads_back_as_it_was_made(joined: Joined) -> None:
    content = joined.invitation.to_bytes()
    assert Invitation.parse(content) == joined.invitation
    assert Invitation.parse(content).to_bytes() == content


def test_an_enrolment_reads_back_as_it_was_made(joined: Joined) -> None:
    content = joined.path.read_bytes()
    assert Enrolment.parse(content) == joined.enrolment
    assert joined.enrolment.token == joined.invitation.token


def test_a_fingerprint_is_five_groups_of_four(joined: Joined) -> None:
    groups = joined.invitation.fingerprint().split()
    assert [len(group) for group in groups] == [4] * 5
    assert joined.invitation.fingerprint() != joined.enrolment.fingerprint()


FIELDS_OF_AN_INVITATION = {
    "address": "evil.example.org:443",
    "site": "hungarian",
    "software": "9.9.9",
    "bundle": "0" * 64,
    "token": "0" * 32,
    "expires": "2099-01-01T00:00:00Z",
    "federation": "lungs",
}


@pytest.mark.parametrize("field", FIELDS_OF_AN_INVITATION)
def test_an_invitation_with_a_changed_field_is_refused(joined: Joined, field: str) -> None:
    forged = changed(
        joined.invitation.to_bytes(),
        lambda plain: plain.update({field: FIELDS_OF_AN_INVITATION[field]}),
    )
    with pytest.raises(BadInput, match="changed on its way, or forged"):
        Invitation.parse(forged)


def test_another_description_of_records_is_refused(joined: Joined) -> None:
    forged = changed(
        joined.invitation.to_bytes(),
        lambda plain: plain.update(federation_yaml=plain["federation_yaml"].replace("18", "1")),
    )
    with pytest.raises(BadInput, match="forged"):
        Invitation.parse(forged)


def test_an_invitation_signed_again_by_another_key_has_another_fingerprint(
    joined: Joined, tmp_path: Path
) -> None:
    """Whoever rewrites all of it makes a paper that holds together: the telephone tells."""
    other = new_key(tmp_path / "other.key", "heart")
    forged = replace(
        joined.invitation, address="evil.example.org:443", federation_vkey=other.verifier().text()
    ).signed(other)
    with pytest.raises(BadInput, match=r"federation\.yaml in the invitation"):
        Invitation.parse(forged.to_bytes())
    assert forged.fingerprint() != joined.invitation.fingerprint()


def test_an_enrolment_that_another_key_signed_is_refused(joined: Joined) -> None:
    """Its rehearsal's log key is the site's own, and is still not the one that has to sign."""
    forged = changed(
        joined.path.read_bytes(),
        lambda plain: plain.update(peer=plain["rehearsal_peer"], rehearsal_peer=plain["peer"]),
    )
    with pytest.raises(BadInput, match="changed on its way, or forged"):
        Enrolment.parse(forged)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda plain: plain.update(node_key="ssh-ed25519 AAAA"), "P-384"),
        (lambda plain: plain.update(node_key=plain["node_key"] + "\nssh-rsa AAAA"), "P-384"),
        (lambda plain: plain.update(peer={"vkey": "x"}), "keys of a party"),
        (lambda plain: plain["peer"].update(witnesses=[]), "keys of a party"),
        (lambda plain: plain.update(rehearsal_peer=plain["peer"]), "one key twice"),
        (lambda plain: plain.update(site="../evil"), "the name"),
        (lambda plain: plain.update({"token": "short"}), "32 hexadecimal"),
        (lambda plain: plain.update(more=1), "more wrong"),
        (lambda plain: plain.pop("software"), "software wrong"),
        (lambda plain: plain.update(format=2), "format 2"),
        (lambda plain: plain.update(kind="invitation"), "of kind 'invitation'"),
    ],
)
def test_an_enrolment_of_another_form_is_refused(
    joined: Joined, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        Enrolment.parse(changed(joined.path.read_bytes(), change))


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b"null", b'{"a":1,"a":1}'])
def test_what_is_no_paper_at_all_is_refused(content: bytes) -> None:
    for kind in (Invitation, Enrolment):
        with pytest.raises(BadInput):
            kind.parse(content)


def test_a_paper_of_many_bytes_is_refused_unread() -> None:
    with pytest.raises(BadInput, match="at most"):
        Invitation.parse(b" " * (1 << 21))


def test_text_that_a_mail_program_laid_out_anew_is_refused(joined: Joined) -> None:
    again = json.dumps(json.loads(joined.invitation.to_bytes()), indent=2).encode()
    with pytest.raises(BadInput, match="as an attachment"):
        Invitation.parse(again)


def test_an_invitation_ends(joined: Joined) -> None:
    joined.invitation.expect_current()
    with pytest.raises(BadInput, match="expired"):
        joined.invitation.expect_current(datetime.now(UTC) + timedelta(days=31))


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a..b", "server", "Server", "x" * 65, "ü"])
def test_a_site_has_a_name_that_a_folder_can_have(name: str) -> None:
    with pytest.raises(BadInput):
        site_name(name)


@pytest.mark.parametrize(
    "text", ["host", "host:", ":443", "host:0", "host:65536", "ho st:1", "http://host:1", "a:1:2"]
)
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    with pytest.raises(BadInput):
        address(text)


def test_addresses_of_each_kind_are_read() -> None:
    assert address("fed.example.org:443") == ("fed.example.org", 443)
    assert address("[2001:db8::1]:8443") == ("2001:db8::1", 8443)
    assert address("192.0.2.1:1") == ("192.0.2.1", 1)


def test_a_new_federation_key_is_vouched_for_by_the_old_one(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    old = server.vkey().text()
    content = rotate_key(server).read_bytes()
    paper = Succession.parse(content, old, "heart")
    assert paper.new_vkey == server.vkey().text() != old
    server.federation()  # is signed again
    invitation, _ = invite(server, "cleveland")
    assert invitation.federation_vkey == paper.new_vkey
    with pytest.raises(BadInput, match="after another key"):
        Succession.parse(content, paper.new_vkey, "heart")
    forged = changed(content, lambda plain: plain.update(new_vkey=old))
    with pytest.raises(BadInput, match="forged"):
        Succession.parse(forged, old, "heart")


def test_a_hospital_follows_the_federations_key_when_a_person_says_so(tmp_path: Path) -> None:
    server = coordinator(tmp_path)
    hospital = Hospital(tmp_path / "hospital")
    enrolled(server, "cleveland", hospital.folder)
    first = server.vkey().text()
    papers = []
    for _ in range(2):
        papers.append(tmp_path / f"{len(papers)}.json")
        papers[-1].write_bytes(rotate_key(server, f"2027-01-0{len(papers)}T00:00:00Z").read_bytes())
    assert hospital.invited()["federation_vkey"] == first
    with pytest.raises(BadInput, match="after another key"):  # the second before the first
        succeed(hospital, papers[1].read_bytes(), lambda _: True)
    assert succeed(hospital, papers[0].read_bytes(), lambda _: False) is None
    assert hospital.invited()["federation_vkey"] == first
    digits = fingerprint(server.vkey())
    wrong = ["site", "trust", str(hospital.folder), str(papers[0]), "--fingerprint", digits]
    assert main(wrong) == 2  # of the second key
    for paper in papers:
        assert succeed(hospital, paper.read_bytes(), lambda _: True) is not None
        federation_of(hospital)  # the description is the new key's
    assert hospital.invited()["federation_vkey"] == server.vkey().text()
    _, again = invite(server, "cleveland")
    join(again, hospital.folder)  # an invitation by the newest key is of the same federation
    assert hospital.invited()["federation_vkey"] == server.vkey().text()


def test_whom_a_hospital_trusts_stands_in_its_log(federated: Federated) -> None:
    east, server = federated.hospitals["east"], federated.server
    old, content = server.vkey().text(), rotate_key(server).read_bytes()
    assert succeed(east, content, lambda _: False, "Ada Example") is None
    with Log(east.site / "log.sqlite", "east") as log:
        assert not list(log.entries("log.key.rotated"))
    paper = east.folder / "succession.json"
    paper.write_bytes(content)
    words = ["site", "trust", str(east.folder), str(paper), "--by", "Ada Example"]
    assert main([*words, "--fingerprint", fingerprint(server.vkey())]) == 0
    with Log(east.site / "log.sqlite", "east") as log:
        (entry,) = log.entries("log.key.rotated")
    told = {"whose": "federation", "by": "Ada Example", "old_vkey": old}
    assert told.items() <= entry.body.items()
    assert entry.body["new_vkey"] == server.vkey().text()


def test_both_sides_say_that_the_coordinator_reads_the_invitations_fingerprint(
    server: ServerFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads it to the one who sent it has compared nothing with anybody."""
    paper = tmp_path / "oslo.invitation"
    assert main(["server", "invite", "oslo", "--dir", str(server.folder), "--out", str(paper)]) == 0
    there = capsys.readouterr().out
    read = Invitation.parse(paper.read_bytes(), "oslo").fingerprint()
    assert f"fingerprint {read}" in there
    assert "they call you: you read it to them, and they compare" in " ".join(there.split())
    assert main(["site", "join", str(paper), "--dir", str(tmp_path / "oslo")]) == 0
    assert f"{read}   (the coordinator reads, you compare)" in capsys.readouterr().out
