"""One party's log: what happened, in order, on disk before anything depends on it."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rfc8785

from fedkd.audit.events import EVENTS

FORMAT = 1


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

    `append` returns when the entry is on disk, and not before. It is idempotent by key: what is
    done again after a crash finds its entry there. A plain table for now: the tamper-evident tree
    comes behind the same `append`.
    """

    def __init__(self, path: Path, party: str, now: Callable[[], str] = utc_now) -> None:
        self.party = party
        self._now = now
        self._database = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._open()

    def _open(self) -> None:
        found = self._database.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, FORMAT):
            self._database.close()
            raise UnknownFormat(f"found a log of format {found}, expected {FORMAT}")
        if found == FORMAT:
            return
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS entries (place INTEGER PRIMARY KEY, key TEXT NOT NULL "
            "UNIQUE, type TEXT NOT NULL, at TEXT NOT NULL, body TEXT NOT NULL)"
        )
        self._database.execute(f"PRAGMA user_version={FORMAT}")
        self._database.execute("COMMIT")

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
                self._database.execute(
                    "INSERT INTO entries (place, key, type, at, body) VALUES "
                    "((SELECT COALESCE(MAX(place) + 1, 0) FROM entries), ?, ?, ?, ?)",
                    (key, type, self._now(), canonical),
                )
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

    def _row(self, key: str) -> Any:
        return self._database.execute("SELECT * FROM entries WHERE key = ?", (key,)).fetchone()

    def entry(self, key: str) -> Entry | None:
        """The entry under `key`, if there is one."""
        row = self._row(key)
        return None if row is None else _entry(row)

    def last(self, type: str) -> Entry | None:
        """The newest entry of `type`, if there is one."""
        row = self._database.execute(
            "SELECT * FROM entries WHERE type = ? ORDER BY place DESC LIMIT 1", (type,)
        ).fetchone()
        return None if row is None else _entry(row)

    def entries(self, type: str | None = None) -> Iterator[Entry]:
        """All entries, or those of one type, in order."""
        for row in self._database.execute(
            "SELECT * FROM entries WHERE ? IS NULL OR type = ? ORDER BY place", (type, type)
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


def _entry(row: Any) -> Entry:
    place, key, type_, at, body = row
    return Entry(place, key, type_, at, json.loads(body))
