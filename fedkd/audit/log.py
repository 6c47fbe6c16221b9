"""One party's log: what happened, in order, on disk before anything depends on it."""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rfc8785

from fedkd.audit.events import EVENTS
from fedkd.audit.keys import log_key, make_keys, witness_keys
from fedkd.audit.place import expect_local
from fedkd.audit.retention import check_erasable, spelled
from fedkd.audit.verify import (
    EMPTY_ROOT,
    SALT_BYTES,
    AddCheckpoint,
    Checkpoint,
    Head,
    Header,
    Note,
    Range,
    Signature,
    TrustPolicy,
    VerifierKey,
    consistency,
    leaf_hash,
    make_leaf,
    root,
)

FORMAT = 3
TABLES = (
    "CREATE TABLE entries (place INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, "
    "type TEXT NOT NULL, at TEXT NOT NULL, leaf BLOB NOT NULL, salt BLOB, body TEXT)",
    "CREATE TABLE nodes (level INTEGER, place INTEGER, digest BLOB NOT NULL, "
    "PRIMARY KEY (level, place)) WITHOUT ROWID",
    "CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note BLOB NOT NULL)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
)
SINCE_3 = (
    "CREATE TABLE cosignatures (size INTEGER, cosigner TEXT, line BLOB NOT NULL, "
    "at INTEGER NOT NULL, PRIMARY KEY (size, cosigner)) WITHOUT ROWID",
    "CREATE TABLE seen (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, "
    "note BLOB NOT NULL)",
)
"""What peers said of this log, and what this party last cosigned of theirs."""

ROWS = "SELECT place, key, type, at, body FROM entries"
NEWEST = """SELECT (SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1),
    (SELECT value FROM facts WHERE name = 'range'), (SELECT MAX(place) FROM entries)"""


class Contradiction(ValueError):
    """A second entry under a key that already names another event or another body."""


class UnknownFormat(ValueError):
    """A log that this version of fedkd cannot read."""


class NotOwnLog(ValueError):
    """A log that another key signs than the one beside it: a copy, or a log without its keys."""


class Damaged(ValueError):
    """A log whose newest checkpoint is not over what it would go on from."""


class Erased(LookupError):
    """The body of an entry was erased under a retention rule; its header stands."""


class StillRead(RuntimeError):
    """Somebody else has the log open, so that what was erased may not yet be gone from the disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One remembered event: its place from 0, its key, type, time (RFC 3339, UTC) and body.

    `said` is the body, or None once it was erased.
    """

    index: int
    key: str
    type: str
    at: str
    said: Mapping[str, Any] | None

    @property
    def body(self) -> Mapping[str, Any]:
        """What the entry says; raises `Erased` where that was erased."""
        if self.said is None:
            raise Erased(
                f"found the body of entry {self.index} ({self.type}) erased, expected it open; "
                "a retention.applied in this log says under which rule"
            )
        return self.said


def utc_now() -> str:
    """The wall clock, RFC 3339, UTC."""
    return spelled(datetime.now(UTC))


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
        expect_local(path.parent)
        self._database = _connected(path)
        try:
            self._open()
            self._expect_own(path.parent)
            make_keys(path.parent, party)
            self._key = log_key(path.parent)
            self.witness_keys = witness_keys(path.parent)
            self._keep_keys()
            self._expect_whole()
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        with self.writing():
            found = self._database.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, 2, FORMAT):
                raise UnknownFormat(
                    f"found a log of format {found}, expected {FORMAT}; read it with the version "
                    "of fedkd that wrote it, and start a new run with this one"
                )
            if found == FORMAT:
                return
            for table in (*TABLES, *SINCE_3) if found == 0 else SINCE_3:
                self._database.execute(table)
            self._database.execute(f"PRAGMA user_version={FORMAT}")

    def _expect_own(self, folder: Path) -> None:
        """A log goes on under the key that it began with: no reader would take another."""
        told = self._fact("vkey")
        if told is None:
            return
        try:
            found = log_key(folder).verifier().text()
        except FileNotFoundError:
            found = "no key"
        if found.encode() != told:
            raise NotOwnLog(
                f"found {found} beside a log, expected {told.decode(errors='replace')}, which "
                "signs it; a copy is for fedkd audit to read, and a party that lost its keys "
                "begins a new log in a new folder"
            )

    def _expect_whole(self) -> None:
        """Whoever went on from a damaged place would sign a second history."""
        note, kept, last = self._database.execute(NEWEST).fetchone()
        range_ = Range() if kept is None else Range.from_bytes(kept)
        found = (0 if last is None else last + 1, range_.size, range_.root())
        signed = Checkpoint(self.origin, 0, EMPTY_ROOT)
        if note is not None:
            signed = Note.parse(bytes(note)).checkpoint()
        if found != (signed.size, signed.size, signed.root):
            raise Damaged(
                f"found {found[0]} entries in the log of {self.party}, which goes on from "
                f"{found[1]} with root {found[2].hex()}; expected {signed.size} with root "
                f"{signed.root.hex()}, as it signed; restore the newest copy of its folder"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction, on disk when it ends; what is written inside joins it."""
        if self._database.in_transaction:
            yield
            return
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def append(self, key: str, type: str, body: Mapping[str, Any]) -> Entry:
        """The entry under `key`, durable: a new one, or the one that was there before.

        Raises `Contradiction` if the key already stands for something else, and `ValueError` if
        `type` is not in the vocabulary or `body` is not JSON that RFC 8785 can write.
        """
        if type not in EVENTS:
            raise ValueError(f"found event {type!r}, expected one of {sorted(EVENTS)}")
        canonical = rfc8785.dumps(dict(body)).decode()
        with self.writing():
            row = self._row(key)
            if row is None:
                self._grow(key, type, body, canonical)
                row = self._row(key)
        if row[2] != type or row[4] not in (canonical, None):  # an erased one cannot be compared
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
        self._keep_fact("range", after.to_bytes())

    def _keep_keys(self) -> None:
        """The public halves, for whoever the log is handed to."""
        witnesses = "\n".join(key.verifier().text() for key in self.witness_keys)
        facts = {"vkey": self._key.verifier().text().encode(), "witness": witnesses.encode()}
        with self.writing() if any(self._fact(n) != v for n, v in facts.items()) else nullcontext():
            for name, value in facts.items():
                if self._fact(name) != value:
                    self._keep_fact(name, value)

    def _keep_fact(self, name: str, value: bytes) -> None:
        self._database.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

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

    @property
    def origin(self) -> str:
        """What the log is called, for ever."""
        return self._key.name

    def node(self, level: int, place: int) -> bytes:
        """A digest of the tree: the root over the leaves from place * 2^level on, 2^level many."""
        row = self._database.execute(
            "SELECT digest FROM nodes WHERE level = ? AND place = ?", (level, place)
        ).fetchone()
        if row is None:
            raise KeyError(f"found no node {place} of level {level} in the log of {self.party}")
        return bytes(row[0])

    def root(self, size: int) -> bytes:
        """The root over the first `size` entries, which are there."""
        return EMPTY_ROOT if size == 0 else root(size, self.node)

    def ask(self, old: int) -> AddCheckpoint:
        """The newest checkpoint with the proof that it goes on from `old`: to be cosigned."""
        note = self.checkpoint()
        if note is None:
            raise ValueError(f"found no entry in the log of {self.party}, expected at least one")
        size = note.checkpoint().size
        return AddCheckpoint(old, consistency(old, size, self.node) if old else (), note)

    def cosigned(self, size: int, lines: Mapping[str, tuple[Signature, int]]) -> None:
        """Keeps what peers said of this log's checkpoint: cosignature and time by cosigner."""
        with self.writing():
            self._database.executemany(
                "INSERT OR REPLACE INTO cosignatures VALUES (?, ?, ?, ?)",
                [(size, key, line.line().encode(), at) for key, (line, at) in lines.items()],
            )

    def cosignatures(self, size: int) -> list[Signature]:
        """What peers said of this log's checkpoint of `size`, as far as it came back."""
        rows = self._database.execute(
            "SELECT line FROM cosignatures WHERE size = ? ORDER BY cosigner", (size,)
        )
        return [Signature.parse(bytes(line).decode()) for (line,) in rows]

    def seen(self) -> dict[str, Head]:
        """The newest head of each other log that this party cosigned."""
        rows = self._database.execute("SELECT origin, size, root FROM seen")
        return {origin: Head(size, bytes(root)) for origin, size, root in rows}

    def see(self, note: Note) -> None:
        """Remembers a checkpoint of another log, before the cosignature over it leaves."""
        head = note.checkpoint()
        with self.writing():
            self._database.execute(
                "INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)",
                (head.origin, head.size, head.root, note.to_bytes()),
            )

    def keep_policy(self, policy: TrustPolicy) -> None:
        """Keeps who cosigns this log and how many of them suffice, for whoever it is handed to."""
        with self.writing():
            self._keep_fact("policy", policy.text())

    def erase(self, indices: Iterable[int], why: Mapping[str, Any]) -> Entry:
        """Erases what these entries say, and says so: an entry `retention.applied` with body `why`.

        Body and salt go, in one transaction with the new entry; headers stay, and with them the
        tree and every proof. Raises `NeverErased` where one of them is still needed. The bytes
        are gone from the folder after `purge`.
        """
        self._database.execute("PRAGMA secure_delete=ON")
        places = [(index,) for index in indices]
        with self.writing():
            for place in places:
                chosen = "SELECT type FROM entries WHERE place = ?"
                check_erasable(self._database.execute(chosen, place).fetchone()[0])
            self._database.executemany(
                "UPDATE entries SET body = NULL, salt = NULL WHERE place = ?", places
            )
            return self.append(f"retention/{len(self)}", "retention.applied", why)

    def purge(self) -> None:
        """Writes the file anew, without what was erased or moved inside it, and empties the WAL.

        Raises `StillRead` where another process keeps it from that; then it can be called again.
        """
        self._database.execute("PRAGMA temp_store=MEMORY")  # no copy of the log in another folder
        try:
            self._database.execute("VACUUM")
            busy = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            busy = True
        if busy:
            raise StillRead(
                f"found the log of {self.party} open elsewhere, expected nobody: what was erased "
                "may not yet be gone from the disk; close it there, and do the same again"
            )

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

    def headers(self) -> Iterator[Header]:
        """What everybody may read of each entry, in order."""
        for (leaf,) in self._database.execute("SELECT leaf FROM entries ORDER BY place"):
            yield Header.parse(bytes(leaf))

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

    def export_policy(self, path: Path) -> None:
        """Writes who cosigns this log, if anybody does, as a C2SP tlog-policy."""
        policy = self._fact("policy")
        if policy is not None:
            path.write_bytes(policy)

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
    return Entry(place, key, type_, at, None if body is None else json.loads(body))
