"""Keeps the coordinator's roster: who was invited, who was admitted with which keys, who left."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from fedkd.audit import Peer
from fedkd.audit.log import utc_now
from fedkd.deploy.invitations import Enrolment, Invitation, site_name, token_digest
from fedkd.federation.durable import read_json, write_json
from fedkd.knowledge import BadInput

INVITED: Final = "invited"
ADMITTED: Final = "admitted"
REVOKED: Final = "revoked"


@dataclass(frozen=True, slots=True)
class Member:
    """A site in the roster.

    `node_id` is what the SuperLink calls its key, None while it has not been told. `expires` is
    the invitation's. `former_nodes` are node keys that were revoked. Times are UTC.
    """

    site: str
    state: str
    token_digest: str
    invited_at: str
    expires: str
    node_key: str | None = None
    node_id: int | None = None
    peer: Peer | None = None
    rehearsal_peer: Peer | None = None
    software: str | None = None
    admitted_at: str | None = None
    revoked_at: str | None = None
    reason: str | None = None
    former_nodes: tuple[str, ...] = ()

    def publics(self) -> set[str]:
        """Every public key by which this site was ever known here."""
        now = _publics(self.node_key, self.peer, self.rehearsal_peer)
        return now | set(self.former_nodes)

    def nodes(self) -> tuple[str, ...]:
        """Every node key that it ever had."""
        now = () if self.node_key is None else (_node(self.node_key),)
        return tuple(dict.fromkeys((*self.former_nodes, *now)))

    def to_json(self) -> dict[str, Any]:
        """Plain values, as roster.json holds them."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("peer", "rehearsal_peer"):
            peer = getattr(self, name)
            plain[name] = None if peer is None else peer.to_json()
        return {**plain, "former_nodes": list(self.former_nodes)}

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> "Member":
        """The inverse of `to_json`."""
        peers = {
            name: None if plain.get(name) is None else Peer.from_json(plain[name])
            for name in ("peer", "rehearsal_peer")
        }
        return cls(**{**plain, **peers, "former_nodes": tuple(plain.get("former_nodes", ()))})


@dataclass(frozen=True, slots=True)
class Roster:
    """Everybody who was ever invited, by name; a revoked site keeps its line."""

    members: tuple[Member, ...]

    def get(self, site: str) -> Member | None:
        """The member of this name."""
        return next((member for member in self.members if member.site == site), None)

    def expect(self, site: str) -> Member:
        """The member of this name; `BadInput` names those that there are."""
        member = self.get(site)
        if member is None:
            known = ", ".join(each.site for each in self.members) or "none"
            raise BadInput(f"no site {site!r} in the roster", f"one of: {known}")
        return member

    def admitted(self) -> tuple[Member, ...]:
        """Who takes part, in order of names."""
        return tuple(
            sorted(
                (each for each in self.members if each.state == ADMITTED),
                key=lambda each: each.site,
            )
        )

    def with_member(self, member: Member) -> "Roster":
        """The roster in which `member` stands for its name."""
        others = [each for each in self.members if each.site != member.site]
        return Roster(tuple(sorted((*others, member), key=lambda each: each.site)))

    def invited(self, invitation: Invitation) -> "Roster":
        """The roster after an invitation; `BadInput` where the site takes part, or is known
        under a name that differs by case alone (names are folders).
        """
        site_name(invitation.site)
        for each in self.members:
            if each.site.lower() == invitation.site.lower() and each.site != invitation.site:
                raise BadInput(f"the name {invitation.site!r} beside {each.site!r}", "another name")
        member = self.get(invitation.site)
        if member is not None and member.state == ADMITTED:
            raise BadInput(
                f"{invitation.site}, which is admitted",
                "a site that is not",
                f"to replace its keys: fedkd server revoke {invitation.site!r} first",
            )
        return self.with_member(
            Member(
                invitation.site,
                INVITED,
                token_digest(invitation.token),
                utc_now(),
                invitation.expires,
                former_nodes=() if member is None else member.nodes(),
            )
        )

    def expect_enrols(self, enrolment: Enrolment, federation: str) -> Member:
        """The member that this enrolment is of; `BadInput` unless it fits its open invitation.

        Its keys must be nobody else's: a key of a revoked site is none of a new one's either.
        """
        if enrolment.federation != federation:
            raise BadInput(f"an enrolment for {enrolment.federation}", f"one for {federation}")
        member = self.expect(enrolment.site)
        if token_digest(enrolment.token) != member.token_digest:
            raise BadInput(
                f"an enrolment of {enrolment.site} without the token of its newest invitation",
                "what fedkd site join made of that invitation",
                "an older invitation, or one that was forged: telephone them",
            )
        if member.state != INVITED:
            raise BadInput(
                f"an enrolment of {enrolment.site}, which is {member.state}",
                "an open invitation: each is for one use",
                f"fedkd server invite {enrolment.site!r} makes a new one",
            )
        if utc_now() >= member.expires:
            raise BadInput(
                f"an invitation of {enrolment.site} that expired at {member.expires}",
                "one that holds now",
                f"fedkd server invite {enrolment.site!r} makes a new one",
            )
        if _node(enrolment.node_key) in member.former_nodes:
            raise BadInput(
                f"the node key of {enrolment.site} that was revoked",
                "a new one: who had the old one may have it still",
                "fedkd site join makes one; the site's folder, log and ledger stay",
            )
        theirs = _publics(enrolment.node_key, enrolment.peer, enrolment.rehearsal_peer)
        for each in self.members:
            if each.site != member.site and theirs & each.publics():
                raise BadInput(
                    f"a key of {each.site} in the enrolment of {enrolment.site}",
                    "keys of its own",
                    "fedkd site join makes them, in a folder of its own",
                )
        return member

    def with_enrolled(self, enrolment: Enrolment, node_id: int | None) -> "Roster":
        """The roster in which this enrolment is admitted."""
        return self.with_member(
            replace(
                self.expect(enrolment.site),
                state=ADMITTED,
                node_key=enrolment.node_key,
                node_id=node_id,
                peer=enrolment.peer,
                rehearsal_peer=enrolment.rehearsal_peer,
                software=enrolment.software,
                admitted_at=utc_now(),
            )
        )

    def revoked(self, site: str, reason: str) -> "Roster":
        """The roster without this site: its invitation, if still open, holds no longer either."""
        member = self.expect(site)
        if member.state == REVOKED:
            raise BadInput(f"{site}, revoked at {member.revoked_at}", "a site that is not")
        return self.with_member(
            replace(member, state=REVOKED, revoked_at=utc_now(), reason=reason or None)
        )


def read_roster(path: Path) -> Roster:
    """The roster in a file; `BadInput` where it is none."""
    try:
        listed = read_json(path)
        if not isinstance(listed, list):
            raise TypeError(listed)
        known = Member.__dataclass_fields__.keys()
        new = sorted({key for each in listed if isinstance(each, dict) for key in each} - known)
        if new:
            raise BadInput(
                f"{path} with the keys {', '.join(new)}",
                "those that this fedkd writes",
                "a newer fedkd wrote it: install that one here (docs/deploy.md, Updating)",
            )
        return Roster(tuple(Member.from_json(each) for each in listed))
    except BadInput:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"{path}, which is no roster ({type(error).__name__})",
            "what fedkd server wrote",
            "take it from a backup",
        ) from None


def write_roster(path: Path, roster: Roster) -> None:
    """Replaces the roster in a file, durably."""
    write_json(path, [member.to_json() for member in roster.members])


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Holds the roster in `folder` against other commands that would change it meanwhile."""
    handle = os.open(folder / ".roster.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _publics(node_key: str | None, *peers: Peer | None) -> set[str]:
    keys = set() if node_key is None else {_node(node_key)}
    for peer in peers:
        if peer is not None:
            keys |= {key.public.hex() for key in (peer.log, *peer.witnesses)}
    return keys


def _node(node_key: str) -> str:
    """An OpenSSH public key without its comment."""
    return " ".join(node_key.split()[:2])
