"""Parties with published keys, their small logs, and how a case is written down."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fedkd.audit.verify import (
    Algorithm,
    Checkpoint,
    Note,
    SigningKey,
    Tree,
    cosign,
    leaf_hash,
    make_leaf,
)

RUN = "vector-run"
STARTED = 1_767_225_600
"""2026-01-01T00:00:00Z, in seconds since 1970."""

Case = dict[str, Any]
Body = Mapping[str, Any]


def constant(sentence: str) -> bytes:
    """32 bytes that anybody can make again."""
    return hashlib.sha256(sentence.encode()).digest()


def digest(sentence: str) -> str:
    """A digest as bodies spell it."""
    return "sha256:" + constant(sentence).hex()


def time_of(second: int) -> str:
    """A time of the first minute of 2026."""
    return f"2026-01-01T00:00:{second:02d}.000Z"


@dataclass(frozen=True)
class Party:
    """A party with its two keys: `number` and `number + 1` of the published constants."""

    name: str
    number: int

    @property
    def origin(self) -> str:
        """What its log is named by, for ever."""
        return f"fedkd.invalid/{self.name}/{constant(f'fedkd vector origin {self.name}').hex()[:8]}"

    @property
    def log(self) -> SigningKey:
        """The key that signs its log."""
        return SigningKey(self.origin, Algorithm.ED25519, constant(self.sentences[0]))

    @property
    def witness(self) -> SigningKey:
        """The key that cosigns other logs."""
        seed = constant(self.sentences[1])
        return SigningKey(f"{self.origin}/witness", Algorithm.COSIGNATURE, seed)

    @property
    def sentences(self) -> tuple[str, str]:
        """What its keys are the SHA-256 of."""
        return f"fedkd vector key {self.number}", f"fedkd vector key {self.number + 1}"


SERVER, ONE, TWO, THREE = (
    Party(name, 2 * place + 1)
    for place, name in enumerate(("server", "site-01", "site-02", "site-03"))
)
PARTIES = (SERVER, ONE, TWO, THREE)
COSIGNERS = {party.name: party.witness.verifier() for party in (ONE, TWO, THREE)}


@dataclass
class SmallLog:
    """A party's log in memory: leaves, bodies with their salts, the tree."""

    party: Party
    leaves: list[bytes] = field(default_factory=list)
    bodies: list[tuple[bytes, bytes]] = field(default_factory=list)
    tree: Tree = field(default_factory=Tree)

    def append(self, key: str, type: str, body: Body) -> None:
        """One entry more, at a second of its own."""
        index = len(self.leaves)
        salt = constant(f"fedkd vector salt {self.party.name} {index}")
        leaf, written = make_leaf(
            body, salt, type=type, sequence=index, time=time_of(index), actor=self.party.name,
            run=body.get("run"), key=key,
        )  # fmt: skip
        self.leaves.append(leaf)
        self.bodies.append((written, salt))
        self.tree.append(leaf_hash(leaf))

    def take(self, other: "SmallLog", index: int) -> None:
        """An entry as it stands in another log."""
        self.leaves.append(other.leaves[index])
        self.bodies.append(other.bodies[index])
        self.tree.append(leaf_hash(other.leaves[index]))

    def head(self, size: int | None = None) -> dict[str, Any]:
        """Size and root as bodies name them."""
        size = len(self.leaves) if size is None else size
        return {"size": size, "root": self.tree.root(size).hex()}

    def note(self, cosigners: Iterable[Party] = (), size: int | None = None) -> Note:
        """The signed checkpoint of `size`, cosigned a second apart."""
        size = len(self.leaves) if size is None else size
        head = Checkpoint(self.party.origin, size, self.tree.root(size))
        return signed(self.party, head, cosigners)

    def plain(self, closed: Iterable[int] = ()) -> Case:
        """All of it, as a vector; of the entries in `closed` without body and salt."""
        entries: list[Case] = [
            {"leaf": leaf.decode(), "body": body.decode(), "salt_hex": salt.hex()}
            for leaf, (body, salt) in zip(self.leaves, self.bodies, strict=True)
        ]
        for index in closed:
            entries[index] = {"leaf": entries[index]["leaf"]}
        sizes = range(1, len(self.leaves) + 1)
        return {
            "vkey": self.party.log.verifier().text(),
            "checkpoints": [self.note(size=size).to_bytes().decode() for size in sizes],
            "entries": entries,
        }


def signed(party: Party, checkpoint: Checkpoint, cosigners: Iterable[Party] = ()) -> Note:
    """A checkpoint with its log's signature and those of `cosigners`."""
    text = checkpoint.text()
    lines = [party.log.sign(text)]
    lines += [
        cosign(one.witness, checkpoint, STARTED + 60 + late) for late, one in enumerate(cosigners)
    ]
    return Note(text, tuple(lines))


def plain_tree(count: int, of: str = "entry") -> Tree:
    """A tree over the leaves "entry 0", "entry 1", ..."""
    return Tree(leaf_hash(f"{of} {index}".encode()) for index in range(count))


def opened(party: Party) -> SmallLog:
    """A log with its first entry."""
    log = SmallLog(party)
    log.append("log.opened", "log.opened", {"party": party.name, "format": 3, "rehearsal": True})
    return log


def taken(name: str, given: Case, expect: Any) -> Case:
    """A case that a reader takes, and what it reads."""
    return {"id": name, "given": given, "expect": expect}


def refused(name: str, given: Case, reason: str) -> Case:
    """A case that a reader refuses, and why."""
    return {"id": name, "given": given, "refuse": reason}


def flipped_line(line: str, place: int) -> str:
    """A signature line with one bit of its `place`-th byte changed: key id, time, signature."""
    head, written = line.rstrip("\n").rsplit(" ", 1)
    content = bytearray(base64.b64decode(written))
    content[place] ^= 1
    return f"{head} {base64.b64encode(content).decode()}\n"
