"""The tree over a log while it grows: in memory, its digests on disk now and then."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fedkd.audit.verify import EMPTY_ROOT, Note, Range, leaf_hash, node_hash

KEPT_EVERY: Final = 256
"""Entries after which new digests are written. With each entry they would touch more of the file
than the entry itself does; until they are there, the entries tell them."""


class Damaged(ValueError):
    """A log whose newest checkpoint is not over what it would go on from: a second history."""


class GrowingTree:
    """The tree over the entries in `database`, as far as this process knows them.

    It holds what an append needs, and the digests that are not in the table `nodes` yet. Another
    process may have appended since: whoever appends says first how many entries there are.
    """

    def __init__(self, database: sqlite3.Connection, party: str) -> None:
        self._database = database
        self._party = party
        self.size = 0
        """How many entries it knows."""
        self._peaks: list[bytes] = []
        self._fresh: dict[tuple[int, int], bytes] = {}

    def root(self) -> bytes:
        """The root over the entries that it knows."""
        return self._range().root()

    def _range(self) -> Range:
        return Range(self.size, tuple(self._peaks))

    def read(self, size: int) -> None:
        """Reads, in a transaction, what there is of `size` entries.

        Raises `Damaged` where the newest checkpoint was signed over something else.
        """
        self._renew()
        if self.size != size:
            raise self._damaged(f"{size} entries", f"{self.size}")

    def expect(self, size: int) -> None:
        """Makes sure, in a transaction, that it knows all `size` entries there are."""
        if self.size != size:
            self.read(size)

    def forget(self) -> None:
        """After a transaction that failed: what was joined in it was not written."""
        self.size, self._peaks, self._fresh = 0, [], {}

    def _renew(self) -> None:
        kept = self._database.execute("SELECT value FROM facts WHERE name = 'range'").fetchone()
        self._fresh = {}
        try:
            known = Range() if kept is None else Range.from_bytes(bytes(kept[0]))
            self.size, self._peaks = known.size, list(known.digests)
            leaves = self._database.execute(
                "SELECT leaf FROM entries WHERE place >= ? ORDER BY place", (self.size,)
            )
            for (leaf,) in leaves:
                self.join(leaf)
            self._compare_with_newest()
            if kept is None and self.size:
                raise self._damaged("entries without their range", "both")
        except BaseException:
            self.forget()
            raise

    def _compare_with_newest(self) -> None:
        newest = "SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1"
        signed = self._database.execute(newest).fetchone()
        size, root = 0, EMPTY_ROOT
        if signed is not None:
            head = Note.parse(bytes(signed[0])).checkpoint()
            size, root = head.size, head.root
        if (self.size, self.root()) != (size, root):
            found = f"{self.size} entries with root {self.root().hex()}"
            raise self._damaged(found, f"{size} with root {root.hex()}")

    def _damaged(self, found: str, expected: str) -> Damaged:
        return Damaged(
            f"found {found} in the log of {self._party}, expected {expected}, as it signed; "
            "restore the newest copy of its folder"
        )

    def join(self, leaf: bytes) -> None:
        """Adds one leaf at the end."""
        level, digest = 0, leaf_hash(leaf)
        self._fresh[0, self.size] = digest
        while self.size >> level & 1:  # as `Range.appended`, which makes new values of everything
            digest = node_hash(self._peaks.pop(), digest)
            level += 1
            self._fresh[level, self.size >> level] = digest
        self._peaks.append(digest)
        self.size += 1

    def node(self, level: int, place: int) -> bytes | None:
        """The root over the leaves from place * 2^level on, 2^level many; None beyond the end."""
        digest = self._known(level, place)
        if digest is None:  # appended by another process, and not kept yet
            with self._at_one_moment():
                self._renew()
            digest = self._known(level, place)
        return digest

    @contextmanager
    def _at_one_moment(self) -> Iterator[None]:
        if self._database.in_transaction:
            yield
            return
        self._database.execute("BEGIN")
        try:
            yield
        finally:
            self._database.execute("COMMIT")

    def _known(self, level: int, place: int) -> bytes | None:
        if digest := self._fresh.get((level, place)):
            return digest
        row = self._database.execute(
            "SELECT digest FROM nodes WHERE level = ? AND place = ?", (level, place)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def keep_if_due(self) -> None:
        """Writes new digests when enough have come together, in the transaction of an append."""
        if self.size % KEPT_EVERY == 0:
            self._keep()

    @property
    def is_behind(self) -> bool:
        """Whether it knows digests that it has not written."""
        return bool(self._fresh)

    def keep(self) -> None:
        """Writes all digests that are not on disk yet, inside a transaction."""
        if self.is_behind:
            self._renew()
            self._keep()

    def _keep(self) -> None:
        self._database.executemany(
            "INSERT OR IGNORE INTO nodes VALUES (?, ?, ?)",  # another process may have been first
            [(*place, digest) for place, digest in self._fresh.items()],
        )
        self._database.execute(
            "INSERT OR REPLACE INTO facts VALUES ('range', ?)", (self._range().to_bytes(),)
        )
        self._fresh = {}
