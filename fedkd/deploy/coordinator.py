"""What a coordinator does with its sites and keys: invites, admits, revokes, makes keys anew."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fedkd import __version__
from fedkd.audit.locking import write_secret
from fedkd.audit.officer import fingerprint, fresh_key, sign_paper
from fedkd.deploy import superlink
from fedkd.deploy.authority import LEAF_DAYS, make_leaf
from fedkd.deploy.invitations import (
    DAYS,
    FEDERATION,
    Enrolment,
    Invitation,
    Succession,
    in_days,
    new_token,
    site_name,
)
from fedkd.deploy.lines import utc
from fedkd.deploy.locked import lay_anew
from fedkd.deploy.roster import (
    ADMITTED,
    REVOKED,
    Roster,
    changing,
    read_roster,
    write_roster,
)
from fedkd.deploy.server_folder import ServerFolder, sign_federation
from fedkd.deploy.superlink import CannotTell
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput

MOST_DAYS: Final = 365


@dataclass(frozen=True, slots=True)
class Admitted:
    """A site that was admitted; `node_id` None where the SuperLink is told at its next start."""

    site: str
    node_id: int | None
    fingerprint: str


def roster_of(server: ServerFolder) -> Roster:
    """The roster as it is now."""
    return read_roster(server.folder / "roster.json")


def invite(server: ServerFolder, site: str, *, days: int = DAYS) -> tuple[Invitation, Path]:
    """An invitation for one site, for one use, and the file that is to be sent.

    The token in it is kept here as a digest in the roster, and in this file.
    """
    from fedkd.federation.flower.bundle import bundle_digest

    site_name(site)
    if not 1 <= days <= MOST_DAYS:
        raise BadInput(f"{days} days", f"1 to {MOST_DAYS}")
    settings = server.settings()
    federation, described, signature = server.federation()
    key = server.key()
    invitation = Invitation(
        federation=federation.name,
        site=site,
        address=settings.address,
        ca=server.authority.read_text(),
        federation_vkey=key.verifier().text(),
        federation_yaml=described.decode(),
        federation_sig=signature.decode(),
        software=__version__,
        bundle=bundle_digest(),
        token=new_token(),
        expires=in_days(days),
    ).signed(key)
    path = server.folder / "invitations" / f"{site}.json"
    with changing(server.folder):
        roster = roster_of(server).invited(invitation)
        write_bytes(path, invitation.to_bytes())
        write_roster(server.folder / "roster.json", roster)
    return invitation, path


def admit(
    server: ServerFolder, content: bytes, confirmed: Callable[[Enrolment], bool]
) -> Admitted | None:
    """Takes a site's enrolment in; None where `confirmed`, who is shown it, says no.

    A running SuperLink knows its key from now on, another one from its next start. `CannotTell`
    where it runs and was not told: nobody is admitted then.
    """
    enrolment = Enrolment.parse(content)
    federation = server.federation()[0].name
    roster_of(server).expect_enrols(enrolment, federation)
    if not confirmed(enrolment):
        return None
    with changing(server.folder):
        roster = roster_of(server)
        roster.expect_enrols(enrolment, federation)
        node_id = None
        if is_running(server):
            node_id = _registered(server, roster, enrolment.site, enrolment.node_key)
        write_bytes(server.folder / "enrolments" / f"{enrolment.site}.json", content)
        write_roster(server.folder / "roster.json", roster.with_enrolled(enrolment, node_id))
    return Admitted(enrolment.site, node_id, enrolment.fingerprint())


def revoke(server: ServerFolder, site: str, reason: str = "") -> bool:
    """Takes a site out, for good under these keys; whether a running SuperLink was told.

    It is off the roster first, and so is not registered again even if something fails after that.
    `CannotTell` where the SuperLink runs and was not told; to revoke it again finishes that.
    """
    with changing(server.folder):
        before = roster_of(server)
        member = before.expect(site)
        unfinished = member.state == REVOKED and member.node_id is not None
        roster = before if unfinished else before.revoked(site, reason)
        write_roster(server.folder / "roster.json", roster)
        (server.folder / "invitations" / f"{site}.json").unlink(missing_ok=True)
        if member.node_id is None or not is_running(server):
            return False
        if not unfinished or member.node_id in _node_ids(server):
            superlink.unregister(server, member.node_id)
        write_roster(
            server.folder / "roster.json",
            roster.with_member(replace(roster.expect(site), node_id=None)),
        )
    return True


def reconcile(server: ServerFolder) -> list[str]:
    """Makes the SuperLink's list of nodes what the roster says; the roster is right. What was done.

    Needed where a database was lost or restored, or somebody was admitted or revoked meanwhile.
    """
    said = []
    with changing(server.folder):
        roster = roster_of(server)
        there = _node_ids(server)
        wanted = {member.node_id for member in roster.admitted()}
        for node_id in sorted(there - wanted):
            superlink.unregister(server, node_id)
            said.append(f"took out the node {node_id}, which is not in the roster")
        for member in roster.members:
            if member.state == ADMITTED and member.node_id not in there and member.node_key:
                node_id = superlink.register(server, member.site, member.node_key)
                roster = roster.with_member(replace(member, node_id=node_id))
                said.append(f"registered {member.site}")
            elif member.state == REVOKED and member.node_id is not None:
                roster = roster.with_member(replace(member, node_id=None))
        write_roster(server.folder / "roster.json", roster)
    return said


def rotate_certificate(server: ServerFolder, *, days: int = LEAF_DAYS) -> None:
    """A new server key and certificate by the same authority; who runs takes them when told."""
    make_leaf(server.keys, server.settings().host, days=days)
    lay_anew(server.folder, [server.keys / "server.key"])


def rotate_key(server: ServerFolder, now: str | None = None) -> Path:
    """A new federation key, signed by the old one, which is erased; the paper for the hospitals.

    federation.yaml is signed again. Invitations that are open hold no longer: they name the old
    key. A key that others may have is no witness: hospitals compare the new fingerprint by
    telephone in any case.
    """
    old = server.key()
    federation, described, _ = server.federation()
    new = fresh_key(federation.name)
    paper = Succession(
        federation=federation.name,
        old_vkey=old.verifier().text(),
        new_vkey=new.verifier().text(),
        federation_sig=sign_paper(new, FEDERATION, described).decode(),
        made=now or utc(),
    ).signed(old)
    path = server.folder / "invitations" / f"succession-{paper.made.replace(':', '')}.json"
    with changing(server.folder):
        write_bytes(path, paper.to_bytes())
        write_secret(server.keys / "federation.key", f"{new.secret_text()}\n".encode())
        write_bytes(server.keys / "federation.vkey", f"{new.verifier().text()}\n".encode())
        sign_federation(server, new, described)
    return path


def key_fingerprint(server: ServerFolder) -> str:
    """The federation key's fingerprint, to be compared by telephone."""
    return fingerprint(server.vkey())


def is_running(server: ServerFolder) -> bool:
    """Whether a SuperLink is there to be told, though it may be too busy to answer just now."""
    from fedkd.deploy.running import SUPERLINK, pid_of  # it needs this module itself

    if pid_of(server, SUPERLINK) is not None:
        return True
    return superlink.is_healthy(server, server.settings())


def _node_ids(server: ServerFolder) -> set[int]:
    """The numbers under which the SuperLink knows keys."""
    return {int(node["node-id"]) for node in superlink.nodes(server)}


def _registered(server: ServerFolder, roster: Roster, site: str, node_key: str) -> int:
    """The node's number; a key that was registered, but not written down, is registered again."""
    try:
        return superlink.register(server, site, node_key)
    except CannotTell as error:
        if "already in use" not in str(error):
            raise
    known = {member.node_id for member in roster.members}
    for node in superlink.nodes(server):
        if int(node["node-id"]) not in known:
            superlink.unregister(server, int(node["node-id"]))
    return superlink.register(server, site, node_key)
