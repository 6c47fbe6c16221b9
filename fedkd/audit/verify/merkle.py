"""The Merkle tree of RFC 6962: roots of leaves, with proofs of a leaf and of an older tree in it.

`Lookup` is how the functions that make a proof reach stored digests: given (level, index) it
returns the digest of the complete subtree over the leaves [index * 2^level, (index + 1) * 2^level).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from fedkd.audit.verify.refusals import Malformed, Refuted
from fedkd.audit.verify.spellings import DIGEST_BYTES, checked_digest, checked_number

Lookup = Callable[[int, int], bytes]

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""RFC 6962, 2.1: the hash of an empty list is the hash of an empty string."""
MOST_DIGESTS: Final = 63
"""No proof is longer in a tree of fewer than 2^63 leaves."""
_SIZE_BYTES: Final = 8


def leaf_hash(leaf: bytes) -> bytes:
    """The digest of one leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()  # RFC 6962, 2.1: 0x00 keeps leaves from nodes


def node_hash(left: bytes, right: bytes) -> bytes:
    """The digest of an inner node over its two children."""
    return hashlib.sha256(b"\x01" + left + right).digest()  # RFC 6962, 2.1


def tree_root(leaf_digests: Iterable[bytes]) -> bytes:
    """The root over all leaves at once.

    Pairs are joined level by level and an odd last one is carried up, which is RFC 6962's split at
    the largest power of two, seen from below.
    """
    level = list(leaf_digests)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        level = [node_hash(*pair) for pair in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]


@dataclass(frozen=True, slots=True)
class Node:
    """The digest of a complete subtree of 2^level leaves, the `index`-th of its level."""

    level: int
    index: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Range:
    """What must be kept of a tree to append to it and to tell its root: at most 64 digests.

    `digests` are the roots of the complete subtrees that the leaves divide into, largest first:
    one for each bit that is set in `size`.
    """

    size: int = 0
    digests: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        checked_number(self.size, "size of a tree")
        if len(self.digests) != self.size.bit_count():
            raise Malformed(
                f"range of {self.size} leaves",
                f"{len(self.digests)} digests",
                str(self.size.bit_count()),
            )
        for digest in self.digests:
            checked_digest(digest, f"range of {self.size} leaves")

    def appended(self, leaf_digest: bytes) -> tuple["Range", tuple[Node, ...]]:
        """The range with one leaf more, and the nodes that this leaf completes, itself first.

        Kept by (level, index), these nodes are all that a `Lookup` ever has to return.
        """
        digests = list(self.digests)
        nodes = [Node(0, self.size, leaf_digest)]
        while self.size >> (level := len(nodes) - 1) & 1:
            joined = node_hash(digests.pop(), nodes[-1].digest)
            nodes.append(Node(level + 1, self.size >> (level + 1), joined))
        return Range(self.size + 1, (*digests, nodes[-1].digest)), tuple(nodes)

    def root(self) -> bytes:
        """The root of the tree."""
        if not self.digests:
            return EMPTY_ROOT
        root = self.digests[-1]
        for digest in reversed(self.digests[:-1]):
            root = node_hash(digest, root)
        return root

    def to_bytes(self) -> bytes:
        """The size in 8 bytes, most significant first, then the digests."""
        return self.size.to_bytes(_SIZE_BYTES, "big") + b"".join(self.digests)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The inverse of `to_bytes`."""
        tail = content[_SIZE_BYTES:]
        if len(content) < _SIZE_BYTES or len(tail) % DIGEST_BYTES:
            raise Malformed("range", f"{len(content)} bytes", "8, and 32 for each digest")
        digests = tuple(tail[at : at + DIGEST_BYTES] for at in range(0, len(tail), DIGEST_BYTES))
        return cls(int.from_bytes(content[:_SIZE_BYTES], "big"), digests)


class Tree:
    """A whole tree in memory: 64 bytes a leaf, any root and any proof of any earlier size."""

    def __init__(self, leaf_digests: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]
        for digest in leaf_digests:
            self.append(digest)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    def append(self, leaf_digest: bytes) -> None:
        """Adds one leaf at the end."""
        level, digest = 0, checked_digest(leaf_digest, f"leaf {self.size}")
        self._levels[0].append(digest)
        while len(self._levels[level]) % 2 == 0:
            digest = node_hash(self._levels[level][-2], digest)
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(digest)

    def node(self, level: int, index: int) -> bytes:
        """The digest of a complete subtree: this tree as a `Lookup`."""
        if not 0 <= level < len(self._levels) or not 0 <= index < len(self._levels[level]):
            raise Refuted(f"tree of {self.size} leaves", "no such node", f"level {level}, {index}")
        return self._levels[level][index]

    def peaks(self, size: int) -> Range:
        """The roots of the complete subtrees over the first `size` leaves, largest first."""
        levels = [level for level in reversed(range(size.bit_length())) if size >> level & 1]
        return Range(size, tuple(self.node(level, (size >> level) - 1) for level in levels))

    def root(self, size: int | None = None) -> bytes:
        """The root, now or when there were `size` leaves."""
        # As `root` finds it, without a question for each node: every size may be asked for.
        found, left = b"", self._at(size)
        for level, nodes in enumerate(self._levels):
            if left >> level & 1:
                peak = nodes[(left >> level) - 1]
                found = node_hash(peak, found) if found else peak
        return found or EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """The proof that leaf `index` is in the tree of `size` leaves."""
        return inclusion(index, self._at(size), self.node)

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """The proof that the tree of `new` leaves begins with that of `old`."""
        return consistency(old, self._at(new), self.node)

    def _at(self, size: int | None) -> int:
        # Asked here: a proof of the last leaf alone would never look at the leaf itself.
        if size is not None and not 0 <= size <= self.size:
            raise Refuted(f"tree of {self.size} leaves", f"size {size}", f"at most {self.size}")
        return self.size if size is None else size


# Making proofs.


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)  # RFC 6962, 2.1: the largest power of two below n


def _span(first: int, end: int, node: Lookup) -> bytes:
    """MTH(D[first:end]), for a span that splitting a tree leads to."""
    count = end - first
    if count & (count - 1) == 0:
        return node(count.bit_length() - 1, first // count)
    middle = first + _split(count)
    return node_hash(_span(first, middle, node), _span(middle, end, node))


def root(size: int, node: Lookup) -> bytes:
    """The root of the first `size` leaves, from stored nodes."""
    return EMPTY_ROOT if checked_number(size, "size of a tree") == 0 else _span(0, size, node)


def inclusion(index: int, size: int, node: Lookup) -> tuple[bytes, ...]:
    """The proof that leaf `index` is in the tree of `size` leaves: PATH of RFC 6962, 2.1.1."""
    if not 0 <= index < size:
        raise Refuted(f"inclusion in a tree of {size} leaves", f"leaf {index}", "0 <= leaf < size")
    proof, first, end = [], 0, size
    while end - first > 1:
        middle = first + _split(end - first)
        if index < middle:
            proof.append(_span(middle, end, node))
            end = middle
        else:
            proof.append(_span(first, middle, node))
            first = middle
    return tuple(reversed(proof))


def consistency(old: int, new: int, node: Lookup) -> tuple[bytes, ...]:
    """The proof that the tree of `new` leaves begins with that of `old`: RFC 6962, 2.1.2.

    From size 0 there is nothing to prove: the proof is empty, and no general verifier takes it.
    """
    if not 0 <= old <= new:
        raise Refuted(f"consistency with a tree of {new} leaves", f"size {old}", "0 <= old <= new")
    if old in (0, new):
        return ()
    proof, first, end = [], 0, new
    while old != end:  # SUBPROOF(m, D[n], b)
        middle = first + _split(end - first)
        if old <= middle:
            proof.append(_span(middle, end, node))
            end = middle
        else:
            proof.append(_span(first, middle, node))
            first = middle
    if first > 0:  # b is false: the verifier does not know this subtree's digest
        proof.append(_span(first, end, node))
    return tuple(reversed(proof))


# Verifying proofs.


def _inclusion_length(index: int, size: int) -> int:
    """Below the place where the paths of leaf and last leaf part, one a level; above, left ones."""
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


def _consistency_length(old: int, new: int) -> int:
    shift = (old & -old).bit_length() - 1  # the height of the subtree that ends the old tree
    known = old == 1 << shift  # a complete old tree is its own first digest
    return _inclusion_length(old - 1, new) - shift + (not known)


def _checked_length(what: str, proof: Sequence[bytes], length: int) -> None:
    if len(proof) != length:
        raise Refuted(what, f"a proof of {len(proof)} digests", f"{length} digests")
    for digest in proof:
        checked_digest(digest, what)


def _equal(what: str, found: bytes, expected: bytes) -> None:
    if found != expected:
        raise Refuted(what, f"root {found.hex()}", f"root {expected.hex()}")


def verify_inclusion(
    index: int, size: int, leaf_digest: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Raises `Refuted` unless `proof` shows the leaf at `index` in the tree (RFC 9162, 2.1.3.2)."""
    what = f"inclusion of leaf {index} in a tree of {size} leaves"
    if not 0 <= index < checked_number(size, what):  # step 1
        raise Refuted(what, f"leaf {index}", f"a leaf from 0 to {size - 1}")
    _checked_length(what, proof, _inclusion_length(index, size))  # steps 4a and 5, sn = 0
    checked_digest(root, what)
    place, last = index, size - 1  # step 2: fn, sn
    found = checked_digest(leaf_digest, what)  # step 3
    for digest in proof:  # step 4
        if place & 1 or place == last:  # step 4b
            found = node_hash(digest, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, digest)
        place, last = place >> 1, last >> 1  # step 4c
    _equal(what, found, root)  # step 5


def verify_consistency(
    old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Raises `Refuted` unless the new tree begins with the old one (RFC 9162, 2.1.4.2).

    From size 0 it always raises: that every tree begins with the empty one proves nothing.
    """
    what = f"consistency of a tree of {new} leaves with one of {old}"
    if not 0 < old <= checked_number(new, what):
        raise Refuted(what, f"size {old} before size {new}", "0 < old <= new")
    if old == new:  # the RFC asks for old < new; a tree is consistent with itself alone
        _checked_length(what, proof, 0)
        _equal(what, new_root, old_root)
        return
    checked_digest(old_root, what)
    checked_digest(new_root, what)
    _checked_length(what, proof, _consistency_length(old, new))  # steps 1, 6a and 7, sn = 0
    path = list(proof)
    if old & (old - 1) == 0:  # step 2
        path.insert(0, old_root)
    place, last = old - 1, new - 1  # step 3: fn, sn
    while place & 1:  # step 4
        place, last = place >> 1, last >> 1
    found_old = found_new = path[0]  # step 5: fr, sr
    for digest in path[1:]:  # step 6
        if place & 1 or place == last:  # step 6b
            found_old = node_hash(digest, found_old)
            found_new = node_hash(digest, found_new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found_new = node_hash(found_new, digest)
        place, last = place >> 1, last >> 1  # step 6c
    _equal(f"{what}, its old root", found_old, old_root)  # step 7
    _equal(f"{what}, its new root", found_new, new_root)
