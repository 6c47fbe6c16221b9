"""One party's log: what happened, in order, on disk before anything depends on it."""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fedkd.audit.events import EVENTS
from fedkd.audit.growing import Damaged, GrowingTree
from fedkd.audit.keys import log_key, make_keys, witness_keys
from fedkd.audit.locking import locked_folder
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
    SigningKey,
    TrustPolicy,
    VerifierKey,
    canonical_copy,
    commitment,
    consistency,
    root,
)
from fedkd.knowledge.bad_input import OtherFormat

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

LOOK = "SELECT (SELECT MAX(place) FROM entries), EXISTS (SELECT 1 FROM entries WHERE key = ?)"
ROWS = "SELECT place, key, type, at, body FROM entries"


class Contradiction(ValueError):
    """A second entry under a key that already names another event or another body."""


class UnknownFormat(OtherFormat):
    """A log that this version of fedkd cannot read."""


class NotOwnLog(ValueError):
    """A log that another key signs than the one beside it: a copy, or a log without its keys."""


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
        self._tree = GrowingTree(self._database, party)
        self._folder = path.parent
        try:
            self._open()  # sealed keys are opened by whoever signs: reading needs no passphrase
            if locked_folder(path.parent) is None or self._fact("vkey") is None:
                _ = self._keys
        except BaseException:
            self._database.close()
            raise

    def _open(self) -> None:
        with self.writing():
            found = self._database.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, 2, FORMAT):
                raise UnknownFormat("a log", found, FORMAT)
            if found != FORMAT:
                for table in (*TABLES, *SINCE_3) if found == 0 else SINCE_3:
                    self._database.execute(table)
                self._database.execute(f"PRAGMA user_version={FORMAT}")
            if found == 0:
                self._keep_fact("range", Range().to_bytes())
            self._tree.read(len(self))

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
            self._tree.forget()  # first: a full disk has taken the transaction back already
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def append(self, key: str, type: str, body: Mapping[str, Any]) -> Entry:
        """The entry under `key`, durable: a new one, or the one that was there before.

        Raises `Contradiction` if the key already stands for something else, and `ValueError` if
        `type` is not in the vocabulary or `body` is not JSON that RFC 8785 can write.
        """
        if type not in EVENTS:
            raise ValueError(f"found event {type!r}, expected one of {sorted(EVENTS)}")
        written, read = canonical_copy(dict(body), "body")
        with self.writing():
            newest, is_there = self._database.execute(LOOK, (key,)).fetchone()
            if not is_there:
                self._tree.expect(0 if newest is None else newest + 1)
                place, at = self._grow(key, type, body, written)
                return Entry(place, key, type, at, read)
            row = self._row(key)
        # An erased one cannot be compared.
        if row[2] != type or row[4] not in (written.decode(), None):
            raise Contradiction(
                f"{self.party}: found another body or type under {key!r}; an entry is never changed"
            )
        return _entry(row)

    def _grow(
        self, key: str, type: str, body: Mapping[str, Any], written: bytes
    ) -> tuple[int, str]:
        """One entry more, with a checkpoint over them all; its place and time."""
        signer, at = self._keys[0], self._now()
        size, salt = self._tree.size, secrets.token_bytes(SALT_BYTES)
        bound = commitment(written, salt)
        leaf = Header(type, size, at, self.party, bound, run=body.get("run"), key=key).to_bytes()
        self._tree.join(leaf)
        text = Checkpoint(signer.name, size + 1, self._tree.root()).text()
        self._database.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)",
            (size, key, type, at, leaf, salt, written.decode()),
        )
        self._database.execute(
            "INSERT INTO checkpoints VALUES (?, ?)", (size + 1, signer.signed(text))
        )
        self._tree.keep_if_due()
        return size, at

    def _keep_tree(self) -> None:
        """Writes digests that the entries tell, too: no disk is waited for, none is put at risk."""
        if self._tree.is_behind:
            self._database.execute("PRAGMA synchronous=NORMAL")
            try:
                with self.writing():
                    self._tree.keep()
            finally:
                self._database.execute("PRAGMA synchronous=FULL")

    @cached_property
    def _keys(self) -> tuple[SigningKey, tuple[SigningKey, ...]]:
        self._expect_own(self._folder)
        make_keys(self._folder, self.party)
        made = log_key(self._folder), witness_keys(self._folder)
        self._keep_keys(*made)
        return made

    @property
    def witness_keys(self) -> tuple[SigningKey, ...]:
        """The keys by which this party cosigns others' logs."""
        return self._keys[1]

    def _keep_keys(self, key: SigningKey, cosigns: Iterable[SigningKey]) -> None:
        """The public halves, for whoever the log is handed to."""
        witnesses = "\n".join(each.verifier().text() for each in cosigns)
        facts = {"vkey": key.verifier().text().encode(), "witness": witnesses.encode()}
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
        told = self._fact("vkey")
        return self._keys[0].verifier() if told is None else VerifierKey.parse(told.decode())

    @property
    def origin(self) -> str:
        """What the log is called, for ever."""
        return self.verifier().name

    def node(self, level: int, place: int) -> bytes:
        """A digest of the tree: the root over the leaves from place * 2^level on, 2^level many."""
        digest = self._tree.node(level, place)
        if digest is None:
            raise KeyError(f"found no node {place} of level {level} in the log of {self.party}")
        return digest

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
        newest = self._database.execute("SELECT MAX(place) FROM entries").fetchone()[0]
        return 0 if newest is None else int(newest) + 1

    def export(self, path: Path) -> None:
        """Writes the whole log as one self-contained file, to be handed over."""
        self._keep_tree()
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
        if (policy := self._fact("policy")) is not None:
            path.write_bytes(policy)

    def close(self) -> None:
        """Lets go of the file."""
        try:
            # Digests that cannot be written now are told by the entries when it is opened again.
            with suppress(sqlite3.Error, Damaged):
                self._keep_tree()
        finally:
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
