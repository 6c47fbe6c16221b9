"""Checks one party's log: every leaf, the tree over them, every checkpoint, who cosigned which."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedkd.audit.verify.checkpoints import Checkpoint
from fedkd.audit.verify.cosignatures import Head
from fedkd.audit.verify.leaves import Leaf, open_leaf
from fedkd.audit.verify.merkle import Range, Tree, leaf_hash, node_hash
from fedkd.audit.verify.notes import DASH, Algorithm, Note, Signature, VerifierKey
from fedkd.audit.verify.policies import TrustPolicy
from fedkd.audit.verify.reading import StoredLog, read_log
from fedkd.audit.verify.refusals import Malformed, Refuted
from fedkd.audit.verify.spellings import base64_text, shown, utf8

MOST_SIGNATURES: Final = 1_000
"""Of a longer log only so many checkpoints' signatures are verified, newest first, unless all are
asked for. What is relied upon is always verified: the newest checkpoint, those that cosigners
signed, and those that an auditor kept. Every checkpoint's text is compared in any case."""


@dataclass(frozen=True, slots=True)
class SeenHead:
    """The newest checkpoint of another log that a party cosigned, as that log signed it."""

    origin: str
    head: Head
    note: Note


@dataclass(frozen=True, slots=True)
class CheckedLog:
    """A log that holds together.

    `key` is the one that it was checked with; `own_key` says that this key came out of the log
    itself, which proves that the log is consistent, and not whose it is. `notes` are its signed
    checkpoints, of size 1 first; `signed` says of how many the signature was verified.
    `cosignatures` are by size and not verified yet: whose keys count is for a policy to say.
    `policy` and `witnesses` are what the log itself says of its cosigners' and its party's keys.
    """

    origin: str
    root: bytes
    entries: tuple[Leaf, ...]
    key: VerifierKey
    own_key: bool
    tree: Tree = field(default_factory=Tree, repr=False, compare=False)
    notes: tuple[bytes, ...] = field(default=(), repr=False)
    signed: int = 0
    cosignatures: Mapping[int, tuple[Signature, ...]] = field(default_factory=dict, repr=False)
    seen: tuple[SeenHead, ...] = ()
    policy: TrustPolicy | None = None
    policy_text: bytes | None = None
    witnesses: tuple[VerifierKey, ...] = ()

    @property
    def verdict(self) -> str:
        """CONSISTENT for a key from the bundle, VERIFIED for the auditor's own."""
        return "CONSISTENT" if self.own_key else "VERIFIED"

    @property
    def party(self) -> str:
        """Who keeps the log, as its entries say."""
        return self.entries[0].header.actor

    @property
    def closed(self) -> int:
        """How many bodies are closed or erased: of those the header alone was read."""
        return sum(leaf.body is None for leaf in self.entries)

    def bodies(self, type: str) -> list[Mapping[str, Any]]:
        """The open bodies of one type of event, in order."""
        of_type = [leaf.body for leaf in self.entries if leaf.header.type == type]
        return [body for body in of_type if body is not None]

    def head(self, size: int) -> Note:
        """The checkpoint of `size` with the log's signature and every cosignature at hand."""
        note = Note.parse(self.notes[size - 1])
        if note.text != _text(self.origin, size, self.tree.root(size)):
            raise Malformed(f"checkpoint of size {size}", "more than its text", "three lines")
        return note.with_signatures(self.cosignatures.get(size, ()))


def check_log(
    path: Path, key: VerifierKey | None = None, *, every_signature: bool = False
) -> CheckedLog:
    """The log in the SQLite file `path`, checked; `Refuted` says which entry, and why.

    The file is opened for reading alone and stays as it is, byte for byte. With `key` None the
    key is taken from the log itself.
    """
    return checked(read_log(path), key, every_signature=every_signature)


def origin_of(stored: StoredLog) -> str | None:
    """The origin that the newest checkpoint names, to find the policy for it; None if none."""
    if not stored.checkpoints:
        return None
    return Note.parse(stored.checkpoints[-1][1]).checkpoint().origin


def checked(
    stored: StoredLog, key: VerifierKey | None = None, *, every_signature: bool = False
) -> CheckedLog:
    """The log, once all that it can show by itself has been checked."""
    told = stored.facts.get("vkey")
    if key is None and told is None:
        raise Refuted("log", "no key", "the key that signs it")
    own = None if told is None else VerifierKey.parse(utf8(told, "key"))
    if key is not None and own is not None and own != key:
        raise Refuted("log", f"key {own}", f"key {key}, which the policy names")
    used = key or own
    assert used is not None  # noqa: S101 - one of the two is there
    if not stored.entries:
        raise Refuted("log", "no entry", "log.opened and what followed")
    _check_places(stored)
    # First what was signed, then what it says: a leaf that was changed is no leaf to be read.
    digests = [leaf_hash(row[4]) for row in stored.entries]
    tree = Tree(digests)
    most = tree.size if every_signature else MOST_SIGNATURES
    signed = _check_notes(zip(stored.checkpoints, _roots(digests), strict=True), tree, used, most)
    _check_nodes(stored, tree)
    entries = _entries(stored)
    policy = stored.facts.get("policy")
    return CheckedLog(
        used.name,
        tree.root(),
        entries,
        used,
        own_key=key is None,
        tree=tree,
        notes=tuple(note for _, note in stored.checkpoints),
        signed=signed,
        cosignatures=_cosignatures(stored.cosignatures, tree.size),
        seen=tuple(_seen(row) for row in stored.seen),
        policy=None if policy is None else own_policy(policy, used),
        policy_text=policy,
        witnesses=_witnesses(stored.facts.get("witness", b""), used),
    )


def _check_places(stored: StoredLog) -> None:
    for index, row in enumerate(stored.entries):
        if row[0] != index:
            raise Refuted(f"entry {index}", f"a row in place {row[0]}", f"one in place {index}")
    sizes = [size for size, _ in stored.checkpoints]
    if sizes != list(range(1, len(stored.entries) + 1)):
        missing = next((at for at, size in enumerate(sizes, 1) if size != at), None)
        found = f"{len(sizes)} checkpoints" + (f", none of size {missing}" if missing else "")
        raise Refuted("log", found, f"one for each of its {len(stored.entries)} entries")


def _entries(stored: StoredLog) -> tuple[Leaf, ...]:
    entries = tuple(_entry(index, row) for index, row in enumerate(stored.entries))
    keys: set[str | None] = set()
    for index, leaf in enumerate(entries):
        if leaf.header.key in keys:  # doing something again finds its entry: so says the format
            found = f"key {shown(str(leaf.header.key))} again"
            raise Refuted(f"entry {index}", found, "a key that no earlier entry has")
        keys.add(leaf.header.key)
        if leaf.header.actor != entries[0].header.actor:
            expected = f"{shown(entries[0].header.actor)}, as in entry 0"
            raise Refuted(f"entry {index}", f"party {shown(leaf.header.actor)}", expected)
    return entries


def _entry(index: int, row: Any) -> Leaf:
    place, key, type_, at, leaf, salt, body = row
    try:
        opened = open_leaf(leaf, None if body is None else body.encode(), salt)
    except Malformed as error:
        # A leaf that cannot be read does not know its own number.
        raise Malformed(f"entry {index}, {error.what}", error.found, error.expected) from None
    header = opened.header
    told = (header.sequence, header.key, header.type, header.time)
    if (place, key, type_, at) != told:
        found = f"a row {shown(str((place, key, type_, at)))}"
        raise Refuted(f"entry {index}", found, f"{shown(str(told))}, as in its leaf")
    return opened


def _text(origin: str, size: int, root: bytes) -> str:
    return f"{origin}\n{size}\n{base64_text(root)}\n"


def _check_notes(
    notes: Iterable[tuple[Any, bytes]], tree: Tree, key: VerifierKey, most: int
) -> int:
    """Compares every checkpoint's text with its root; verifies the newest `most` signatures."""
    behind = f"\n{DASH}{key.name} "
    first_signed = tree.size - most
    for (size, content), root in notes:
        text = _text(key.name, size, root)
        if not content.startswith((text + behind).encode()):
            _explain(content, size, tree, key)
        if size > first_signed:
            note = Note.parse(content)
            if note.text != text:
                raise Malformed(f"checkpoint of size {size}", "more than its text", "three lines")
            note.verify([key])
    return min(most, tree.size)


def _roots(leaf_digests: Iterable[bytes]) -> Iterator[bytes]:
    """The root of every size from 1 on: thrice as fast as asking the tree for each."""
    peaks: list[bytes] = []
    for index, leaf_digest in enumerate(leaf_digests):
        root, completed = leaf_digest, index
        while completed & 1:
            root = node_hash(peaks.pop(), root)
            completed >>= 1
        joined = root
        for peak in reversed(peaks):
            joined = node_hash(peak, joined)
        peaks.append(root)
        yield joined


def _explain(content: bytes, size: int, tree: Tree, key: VerifierKey) -> None:
    what = f"checkpoint of size {size}"
    note = Note.parse(content)
    found = note.checkpoint()
    if found.origin != key.name:
        raise Refuted(what, f"origin {shown(found.origin)}", key.name)
    if found.size != size:
        raise Refuted(what, f"size {found.size}", f"size {size}")
    if found.root != tree.root(size):
        # All smaller checkpoints agreed, so that the last entry under this one is the first that
        # does not.
        expected = f"{found.root.hex()}, which its checkpoint signed"
        raise Refuted(f"entry {size - 1}", f"root {tree.root(size).hex()} with it", expected)
    if note.text != Checkpoint(key.name, size, found.root).text():
        raise Refuted(what, "more than origin, size and root", "three lines")
    note.verify([key])
    raise Refuted(what, f"a first signature by {note.signatures[0].name}", f"one by {key}")


def _check_nodes(stored: StoredLog, tree: Tree) -> None:
    """What the log's owner goes on from: a wrong digest here would become a fork of his own.

    They may stop short of the newest entries, which tell the rest; `range` says where.
    """
    kept = stored.facts.get("range", b"")
    size = Range.from_bytes(kept).size
    if size > tree.size or kept != tree.peaks(size).to_bytes():
        raise Refuted("range", "another one, or none", f"that of the {tree.size} entries")
    for level, index, digest in stored.nodes:
        if not (0 <= level < size.bit_length() and 0 <= index < size >> level):
            raise Refuted("nodes", f"one at level {level}, place {index}", f"those of {size}")
        if tree.node(level, index) != digest:
            found = f"another digest at level {level}, place {index}"
            raise Refuted("nodes", found, "the one that the entries give")
    expected = 2 * size - size.bit_count()
    if len({(level, index) for level, index, _ in stored.nodes}) != expected:
        raise Refuted("nodes", f"{len(stored.nodes)}", f"{expected} for {size} entries")


def _cosignatures(rows: Iterable[Any], most: int) -> dict[int, tuple[Signature, ...]]:
    found: dict[int, tuple[Signature, ...]] = {}
    for size, cosigner, line, at in rows:
        what = f"cosignature of size {size} by {shown(cosigner)}"
        if not 1 <= size <= most:
            raise Refuted(what, f"a log of {most} entries", f"{size}, which were cosigned")
        signature = Signature.parse(utf8(line, what))
        if f"{signature.name}+{signature.key_id.hex()}" != cosigner:
            raise Refuted(what, f"a line by {signature.name}", "one by its cosigner")
        if int.from_bytes(signature.content[:8], "big") != at:
            raise Refuted(what, f"time {at}", "the time in its line")
        found[size] = (*found.get(size, ()), signature)
    return found


def _seen(row: Any) -> SeenHead:
    origin, size, root, content = row
    what = f"checkpoint of {shown(origin)} that was cosigned"
    note = Note.parse(content)
    head = note.checkpoint()
    if (head.origin, head.size, head.root) != (origin, size, root):
        raise Refuted(what, f"size {size}, root {root.hex()}", f"what its note says: {head}")
    return SeenHead(origin, Head(size, root), note)


def own_policy(content: bytes, key: VerifierKey) -> TrustPolicy:
    """The policy that came with a log, which must be about that log and no other."""
    policy = TrustPolicy.parse(content)
    if [log.key for log in policy.logs] != [key]:
        found = ", ".join(str(log.key) for log in policy.logs) or "no log"
        raise Refuted("policy in the log", shown(found), f"{key}, which signs this log")
    return policy


def _witnesses(content: bytes, key: VerifierKey) -> tuple[VerifierKey, ...]:
    lines = utf8(content, "witness keys").splitlines()
    witnesses = tuple(map(VerifierKey.parse, lines))
    for witness in witnesses:
        if witness.algorithm is Algorithm.ED25519:
            raise Malformed(f"witness key {witness}", "a log's key", "a key of type 0x04 or 0x06")
        if witness.public == key.public:
            raise Refuted("keys", f"one key as log and witness {witness}", "two keys")
    return witnesses
