"""Reads an evidence bundle: each party's log, whole as headers, with the bodies that were opened.

| key | what |
| --- | --- |
| `format` | of the bundle |
| `catalogue` | id and digest of the fields and sentences |
| `logs` | by party: `vkey`, `head` (signed note), `cosigned` (the newest note that meets the |
| | policy, or null), `policy`, `witnesses`, `seen`, `leaves`, and `open`: body and salt by index |
| `statements`, `fields` | what is claimed: derived again by whoever reads |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fedkd.audit.verify import (
    CannotTell,
    Header,
    Note,
    Refuted,
    Tree,
    TrustPolicy,
    VerifierKey,
    leaf_hash,
    open_leaf,
    parsed,
)
from fedkd.audit.verify.agreement import SERVER
from fedkd.audit.verify.canonical import canonical
from fedkd.audit.verify.cosignatures import Head
from fedkd.audit.verify.leaves import Leaf
from fedkd.audit.verify.logs import CheckedLog, SeenHead, own_policy
from fedkd.audit.verify.refusals import ODD
from fedkd.audit.verify.spellings import base64_bytes, shown

FORMAT: Final = "fedkd-evidence/1"
_REHEARSAL: Final = "fedkd.invalid/rehearsal/"


@dataclass(frozen=True, slots=True)
class Told:
    """An entry as it stands in the evidence: `body` None where it is kept back or erased."""

    party: str
    index: int
    type: str
    time: str
    run: str | None
    body: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Book:
    """One party's log in the evidence: what it says, and whether that can be believed.

    `error` says why it cannot; then `log` is None. `cosigned` is the size that enough cosigners
    signed, 0 where none, by the policy of whoever reads; `beyond` is how many entries lie beyond
    the one that enough signed by the log's own policy, None where that asks for no cosigners.
    """

    party: str
    entries: tuple[Told, ...]
    error: Refuted | CannotTell | None
    log: CheckedLog | None
    cosigned: int
    quorum: str
    beyond: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """All books of a bundle; `claimed` is the bundle itself, of which nothing is believed yet."""

    books: Mapping[str, Book]
    claimed: Mapping[str, Any]

    def told(self, type: str, party: str | None = None) -> list[Told]:
        """The entries of one type: of one party, or of all, the server's first, in order."""
        if party is None:
            books = [self.books[name] for name in sorted(self.books, key=_server_first)]
        else:
            books = [self.books[party]] if party in self.books else []
        return [entry for book in books for entry in book.entries if entry.type == type]

    @property
    def sites(self) -> tuple[str, ...]:
        """The parties that are no server, sorted."""
        return tuple(sorted(self.books.keys() - {SERVER}))

    @property
    def alone(self) -> bool:
        """Whether it is hospitals' own: no log of the server is among it."""
        return SERVER not in self.books

    @property
    def run(self) -> str:
        """The run that this is about: the server's newest; of a site alone, the newest named."""
        started = [entry.run for entry in self.told("run.started", SERVER) if entry.run]
        named = [
            (entry.time, entry.run)
            for book in self.books.values()
            for entry in book.entries
            if entry.run is not None
        ]
        return started[-1] if started else max(named, default=("", ""))[1]

    @property
    def model(self) -> str | None:
        """The digest of the newest student, if its entry is open."""
        made = [entry.body for entry in self.told("student.updated", SERVER)]
        output = made[-1].get("output") if made and made[-1] is not None else None
        return output if isinstance(output, str) else None

    @property
    def rehearsal(self) -> bool:
        """Whether this is a simulation: unless each party says openly that it is no rehearsal."""
        says_so = {
            entry.party
            for entry in self.told("log.opened")
            if entry.body is not None and entry.body.get("rehearsal") is False
        }
        keys = [str(self.claimed["logs"][party].get("vkey")) for party in self.books]
        return says_so != self.books.keys() or any(key.startswith(_REHEARSAL) for key in keys)


def _server_first(party: str) -> tuple[bool, str]:
    return party != SERVER, party


def read_evidence(content: bytes, policies: Mapping[str, TrustPolicy] | None = None) -> Evidence:
    """The evidence that `content` (canonical JSON) holds, every log checked.

    With `policies` (by party, the auditor's own) keys and cosigners are those; otherwise they are
    taken from the bundle. Raises `Refuted` where it is no bundle, `CannotTell` where it is of
    another format; a log that does not hold is told by its book.
    """
    told = parsed(content, "evidence")
    if not isinstance(told, dict) or not isinstance(told.get("format"), str):
        raise Refuted("evidence", "no format", FORMAT)
    if told["format"] != FORMAT:
        raise CannotTell(f"evidence: found format {shown(told['format'])}, expected {FORMAT}")
    logs = told.get("logs")
    if not isinstance(logs, dict) or not logs:
        raise Refuted("evidence", "no logs", "the log of each party")
    books = {}
    for party, log in sorted(logs.items()):
        policy = None if policies is None else policies.get(party)
        if policies is not None and policy is None:
            raise CannotTell(f"log of {shown(party)}: found no policy of yours for it")
        books[party] = _book(party, log, policy)
    return Evidence(books, told)


def _book(party: str, told: Any, policy: TrustPolicy | None) -> Book:
    try:
        entries = _entries(party, told)
    except ODD as error:
        return Book(party, (), _named(party, error), None, 0, "")
    try:
        log, cosigned, quorum = _checked(party, told, policy)
        return Book(party, entries, None, log, cosigned, quorum, _beyond(log, told))
    except ODD as error:
        return Book(party, entries, _named(party, error), None, 0, "")


def _named(party: str, error: Exception) -> Refuted | CannotTell:
    where = f"log of {shown(party)}"
    if isinstance(error, CannotTell):
        return CannotTell(f"{where}: {error}")
    if isinstance(error, Refuted):
        return Refuted(f"{where}, {error.what}", error.found, error.expected)
    return Refuted(where, f"another shape ({type(error).__name__})", f"a log as {FORMAT} has it")


def _entries(party: str, told: Mapping[str, Any]) -> tuple[Told, ...]:
    """What the log says, as far as each body is what its leaf commits to."""
    entries = []
    for index, leaf in enumerate(told["leaves"]):
        header = Header.parse(leaf.encode())
        try:
            body = _opened(told, index, leaf).body
        except (Refuted, KeyError, TypeError):
            body = None
        entries.append(Told(party, index, header.type, header.time, header.run, body))
    return tuple(entries)


def _opened(told: Mapping[str, Any], index: int, leaf: str) -> Leaf:
    opened = told["open"].get(str(index))
    if opened is None:
        return open_leaf(leaf.encode())
    return open_leaf(
        leaf.encode(), canonical(opened["body"], "body"), base64_bytes(opened["salt"], "salt")
    )


def _checked(
    party: str, told: Mapping[str, Any], policy: TrustPolicy | None
) -> tuple[CheckedLog, int, str]:
    head = Note.parse(told["head"].encode())
    own = VerifierKey.parse(told["vkey"])
    key = own
    if policy is not None:
        known = {log.key.name: log.key for log in policy.logs}
        if own.name not in known or known[own.name] != own:
            raise Refuted("key", str(own), "the key of this log in your policy")
        key = known[own.name]
    head.verify([key])
    tree = Tree([leaf_hash(leaf.encode()) for leaf in told["leaves"]])
    checkpoint = head.checkpoint()
    if (checkpoint.origin, checkpoint.size) != (key.name, tree.size):
        found = f"{tree.size} entries of {key.name}"
        raise Refuted("entries", found, f"{checkpoint.size} of {checkpoint.origin}, as signed")
    if checkpoint.root != tree.root():
        found = f"root {tree.root().hex()}"
        raise Refuted("entries", found, f"root {checkpoint.root.hex()}, as signed")
    stray = told["open"].keys() - {str(index) for index in range(tree.size)}
    if stray:
        raise Refuted("bodies", f"one for entry {shown(min(stray))}", "for entries of the log")
    leaves = tuple(_opened(told, index, leaf) for index, leaf in enumerate(told["leaves"]))
    for index, leaf in enumerate(leaves):
        if leaf.header.sequence != index:
            raise Refuted(f"entry {index}", f"sequence {leaf.header.sequence}", f"{index}")
    if leaves and leaves[0].header.actor != party:
        raise Refuted("party", leaves[0].header.actor, party)
    text = told.get("policy")
    named = None if text is None else own_policy(text.encode(), key)
    used = policy or named
    size, quorum = _quorum(told, used, tree)
    if policy is not None and policy.needs_cosigners and not size:
        raise Refuted("cosignatures", quorum, "as many as your policy asks for")
    log = CheckedLog(
        key.name,
        tree.root(),
        leaves,
        key,
        own_key=policy is None,
        tree=tree,
        signed=1,
        seen=tuple(_seen(note) for note in told["seen"]),
        policy=named,
        policy_text=None if text is None else text.encode(),
        witnesses=tuple(map(VerifierKey.parse, told["witnesses"])),
    )
    return log, size, quorum


def _quorum(told: Mapping[str, Any], policy: TrustPolicy | None, tree: Tree) -> tuple[int, str]:
    if policy is None:
        return 0, "says nothing of cosigners"
    if not policy.needs_cosigners:
        return 0, "has no cosigners"
    if told.get("cosigned") is None:
        return 0, "no head that enough cosigners signed"
    note = Note.parse(told["cosigned"].encode())
    checkpoint = note.checkpoint()
    if checkpoint.size > tree.size or tree.root(checkpoint.size) != checkpoint.root:
        found = f"root {checkpoint.root.hex()} over {checkpoint.size} entries, cosigned"
        raise Refuted("entries", "another history", found)
    by = policy.witnessed(note).cosigned
    return checkpoint.size, f"cosigned to entry {checkpoint.size} of {tree.size} by {len(by)}"


def _beyond(log: CheckedLog, told: Mapping[str, Any]) -> int | None:
    """By the log's own policy, whoever reads: a paper is drawn from it, and must stay the same."""
    if log.policy is None or not log.policy.needs_cosigners:
        return None
    size, _ = _quorum(told, log.policy, log.tree)
    return log.tree.size - size


def _seen(text: str) -> SeenHead:
    note = Note.parse(text.encode())
    checkpoint = note.checkpoint()
    return SeenHead(checkpoint.origin, Head(checkpoint.size, checkpoint.root), note)
