"""The server's part in cosigning: heads and cosignatures ride on what is asked and answered."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from fedkd.audit import SERVER, Federation, Log, cosign, cosignatures
from fedkd.audit.verify import AddCheckpoint, Checkpoint, Note, Refuted, Signature
from fedkd.federation.durable import write_bytes
from fedkd.knowledge import BadInput, digest_of_bytes
from fedkd.wire import Envelope

KEPT_HEADS = 3
"""Of each log: peers' cosignatures come a round later than the head that they are over."""


class Relay:
    """Brings every site its peers' heads and cosignatures, and keeps what comes back.

    It holds nothing that a lying server could turn against a site: each of them checks what it is
    brought. What it forgets when the process ends is asked again at the next roll call. `earlier`
    are parties' newest heads of runs before this one, as peers cosigned them: a site whose folder
    was put back from an old copy meanwhile learns of it by them.
    """

    def __init__(
        self,
        log: Log,
        federation: Federation,
        clock: Callable[[], float] = time.time,
        earlier: Mapping[str, Note] = MappingProxyType({}),
    ) -> None:
        self._log, self._clock = log, clock
        self._earlier = {party: (note.to_bytes().decode(),) for party, note in earlier.items()}
        self._parties = federation.parties
        self._cosigners = federation.cosigners()
        rosters = federation.rosters()
        self._roster = rosters[SERVER]
        self._follows = {party: roster.follows for party, roster in rosters.items()}
        self._most_age_s = federation.most_age_s
        self._names = {peer.log.name: party for party, peer in federation.parties.items()}
        self._asks: dict[str, dict[int, AddCheckpoint]] = {}
        self._heads: dict[str, list[Note]] = {party: [] for party in self._parties}
        self._stands: dict[tuple[str, str], int] = {}
        self._spoke: dict[tuple[str, str, int], int] = {}
        self._ahead: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        log.keep_policy(self._roster.policy(log.verifier()))

    def head(self, party: str) -> Checkpoint | None:
        """The newest checkpoint of a party's log that is known here."""
        if party == SERVER:
            note = self._log.checkpoint()
            return None if note is None else note.checkpoint()
        return self._heads[party][-1].checkpoint() if self._heads[party] else None

    def first(self) -> Envelope:
        """What goes with a roll call, before anybody knows which node is which site."""
        return Envelope(asks=(_text(self._log.ask(0)),), prove_from=(0,))

    def outgoing(self, site: str) -> Envelope:
        """What rides on a message to `site`."""
        if site not in self._parties:
            return Envelope()
        asks = []
        for party in self._follows[site]:
            ask = self._ask_of(party, site)
            if ask is not None:
                asks.append(ask)
        notes = tuple(note.to_bytes().decode() for note in self._heads[site] if note.signatures[1:])
        notes = (*self._earlier.get(site, ()), *notes)
        starts = {self._stands.get((site, by), 0) for by in self._cosigners[site]}
        known = self.head(site)
        if known is not None:
            starts.add(known.size)
        return Envelope(asks=tuple(asks), notes=notes, prove_from=tuple(sorted(starts)))

    def _ask_of(self, party: str, witness: str) -> str | None:
        """The ask that brings `party`'s newest head to `witness`; None where that is no news."""
        head = self.head(party)
        if head is None:
            return None
        spoke = self._spoke.get((party, witness, head.size))
        if spoke is not None and spoke > self._clock() - self._most_age_s / 2:
            return None
        return self._ask(party, self._stands.get((party, witness), 0))

    def _ask(self, party: str, old: int) -> str | None:
        if party == SERVER:
            return _text(self._log.ask(old)) if old <= len(self._log) else None
        newest = self._heads[party][-1]
        if old == newest.checkpoint().size:
            bare = Note(newest.text, newest.signatures[:1])
            return _text(AddCheckpoint(old, (), bare))
        ask = self._asks[party].get(old)
        return None if ask is None else _text(ask)

    def incoming(self, site: str, envelope: Envelope) -> None:
        """Takes in what came with a reply; a log that does not go on becomes a problem."""
        if site not in self._parties:
            return
        for origin, size in envelope.stands:
            party = self._names.get(origin)
            if party is not None:
                self._stands[party, site] = size
        if self._is_ahead(site):
            return
        for text in envelope.notes:
            self._hear(site, text)
        self._cosign(site, envelope.asks)

    def _is_ahead(self, site: str) -> bool:
        """Whether a site says that it cosigned more of the server's log than there is.

        One that says so alone may lie, and is left out. Where as many say so as suffice to cosign,
        it is the server's log that was restored from an old copy: `BadInput`, and nothing goes on.
        """
        stood = self._stands.get((SERVER, site), 0)
        if stood <= len(self._log):
            self._ahead.pop(site, None)
            return False
        self._ahead[site] = stood
        self.problems[site] = "it says that it cosigned more of the server's log than there is"
        if len(self._ahead) >= self._roster.threshold:
            raise BadInput(
                f"a server's log of {len(self._log)} entries, of which "
                f"{', '.join(f'{name} cosigned {size}' for name, size in self._ahead.items())}",
                "the log as it was: it seems to have been restored from an old copy",
                "restore the newest copy, or begin a new federation with a new key",
            )
        return True

    def _hear(self, site: str, text: str) -> None:
        try:
            note = Note.parse(text.encode())
            head = note.checkpoint()
            said = cosignatures(note, {site: self._parties[site]}).get(site, [])
        except Refuted:
            return
        party = self._names.get(head.origin)
        if party is None or site not in self._cosigners[party] or not said:
            return
        if party == SERVER:
            if head.size <= len(self._log) and self._log.root(head.size) == head.root:
                lines = {str(key): (line, at) for key, line, at in said}
                self._log.cosigned(head.size, lines)
            else:
                return
        else:
            kept = {one.checkpoint(): place for place, one in enumerate(self._heads[party])}
            if head not in kept:
                return
            place = kept[head]
            self._heads[party][place] = _with(self._heads[party][place], [it[1] for it in said])
        self._stands[party, site] = head.size
        self._spoke[party, site, head.size] = max(at for _, _, at in said)

    def _cosign(self, site: str, asks: Iterable[str]) -> None:
        """Cosigns a site's newest head, and keeps its proofs for the peers."""
        parsed: dict[int, AddCheckpoint] = {}
        for text in asks:
            try:
                ask = AddCheckpoint.parse(text.encode())
                ask.note.verify([self._parties[site].log])
            except Refuted:
                continue
            if ask.note.checkpoint().origin == self._parties[site].log.name:
                parsed[ask.old_size] = ask
        if not parsed:
            return
        newest = max(parsed.values(), key=lambda ask: ask.note.checkpoint().size)
        head = newest.note.checkpoint()
        parsed = {old: ask for old, ask in parsed.items() if ask.note.checkpoint() == head}
        seen = self._log.seen().get(head.origin)
        start = 0 if seen is None else seen.size
        self._stands[site, SERVER] = start
        chosen = parsed.get(start)
        if chosen is None:
            return
        cosigned = cosign(self._log, self._roster, [_text(chosen)], int(self._clock()))
        for why in cosigned.problems.values():
            self.problems[site] = "its log does not go on from what was cosigned"
            body = {"kind": "another history", "component": site, "found": str(why)}
            self._log.append(f"forked/{digest_of_bytes(repr(body).encode())}", "error.raised", body)
        if not cosigned.notes:
            return
        self.problems.pop(site, None)
        self._stands[site, SERVER] = head.size
        self._spoke[site, SERVER, head.size] = int(self._clock())
        self._asks[site] = parsed
        heads = [note for note in self._heads[site] if note.checkpoint() != head]
        before = [note for note in self._heads[site] if note.checkpoint() == head]
        fresh = _with(before[0] if before else chosen.note, cosigned.notes[0].signatures)
        self._heads[site] = [*heads, fresh][-KEPT_HEADS:]

    def unsettled(self, present: Iterable[str]) -> bool:
        """Whether a cosigner that is there has not yet cosigned a newest head."""
        there = {SERVER, *present}
        return any(
            (party, by, head.size) not in self._spoke
            for party in there
            if (head := self.head(party)) is not None
            for by in self._cosigners[party]
            if by in there
        )

    def keep_checkpoints(self, folder: Path) -> None:
        """Writes each party's newest checkpoint, with all cosignatures known, for an auditor."""
        for party in self._parties:
            heads = self._server_heads() if party == SERVER else self._heads[party]
            for note in heads[-1:]:
                write_bytes(folder / f"{party}.checkpoint", note.to_bytes())

    def _server_heads(self) -> list[Note]:
        note = self._log.checkpoint()
        if note is None:
            return []
        return [_with(note, self._log.cosignatures(note.checkpoint().size))]


def _text(ask: AddCheckpoint) -> str:
    return ask.to_bytes().decode()


def _with(note: Note, lines: Iterable[Signature]) -> Note:
    """`note` with `lines`, each in place of an older one by the same key."""
    fresh = {(line.name, line.key_id): line for line in lines}
    kept = [line for line in note.signatures if (line.name, line.key_id) not in fresh]
    return Note(note.text, (*kept, *fresh.values()))
