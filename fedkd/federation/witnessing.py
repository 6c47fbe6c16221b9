"""A site's part in cosigning, one turn long: hear the peers, cosign, say how far its log goes."""

from collections.abc import Sequence
from typing import Any

from fedkd.audit import (
    SERVER,
    Log,
    RolledBack,
    Roster,
    cosign,
    expect_fresh,
    hear,
    stands,
)
from fedkd.knowledge import digest_of_bytes
from fedkd.wire import Envelope

ENROLLED = "party.enrolled"


class OtherHistory(Exception):
    """The server's log does not go on from what this site cosigned."""


def enrol(log: Log, run: str, roster: Roster, about: str | None = None) -> None:
    """Writes down, at a site, whom it knows in a run; elsewhere the newest roster holds.

    `about` names what else in the run other parties were agreed on for, as an evaluation is.
    """
    body = {"party": log.party, "run": run, **roster.to_json()}
    if about is None or roster != roster_in(log, run):
        log.append(f"roster/{about or run}", ENROLLED, body)
    log.keep_policy(roster.policy(log.verifier()))


def roster_of(log: Log, run: str = "") -> Roster | None:
    """A run's newest roster at a site, else the newest one; None where it was never given any."""
    found = roster_in(log, run)
    if found is not None:
        return found
    entry = log.last(ENROLLED)
    return None if entry is None else Roster.from_json(entry.body)


def roster_in(log: Log, run: str) -> Roster | None:
    """A run's newest roster at a site; None where it has none of this run."""
    of_run = [entry for entry in log.entries(ENROLLED) if entry.body.get("run") == run]
    return Roster.from_json(of_run[-1].body) if of_run else None


def roster_of_run(log: Log, run: str) -> Roster | None:
    """The roster that a run itself was agreed on with, whatever came after; None without one."""
    entry = log.entry(f"roster/{run}")
    return None if entry is None else Roster.from_json(entry.body)


class Desk:
    """One turn's cosigning at a site; `hears` comes before anything is done or written."""

    def __init__(self, log: Log, now: int) -> None:
        self._log, self._now = log, now
        self._roster = roster_of(log)
        self._given: tuple[str, ...] = ()
        self._prove_from: tuple[int, ...] = ()
        self._rolled_back = False
        self.server_head: dict[str, Any] | None = None

    def hears(self, envelope: Envelope, run: str, round: int, *, acts: bool) -> None:
        """Takes in what came along: cosignatures over this log, and heads to be cosigned.

        Where the site is about to act, enough peers must have spoken lately. Raises
        `fedkd.audit.RolledBack` (and nothing was written), `NotFresh` or `OtherHistory`.
        """
        self._roster = roster = roster_of(self._log, run)
        if roster is None:
            return
        self._prove_from = envelope.prove_from
        try:
            with self._log.writing():
                spoke = hear(self._log, roster, envelope.notes, self._now)
                problems = self._cosign(roster, envelope.asks, run, round)
        except RolledBack:
            self._rolled_back = True
            raise
        if acts:
            expect_fresh(roster, spoke, self._now)
        if SERVER in problems:
            raise OtherHistory(problems[SERVER])

    def _cosign(self, roster: Roster, asks: Sequence[str], run: str, round: int) -> dict[str, str]:
        """Cosigns, and returns whose log does not go on from what this site had cosigned."""
        cosigned = cosign(self._log, roster, asks, self._now)
        self._given = tuple(note.to_bytes().decode() for note in cosigned.notes)
        if cosigned.news and round:  # a roll call adds nothing to the log: its heads stay the last
            heads = [
                {"origin": head.origin, "size": head.size, "root": head.root.hex()}
                for head in cosigned.news
            ]
            body = {"run": run, "round": round, "heads": heads}
            named = digest_of_bytes(repr(body).encode())
            self._log.append(f"witnessed/{named}", "checkpoint.witnessed", body)
        names = {peer.log.name: party for party, peer in roster.peers.items()}
        for note in cosigned.notes:
            if names[note.checkpoint().origin] == SERVER:
                head = note.checkpoint()
                self.server_head = {"size": head.size, "root": head.root.hex()}
        problems = {names[origin]: str(why) for origin, why in cosigned.problems.items()}
        for party, why in problems.items():
            body = {"kind": "another history", "component": party, "run": run, "found": why}
            self._log.append(f"forked/{digest_of_bytes(why.encode())}", "error.raised", body)
        return problems

    def says(self) -> Envelope:
        """What goes with the reply, once everything is in the log: the newest head, and proofs."""
        if self._roster is None or self._rolled_back:
            return Envelope()
        size = len(self._log)
        starts = sorted({old for old in self._prove_from if old <= size})
        asks = tuple(self._log.ask(old).to_bytes().decode() for old in starts) if size else ()
        return Envelope(asks=asks, notes=self._given, stands=stands(self._log, self._roster))
