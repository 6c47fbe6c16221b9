"""One party's log: what happened, in order, on disk before anything depends on it."""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rfc8785

from fedkd.audit.events import EVENTS
from fedkd.audit.keys import log_key
from fedkd.audit.verify import (
    SALT_BYTES,
    Checkpoint,
    Note,
    Range,
    VerifierKey,
    leaf_hash,
    make_leaf,
)

FORMAT = 2
TABLES = (
    "CREATE TABLE entries (place INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "
    "type TEXT NOT NULL, at TEXT NOT NULL, leaf BLOB NOT NULL, salt BLOB, body TEXT)",
    "CREATE TABLE nodes (level INTEGER, place INTEGER, digest BLOB NOT NULL, "
    "PRIMARY KEY (level, place)) WITHOUT ROWID",
    "CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
)


ROWS = "SELECT place, key, type, at, body FROM entries"


class Contradiction(ValueError):
    """A second entry under a key that already names another event or another body."""


class UnknownFormat(ValueError):
    """A log that this version of fedkd cannot read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One remembered event: its place from 0, its key, type, time (RFC 3339, UTC) and body."""

    index: int
    key: str
    type: str
    at: str
    body: Mapping[str, Any]


def utc_now() -> str:
    """The wall clock, RFC 3339, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Log:
    """An append-only log in one SQLite file (WAL, synchronous=FULL).

    `append` returns when the entry and a signed checkpoint over all entries are on disk, in one
    transaction, and not before. It is idempotent by key: what is done again after a crash finds
    its entry there. Entries are the leaves of an RFC 6962 tree: a header that everybody may read,
    and a salted commitment to the body (`fedkd.audit.verify`).
    """

    def __init__(self, path: Path, party: str, now: Callable[[], str] = utc_now) -> None:
        self.party = party
        self._now = now
        self._database = _connected(path)
        try:
            self._open()
            self._key = log_key(path.parent, party)
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        found = self._database.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for table in TABLES:
                self._database.execute(table)
            self._database.execute(f"PRAGMA user_version={FORMAT}")
        self._database.execute("COMMIT")
        if found not in (0, FORMAT):
            raise UnknownFormat(
                f"found a log of format {found}, expected {FORMAT}; read it with the version of "
                "fedkd that wrote it, and start a new run with this one"
            )

    def append(self, key: str, type: str, body: Mapping[str, Any]) -> Entry:
        """The entry under `key`, durable: a new one, or the one that was there before.

        Raises `Contradiction` if the key already stands for something else, and `ValueError` if
        `type` is not in the vocabulary or `body` is not JSON that RFC 8785 can write.
        """
        if type not in EVENTS:
            raise ValueError(f"found event {type!r}, expected one of {sorted(EVENTS)}")
        canonical = rfc8785.dumps(dict(body)).decode()
        self._database.execute("BEGIN IMMEDIATE")
        try:
            row = self._row(key)
            if row is None:
                self._grow(key, type, body, canonical)
                row = self._row(key)
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        if (row[2], row[4]) != (type, canonical):
            raise Contradiction(
                f"{self.party}: found another body or type under {key!r}; an entry is never changed"
            )
        return _entry(row)

    def _grow(self, key: str, type: str, body: Mapping[str, Any], canonical: str) -> None:
        """One leaf more, the nodes that it completes, and a checkpoint over it all."""
        kept = self._fact("range")
        before = Range() if kept is None else Range.from_bytes(kept)
        at, salt = self._now(), secrets.token_bytes(SALT_BYTES)
        leaf, _ = make_leaf(
            body, salt, type=type, sequence=before.size, time=at, actor=self.party,
            run=body.get("run"), key=key,
        )  # fmt: skip
        after, nodes = before.appended(leaf_hash(leaf))
        checkpoint = Checkpoint(self._key.name, after.size, after.root())
        text = checkpoint.text()
        note = Note(text, (self._key.sign(text),))
        self._database.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
            (before.size, key, type, at, leaf, salt, canonical),
        )
        self._database.executemany(
            "INSERT INTO nodes VALUES (?, ?, ?)",
            [(node.level, node.index, node.digest) for node in nodes],
        )
        self._database.execute(
            "INSERT INTO checkpoints VALUES (?, ?)", (after.size, note.to_bytes())
        )
        facts = {"range": after.to_bytes(), "vkey": self._key.verifier().text().encode()}
        self._database.executemany(
            "INSERT OR REPLACE INTO facts VALUES (?, ?)", list(facts.items())
        )

    def _fact(self, name: str) -> bytes | None:
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def checkpoint(self) -> Note | None:
        """The newest signed checkpoint; None for an empty log."""
        row = self._database.execute(
            "SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1"
        ).fetchone()
        return None if row is None else Note.parse(bytes(row[0]))

    def verifier(self) -> VerifierKey:
        """The public key that the log's checkpoints are checked with."""
        return self._key.verifier()

    def _row(self, key: str) -> Any:
        return self._database.execute(f"{ROWS} WHERE key = ?", (key,)).fetchone()

    def entry(self, key: str) -> Entry | None:
        """The entry under `key`, if there is one."""
        row = self._row(key)
        return None if row is None else _entry(row)

    def last(self, type: str) -> Entry | None:
        """The newest entry of `type`, if there is one."""
        row = self._database.execute(
            f"{ROWS} WHERE type = ? ORDER BY place DESC LIMIT 1", (type,)
        ).fetchone()
        return None if row is None else _entry(row)

    def entries(self, type: str | None = None) -> Iterator[Entry]:
        """All entries, or those of one type, in order."""
        for row in self._database.execute(
            f"{ROWS} WHERE ? IS NULL OR type = ? ORDER BY place", (type, type)
        ):
            yield _entry(row)

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT COUNT(*) FROM entries").fetchone()[0]
        return count

    def export(self, path: Path) -> None:
        """Writes the whole log as one self-contained file, to be handed over."""
        fresh = path.with_suffix(".partial")
        fresh.unlink(missing_ok=True)
        copy = sqlite3.connect(fresh)
        try:
            self._database.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
        fresh.replace(path)

    def close(self) -> None:
        """Lets go of the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _connected(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    return database


def _entry(row: Any) -> Entry:
    place, key, type_, at, body = row
    return Entry(place, key, type_, at, json.loads(body))
