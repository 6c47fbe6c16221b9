"""A party's part in cosigning: what it signs for its peers, and when it trusts its own log."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from fedkd.audit.log import Log
from fedkd.audit.verify import (
    AddCheckpoint,
    BadRequest,
    Checkpoint,
    Malformed,
    Note,
    PolicyGroup,
    PolicyLog,
    PolicyWitness,
    Refusal,
    Refuted,
    Signature,
    Stale,
    TrustPolicy,
    UnknownKey,
    UnknownLog,
    VerifierKey,
    Witness,
    default_threshold,
)

SERVER: Final = "server"
MOST_COSIGNERS: Final = 5
"""Of one log: in a large federation not everybody cosigns everybody."""
MOST_SKEW_SECONDS: Final = 300
"""How far ahead a peer's clock may be."""


class RolledBack(Exception):
    """A peer cosigned a checkpoint of this log that the log does not hold: it is an old copy."""


class NotFresh(Exception):
    """Too few peers said lately how far this log goes: it might be an old copy."""


class Peer(NamedTuple):
    """The public keys of a party: of its log, and those by which it cosigns others."""

    log: VerifierKey
    witnesses: tuple[VerifierKey, ...]

    @classmethod
    def of(cls, log: Log) -> "Peer":
        """The party whose log this is."""
        return cls(log.verifier(), tuple(key.verifier() for key in log.witness_keys))

    def to_json(self) -> dict[str, Any]:
        """Plain values: vkeys as text."""
        return {"vkey": self.log.text(), "witnesses": [key.text() for key in self.witnesses]}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Peer":
        """The inverse of `to_json`."""
        return cls(
            VerifierKey.parse(plain["vkey"]), tuple(map(VerifierKey.parse, plain["witnesses"]))
        )


def cosigners_of(sites: Iterable[str], most: int = MOST_COSIGNERS) -> dict[str, tuple[str, ...]]:
    """Who cosigns each log: the server and all other sites, or a sample of `most`.

    The sample stays the same for the same sites, so that a witness's memory is worth something:
    sites stand in a ring in the order of their names' digests, and each is cosigned by the server
    and those that follow it, the server by the first ones. So every site follows equally many.
    """
    ring = sorted(sites, key=lambda site: hashlib.sha256(site.encode()).digest())
    if most == 0:
        return dict.fromkeys([SERVER, *ring], ())
    by = {SERVER: tuple(sorted(ring[:most]))}
    for at, site in enumerate(ring):
        others = [*ring[at + 1 :], *ring[:at]] if len(ring) <= most else _after(ring, at, most - 1)
        by[site] = tuple(sorted([SERVER, *others[: most - 1]]))
    return by


def _after(ring: Sequence[str], at: int, count: int) -> list[str]:
    return [ring[(at + step) % len(ring)] for step in range(1, count + 1)]


@dataclass(frozen=True, slots=True)
class Roster:
    """Whom a party knows: keys from its own disk, never from the network.

    `cosigners` cosign its log, `follows` are those whose logs it cosigns. `threshold` of the
    cosigners suffice, and have to have spoken within `most_age_s` seconds.
    """

    peers: Mapping[str, Peer]
    cosigners: tuple[str, ...]
    follows: tuple[str, ...]
    threshold: int
    most_age_s: int

    @property
    def needed(self) -> int:
        """How many others have to have said lately how far the log goes; 0: nobody has to."""
        return self.threshold if self.cosigners else 0

    def to_json(self) -> dict[str, Any]:
        """Plain values, as the log holds them."""
        return {
            "peers": {party: peer.to_json() for party, peer in sorted(self.peers.items())},
            "cosigners": list(self.cosigners),
            "follows": list(self.follows),
            "threshold": self.threshold,
            "most_age_s": self.most_age_s,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Roster":
        """The inverse of `to_json`."""
        return cls(
            {party: Peer.from_json(peer) for party, peer in plain["peers"].items()},
            tuple(plain["cosigners"]),
            tuple(plain["follows"]),
            plain["threshold"],
            plain["most_age_s"],
        )

    def policy(self, log: VerifierKey) -> TrustPolicy:
        """The policy for the party's own log: any key of a cosigner, `threshold` cosigners."""
        witnesses, groups, members = [], [], []
        for party in self.cosigners:
            keys = self.peers[party].witnesses
            name = quote(party, safe="")  # a policy's names are words
            named = [name] if len(keys) == 1 else [f"{name}/{key.algorithm:#04x}" for key in keys]
            witnesses += [PolicyWitness(n, key) for n, key in zip(named, keys, strict=True)]
            if len(keys) > 1:
                groups.append(PolicyGroup(name, 1, tuple(named)))
            members.append(name)
        if not members:
            return TrustPolicy((PolicyLog(log),), (), (), "none")
        groups.append(PolicyGroup("cosigners", self.threshold, tuple(members)))
        return TrustPolicy((PolicyLog(log),), tuple(witnesses), tuple(groups), "cosigners")


@dataclass(frozen=True, slots=True)
class Federation:
    """Everybody's keys and the terms of cosigning; each party is given its own part of it."""

    parties: Mapping[str, Peer]
    threshold: int | None
    most_age_s: int
    most_cosigners: int = MOST_COSIGNERS

    def __post_init__(self) -> None:
        named: dict[bytes, str] = {}
        for party, peer in self.parties.items():
            for key in (peer.log, *peer.witnesses):
                # An Ed25519 cosignature does not bind its cosigner's name (tlog-cosignature).
                if key.public in named:
                    raise ValueError(
                        f"found one key twice, as {named[key.public]} and as {key}; expected a key "
                        f"of its own for each log and each witness ({party})"
                    )
                named[key.public] = str(key)

    def cosigners(self) -> dict[str, tuple[str, ...]]:
        """Who cosigns whose log."""
        return cosigners_of(
            [party for party in self.parties if party != SERVER], self.most_cosigners
        )

    def rosters(self) -> dict[str, Roster]:
        """The part of each party."""
        cosigners = self.cosigners()
        follows: dict[str, list[str]] = {party: [] for party in self.parties}
        for party, by in cosigners.items():
            for witness in by:
                follows[witness].append(party)
        return {party: self._roster(party, cosigners[party], follows[party]) for party in cosigners}

    def _roster(self, party: str, cosigners: tuple[str, ...], follows: Sequence[str]) -> Roster:
        known = sorted({*cosigners, *follows})
        threshold = self.threshold or default_threshold(max(1, len(cosigners)))
        if cosigners and threshold > len(cosigners):
            raise ValueError(
                f"found a threshold of {threshold}, expected at most {len(cosigners)}, the "
                f"cosigners of {party}"
            )
        return Roster(
            {name: self.parties[name] for name in known},
            cosigners,
            tuple(sorted(follows)),
            threshold,
            self.most_age_s,
        )


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What came of asks: notes that carry this party's cosignatures alone, and problems.

    `news` are the heads that this party had not cosigned before. A problem is a log that does not
    go on from what was cosigned, by its origin.
    """

    notes: tuple[Note, ...]
    news: tuple[Checkpoint, ...]
    problems: Mapping[str, Refusal]


def cosign(log: Log, roster: Roster, asks: Iterable[str], now: int) -> Cosigned:
    """Cosigns what goes on from the heads that this party has seen; durable when it returns.

    An ask that starts from another size than the one cosigned last is passed over: `stands` tells
    its sender where to start. So is one that nobody who is followed can have made.
    """
    logs = {roster.peers[party].log.name: (roster.peers[party].log,) for party in roster.follows}
    notes, news, problems = [], [], {}
    with log.writing():
        before = log.seen()
        witness = Witness(log.witness_keys, logs, {o: h for o, h in before.items() if o in logs})
        for text in asks:
            try:
                ask = AddCheckpoint.parse(text.encode())
                witness, signatures = witness.add(ask, now)
            except (Stale, UnknownLog, BadRequest, Malformed, UnknownKey):
                continue
            except Refusal as refusal:
                problems[ask.note.checkpoint().origin] = refusal
                continue
            head = ask.note.checkpoint()
            log.see(ask.note)
            notes.append(Note(ask.note.text, signatures))
            if before.get(head.origin) != (head.size, head.root):
                news.append(head)
    return Cosigned(tuple(notes), tuple(news), problems)


def stands(log: Log, roster: Roster) -> tuple[tuple[str, int], ...]:
    """The size that this party cosigned last, of each log that it follows."""
    seen = log.seen()
    origins = sorted(roster.peers[party].log.name for party in roster.follows)
    return tuple((origin, seen[origin].size) for origin in origins if origin in seen)


def cosignatures(
    note: Note, peers: Mapping[str, Peer]
) -> dict[str, list[tuple[VerifierKey, Signature, int]]]:
    """The cosignatures of known peers on a note: key, line and time (seconds) by party.

    A line that claims to be a peer's and is not raises `Refuted`.
    """
    owners = {key: party for party, peer in peers.items() for key in peer.witnesses}
    by_line = {(key.name, key.id): key for key in owners}
    found: dict[str, list[tuple[VerifierKey, Signature, int]]] = {}
    for line in note.signatures:
        key = by_line.get((line.name, line.key_id))
        if key is not None and (time := key.verify(note.text, line.content)) is not None:
            found.setdefault(owners[key], []).append((key, line, time))
    return found


def hear(log: Log, roster: Roster, notes: Iterable[str], now: int) -> dict[str, int]:
    """Keeps what cosigners say of this party's own log; when each spoke last, in seconds.

    Raises `RolledBack` where one of them cosigned what the log does not hold: only a checkpoint
    that the log's own key signed counts, so that no peer can stop a site with an invention.
    """
    spoke: dict[str, int] = {}
    cosigners = {party: roster.peers[party] for party in roster.cosigners}
    size = len(log)
    with log.writing():
        for text in notes:
            try:
                note = Note.parse(text.encode())
                head = note.checkpoint()
                if head.origin != log.origin:
                    continue
                note.verify([log.verifier()])
                said = cosignatures(note, cosigners)
            except Refuted:
                continue
            if not said:
                continue
            if head.size > size or log.root(head.size) != head.root:
                raise RolledBack(
                    f"{', '.join(said)} cosigned {head.size} entries of this log with root "
                    f"{head.root.hex()}; found {size} entries here, which do not hold them"
                )
            log.cosigned(
                head.size, {str(key): (line, t) for s in said.values() for key, line, t in s}
            )
            for party, lines in said.items():
                times = [time for _, _, time in lines if time <= now + MOST_SKEW_SECONDS]
                spoke[party] = max([spoke.get(party, 0), *times])
    return spoke


def expect_fresh(roster: Roster, spoke: Mapping[str, int], now: int) -> None:
    """Raises `NotFresh` unless enough cosigners spoke within the roster's time."""
    if not roster.cosigners:
        return
    fresh = [party for party, time in spoke.items() if time >= now - roster.most_age_s]
    if len(fresh) < roster.threshold:
        raise NotFresh(
            f"found {len(fresh)} cosigners that said within {roster.most_age_s} s how far this log "
            f"goes ({', '.join(sorted(fresh)) or 'nobody'}), expected {roster.threshold} of "
            f"{', '.join(roster.cosigners)}"
        )
