"""Compares the logs of one federation: what one of them says of another must stand there too."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from fedkd.audit.verify.cosignatures import Head
from fedkd.audit.verify.logs import CheckedLog
from fedkd.audit.verify.notes import Note
from fedkd.audit.verify.refusals import Malformed, Refuted
from fedkd.audit.verify.spellings import checked_digest, checked_number, shown

SERVER: Final = "server"
RELEASED: Final = "release.outputs"
ADMITTED: Final = "answers.admitted"
COMBINED: Final = "aggregate.computed"
EVALUATED: Final = "evaluation.done"
WITNESSED: Final = "checkpoint.witnessed"
ENROLLED: Final = "party.enrolled"
ERASED: Final = "retention.applied"
STARTED: Final = "run.started"

Logs: TypeAlias = Mapping[str, CheckedLog]
"""Logs that hold, each under its party's name."""


class Told(NamedTuple):
    """An open entry of some log."""

    party: str
    place: int
    event: str
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return f"entry {self.place} of {self.party}, {self.event}"

    def get(self, key: str, kind: type) -> Any:
        """What the body holds under `key`, which must be of this kind."""
        found = self.body.get(key)
        if type(found) is not kind:
            what = f"{self}, {key}"
            raise Malformed(what, f"a value of type {type(found).__name__}", kind.__name__)
        return found


def told(party: str, log: CheckedLog, type: str) -> Iterator[Told]:
    """The open entries of one type, in order."""
    for index, leaf in enumerate(log.entries):
        if leaf.header.type == type and leaf.body is not None:
            yield Told(party, index, type, leaf.body)


# Double entry: an answer stands in two books, of which no party can rewrite both.


@dataclass(slots=True)
class DoubleEntry:
    """How many answers stand alike in both books, and what could not be compared.

    `closed` are answers of which a side is closed, `erased` those of which it was erased under a
    retention rule that the log names, `absent` sites of which no log that holds is here.
    """

    matched: int = 0
    closed: int = 0
    erased: int = 0
    absent: set[str] = field(default_factory=set)


class _Answer(NamedTuple):
    digest: str
    entry: Told


def check_double_entry(logs: Logs) -> DoubleEntry:
    """Compares the server's book with each site's; `Refuted` names the entry that stands alone.

    What the server admitted from a site, that site released, before the head that came with it;
    what a site released to a round that the server closed, the server admitted or says why not;
    and what it combined is what it admitted. The counts that an evaluation names, sites released.
    """
    server = logs[SERVER]
    found = DoubleEntry()
    released = {site: _released(site, log) for site, log in logs.items() if site != SERVER}
    admitted: dict[tuple[str, int], dict[str, str]] = {}
    for entry in told(SERVER, server, ADMITTED):
        where = (entry.get("run", str), entry.get("round", int))
        admitted[where] = _texts(entry, "answers")
        for site, digest in admitted[where].items():
            if site not in released:
                found.absent.add(site)
            elif _stands(entry, site, digest, released[site], logs[site], found):
                found.matched += 1
        left_out = entry.get("left_out", dict)
        for site, answers in released.items():
            for answer in answers.get(where, ()):
                if answer.digest != admitted[where].get(site) and site not in left_out:
                    raise Refuted(
                        str(answer.entry), f"answer {answer.digest}", f"it, or a reason, in {entry}"
                    )
    _compare_counts(logs, released, found)
    for entry in told(SERVER, server, COMBINED):
        where = (entry.get("run", str), entry.get("round", int))
        for site, digest in _texts(entry, "inputs").items():
            if where not in admitted and _closed(server, ADMITTED, where[0]):
                _count_closed(found, server, ADMITTED)
            elif admitted.get(where, {}).get(site) != digest:
                found_text = f"input {shown(digest)} of {shown(site)}"
                raise Refuted(str(entry), found_text, "an answer that was admitted")
    return found


def _compare_counts(
    logs: Logs,
    released: Mapping[str, Mapping[tuple[str, int], Sequence[_Answer]]],
    found: DoubleEntry,
) -> None:
    for entry in told(SERVER, logs[SERVER], EVALUATED):
        if "answers" not in entry.body:  # an examination of the coordinator's own
            continue
        for key, kind in (("run", str), ("round", int)):
            entry.get(key, kind)
        for site, digest in _texts(entry, "answers").items():
            if site not in released:
                found.absent.add(site)
            elif _stands(entry, site, digest, released[site], logs[site], found):
                found.matched += 1


def _released(site: str, log: CheckedLog) -> dict[tuple[str, int], list[_Answer]]:
    found: dict[tuple[str, int], list[_Answer]] = {}
    for entry in told(site, log, RELEASED):
        where = (entry.get("run", str), entry.get("round", int))
        found.setdefault(where, []).append(_Answer(entry.get("digest", str), entry))
    return found


def _stands(
    entry: Told,
    site: str,
    digest: str,
    released: Mapping[tuple[str, int], Sequence[_Answer]],
    log: CheckedLog,
    found: DoubleEntry,
) -> bool:
    answers = released.get((entry.body["run"], entry.body["round"]), ())
    same = next((answer for answer in answers if answer.digest == digest), None)
    if same is not None:
        _check_order(entry, site, same)
        return True
    if _closed(log, RELEASED, entry.body["run"]):
        _count_closed(found, log, RELEASED)
        return False
    what = f"round {entry.body['round']} of {shown(site)}"
    other = ", ".join(shown(answer.digest) for answer in answers) or "no answer"
    raise Refuted(what, f"{other} in the site's log", f"{shown(digest)}, as in {entry}")


def _check_order(entry: Told, site: str, answer: _Answer) -> None:
    """The answer stood in the site's log when it left: below the head that came with it."""
    heads = entry.body.get("checkpoints")
    if isinstance(heads, dict) and heads.get(site) is not None:
        size = _head(entry, heads[site]).size
        if answer.entry.place >= size:
            expected = f"below {size}, the size of the log that came with the answer"
            raise Refuted(str(answer.entry), f"index {answer.entry.place}", expected)


def _closed(log: CheckedLog, type: str, run: str) -> bool:
    return any(
        leaf.body is None and leaf.header.type == type and leaf.header.run == run
        for leaf in log.entries
    )


def _count_closed(found: DoubleEntry, log: CheckedLog, type: str) -> None:
    """Erased under a rule is another thing than kept back: the log says so after the fact."""
    last = max(i for i, e in enumerate(log.entries) if e.body is None and e.header.type == type)
    if any(leaf.header.type == ERASED for leaf in log.entries[last:]):
        found.erased += 1
    else:
        found.closed += 1


def _texts(entry: Told, key: str) -> dict[str, str]:
    found: dict[str, str] = entry.get(key, dict)
    for name, text in found.items():
        if type(text) is not str:
            what = f"{entry}, {key} of {shown(name)}"
            raise Malformed(what, f"a value of type {type(text).__name__}", "a digest")
    return found


# Heads that others kept: a log that was rolled back or rewritten contradicts their memory.


class KeptHead(NamedTuple):
    """A head of the log `origin` that another party holds, where, and signed if it kept that."""

    holder: str
    where: str
    origin: str
    head: Head
    note: Note | None


def kept_heads(logs: Logs) -> dict[str, list[KeptHead]]:
    """Every head of a log that another of these logs tells of, by the origin of the former."""
    by_origin: dict[str, list[KeptHead]] = {}
    for kept in (*_in_memory(logs), *_with_answers(logs)):
        by_origin.setdefault(kept.origin, []).append(kept)
    return by_origin


def _in_memory(logs: Logs) -> Iterator[KeptHead]:
    for party, log in logs.items():
        for seen in log.seen:
            yield KeptHead(party, "its memory", seen.origin, seen.head, seen.note)
        for entry in told(party, log, WITNESSED):
            for head in entry.get("heads", list):
                origin = head.get("origin") if isinstance(head, dict) else None
                if not isinstance(origin, str):
                    raise Malformed(f"{entry}, heads", "one without origin", "origin, size, root")
                yield KeptHead(party, str(entry), origin, _head(entry, head), None)


def _with_answers(logs: Logs) -> Iterator[KeptHead]:
    if SERVER not in logs:
        return
    server = logs[SERVER]
    for entry in told(SERVER, server, ADMITTED):
        heads = entry.body.get("checkpoints")
        for site, head in heads.items() if isinstance(heads, dict) else ():
            if site in logs and head is not None:
                yield KeptHead(SERVER, str(entry), logs[site].origin, _head(entry, head), None)
    # A site's log may tell of other runs, which another server's log belongs to.
    runs = {leaf.header.run for leaf in server.entries} - {None}
    for site in logs.keys() - {SERVER}:
        for entry in told(site, logs[site], RELEASED):
            head = entry.body.get("asked_at")
            if head is not None and entry.body.get("run") in runs:
                yield KeptHead(site, str(entry), server.origin, _head(entry, head), None)


def _head(entry: Told, head: Any) -> Head:
    what = f"{entry}, a head"
    try:
        size, root = head["size"], bytes.fromhex(head["root"])
        if type(size) is not int:
            raise TypeError
    except (KeyError, TypeError, ValueError):
        raise Malformed(what, "another shape", "a size and a root in hex") from None
    return Head(checked_number(size, what), checked_digest(root, what))


def check_kept_heads(log: CheckedLog, kept: Sequence[KeptHead]) -> int:
    """How many heads of this log others hold, all of which are of its own history.

    `Refuted` says who holds the one that is not, and whether this log's key signed it: then that
    party has in its hands the proof that the log had two histories.
    """
    for holder, where, origin, head, note in kept:
        whose = f"{head.size} entries with root {head.root.hex()}, which {holder} holds in {where}"
        if note is not None:
            try:
                note.verify([log.key])
            except Refuted:
                found = f"a head of {origin} that {log.key} did not sign"
                raise Refuted(f"{where} of {holder}", found, "one that it signed") from None
            whose = f"{whose}, signed by this log's key: the proof"
        check_continues(log, head, whose)
    return len(kept)


def check_continues(log: CheckedLog, head: Head, whose: str) -> None:
    """Raises `Refuted` unless the log goes on from `head`; `whose` says who holds what."""
    what = f"log of {shown(log.party)}"
    if head.size > log.tree.size:
        raise Refuted(what, f"{log.tree.size} entries, a roll-back", whose)
    if log.tree.root(head.size) != head.root:
        root = log.tree.root(head.size).hex()
        found = f"root {root} over its first {head.size} entries, another history"
        raise Refuted(what, found, whose)


# Keys: who enrolled whom, and no key for two purposes.


def check_keys(logs: Logs) -> int:
    """How many statements of one party about another's keys are true of the logs at hand.

    `Refuted` where a party was enrolled with another key than its log has, where a cosigner's key
    is not that party's own, or where one key signs a log and cosigns: an Ed25519 cosignature does
    not bind its cosigner's name (tlog-cosignature, Ed25519 signed message).
    """
    signs = {log.key.public: party for party, log in logs.items()}
    cosigns = {f"{log.origin}/witness": (party, log.witnesses) for party, log in logs.items()}
    for party, log in logs.items():
        by_policy = () if log.policy is None else tuple(w.key for w in log.policy.witnesses)
        for key in (*log.witnesses, *by_policy):
            what = f"key {key} in the log of {shown(party)}"
            if key.public in signs:
                other = shown(signs[key.public])
                raise Refuted(what, f"the key that signs the log of {other}", "two keys")
            whose, theirs = cosigns.get(key.name, ("", ()))
            if theirs and key not in theirs:
                raise Refuted(
                    what, f"a key that the log of {shown(whose)} does not name", "its own"
                )
    statements = 0
    for (_, name), (entry, peer) in _enrolled(logs).items():
        vkey = peer.get("vkey") if isinstance(peer, dict) else None
        if name in logs:
            statements += 1
            if vkey != logs[name].key.text():
                expected = f"{logs[name].key}, which signs its log here"
                raise Refuted(str(entry), f"key {shown(str(vkey))} of {shown(name)}", expected)
    return statements


def _enrolled(logs: Logs) -> dict[tuple[str, str], tuple[Told, Any]]:
    """What each party said last of another's keys.

    A server has a log and a key for each run, a hospital one log for all its runs: of the server,
    what was said for a run of the log at hand goes before what was said for others.
    """
    started = told(SERVER, logs[SERVER], STARTED) if SERVER in logs else ()
    runs = {str(entry.body.get("run")) for entry in started}
    newest: dict[tuple[str, str], tuple[Told, Any]] = {}
    for party, log in logs.items():
        for entry in told(party, log, ENROLLED):
            peers = entry.body.get("peers")
            if "vkey" in entry.body:
                newest[party, str(entry.body.get("party"))] = (entry, entry.body)
            for name, peer in peers.items() if isinstance(peers, dict) else ():
                before = newest.get((party, name))
                of_another_run = str(entry.body.get("run")) not in runs
                known = before is not None and str(before[0].body.get("run")) in runs
                if not (name == SERVER and known and of_another_run):
                    newest[party, name] = (entry, peer)
    return newest
