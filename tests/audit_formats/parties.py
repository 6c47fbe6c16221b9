"""Small logs and their keys, made of fixed seeds: every test starts from the same bytes."""

import hashlib

from fedkd.audit.verify import Algorithm, Checkpoint, Note, SigningKey, Tree, cosign, leaf_hash

ORIGIN = "fedkd.example/h1"
NOW = 1_795_500_000
LOG_TYPE, WITNESS_TYPE = Algorithm.ED25519, Algorithm.COSIGNATURE


def seed(name: str) -> bytes:
    return hashlib.sha256(f"published test key {name}".encode()).digest()


def key(name: str, algorithm: Algorithm = LOG_TYPE) -> SigningKey:
    return SigningKey(name, algorithm, seed(f"{name}/{algorithm}"))


LOG = key(ORIGIN)
WITNESSES = tuple(key(f"fedkd.example/w{n}", WITNESS_TYPE) for n in range(3))


def leaves(count: int, of: str = "entry") -> list[bytes]:
    return [f"{of} {n}".encode() for n in range(count)]


def tree(count: int, of: str = "entry") -> Tree:
    return Tree(map(leaf_hash, leaves(count, of)))


def head(count: int, of: str = "entry", origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, count, tree(count, of).root())


def signed(checkpoint: Checkpoint, by: SigningKey = LOG, cosigners: int = 0) -> Note:
    text = checkpoint.text()
    lines = [by.sign(text), *(cosign(w, checkpoint, NOW) for w in WITNESSES[:cosigners])]
    return Note(text, tuple(lines))


def note(count: int, cosigners: int = 0, of: str = "entry") -> Note:
    return signed(head(count, of), cosigners=cosigners)


def flipped(content: bytes, place: int, bit: int = 0) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
