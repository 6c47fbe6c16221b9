"""A log as a folder of static files (C2SP tlog-tiles): which files there are, and reading them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fedkd.audit.verify.leaves import MOST_LEAF_BYTES
from fedkd.audit.verify.merkle import Lookup, Tree, leaf_hash
from fedkd.audit.verify.notes import Note
from fedkd.audit.verify.refusals import Malformed, Refuted
from fedkd.audit.verify.spellings import DIGEST_BYTES, checked_number

WIDTH: Final = 256
HEIGHT: Final = 8
CHECKPOINT: Final = "checkpoint"
_LENGTH_BYTES: Final = 2

Reader = Callable[[str], bytes]
"""Gives the content of the file at a path such as tile/0/000; what it raises is passed on."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One file: the `index`-th of its level, `width` digests or entries wide; entries: no level."""

    level: int | None
    index: int
    width: int

    @property
    def path(self) -> str:
        """`tile/<L>/<N>[.p/<W>]`, or `tile/entries/<N>[.p/<W>]`."""
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)  # tlog-tiles, Merkle Tree: x001/x234/067
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{number}{partial}"

    @property
    def first(self) -> int:
        """The place, in its level, of its first digest or entry."""
        return self.index * WIDTH


def layout(size: int) -> Iterator[Tile]:
    """Every tile of a tree of `size` leaves: entries first, then digests, level by level.

    A partial tile stands for the last, unfinished part of a level; none is empty.
    """
    yield from _level(None, checked_number(size, "size of a tree"))
    level, count = 0, size
    while count:
        yield from _level(level, count)
        level, count = level + 1, count // WIDTH


def _level(level: int | None, count: int) -> Iterator[Tile]:
    for index in range(-(-count // WIDTH)):
        yield Tile(level, index, min(WIDTH, count - index * WIDTH))


def hash_tile(tile: Tile, node: Lookup) -> bytes:
    """A tile's digests in a row; a digest at level L is the root over 256^L leaves."""
    if tile.level is None:
        raise ValueError("found an entry bundle, expected a tile of digests")
    height = HEIGHT * tile.level
    return b"".join(node(height, tile.first + at) for at in range(tile.width))


def bundle(leaves: Iterable[bytes]) -> bytes:
    """Leaves in a row, each behind its length in two bytes, most significant first."""
    written = []
    for leaf in leaves:
        if len(leaf) > MOST_LEAF_BYTES:
            raise Malformed("leaf", f"{len(leaf)} bytes", f"at most {MOST_LEAF_BYTES}")
        written += [len(leaf).to_bytes(_LENGTH_BYTES, "big"), leaf]
    return b"".join(written)


def read_bundle(content: bytes, width: int, what: str = "entry bundle") -> tuple[bytes, ...]:
    """The inverse of `bundle`, for exactly `width` leaves."""
    leaves: list[bytes] = []
    at = 0
    for _ in range(width):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(content[at:start], "big")
        if start > len(content) or end > len(content):
            raise Malformed(what, f"{len(leaves)} whole entries", str(width))
        leaves.append(content[start:end])
        at = end
    if at != len(content):
        raise Malformed(what, f"{len(content) - at} bytes more", f"{width} entries and no more")
    return tuple(leaves)


def files(leaves: Sequence[bytes], note: Note) -> Iterator[tuple[str, bytes]]:
    """Every file of the log whose signed checkpoint is `note`, as (path, content).

    The checkpoint comes last: a folder that has one is whole. Raises `Refuted` before the first
    file if `leaves` do not have its root.
    """
    tree = _checked_tree(leaves, note)
    for tile in layout(tree.size):
        if tile.level is None:
            yield tile.path, bundle(leaves[tile.first : tile.first + tile.width])
        else:
            yield tile.path, hash_tile(tile, tree.node)
    yield CHECKPOINT, note.to_bytes()


def read_files(read: Reader) -> tuple[tuple[bytes, ...], Note]:
    """The leaves and the signed checkpoint of a folder of tiles, every byte of it compared.

    Leaves must have the checkpoint's root, and every tile of digests must be what they give. Who
    signed the checkpoint is for a policy to say.
    """
    note = Note.parse(read(CHECKPOINT))
    size = note.checkpoint().size
    leaves: list[bytes] = []
    for tile in _level(None, size):
        leaves += read_bundle(read(tile.path), tile.width, tile.path)
    tree = _checked_tree(leaves, note)
    for tile in layout(size):
        if tile.level is not None and (found := read(tile.path)) != hash_tile(tile, tree.node):
            expected = f"the {tile.width * DIGEST_BYTES} that the entries give"
            raise Refuted(tile.path, f"other digests, {len(found)} bytes", expected)
    return tuple(leaves), note


def _checked_tree(leaves: Sequence[bytes], note: Note) -> Tree:
    checkpoint = note.checkpoint()
    tree = Tree(map(leaf_hash, leaves))
    if (tree.size, tree.root()) != (checkpoint.size, checkpoint.root):
        raise Refuted(
            f"entries of {checkpoint}",
            f"{tree.size} with root {tree.root().hex()}",
            f"{checkpoint.size} with root {checkpoint.root.hex()}",
        )
    return tree
