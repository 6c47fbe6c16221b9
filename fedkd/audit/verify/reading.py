"""Reads one party's log out of its SQLite file, which may be hostile, and leaves it as it is."""

import itertools
import sqlite3
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedkd.audit.verify.refusals import CannotTell, Malformed
from fedkd.audit.verify.spellings import shown

FORMATS: Final = (2, 3)
MOST_ROW_BYTES: Final = 1 << 26
"""A row that says it is longer is refused before it is loaded."""

_NONE: Final = type(None)
_COLUMNS: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = {
    "entries": {
        "place": (int,),
        "key": (str,),
        "type": (str,),
        "at": (str,),
        "leaf": (bytes,),
        "salt": (bytes, _NONE),
        "body": (str, _NONE),
    },
    "nodes": {"level": (int,), "place": (int,), "digest": (bytes,)},
    "checkpoints": {"size": (int,), "note": (bytes,)},
    "facts": {"name": (str,), "value": (bytes,)},
    "cosignatures": {"size": (int,), "cosigner": (str,), "line": (bytes,), "at": (int,)},
    "seen": {"origin": (str,), "size": (int,), "root": (bytes,), "note": (bytes,)},
}
_UNREADABLE: Final = (sqlite3.Error, UnicodeDecodeError)
_SINCE_3: Final = ("cosignatures", "seen")
_WORDS: Final = {int: "a number", str: "text", bytes: "bytes", float: "a fraction", _NONE: "none"}


@dataclass(frozen=True, slots=True)
class StoredLog:
    """The rows of a log as they were read, each of the right types; nothing else is checked.

    `entries` hold (place, key, type, time, leaf, salt, body), `checkpoints` (size, note), `nodes`
    (level, place, digest), `cosignatures` (size, cosigner, line, seconds), and `seen`, which is
    what this party cosigned last of others, (origin, size, root, note).
    """

    format: int
    entries: tuple[Any, ...]
    nodes: tuple[Any, ...]
    checkpoints: tuple[Any, ...]
    facts: Mapping[str, bytes]
    cosignatures: tuple[Any, ...] = ()
    seen: tuple[Any, ...] = ()


def read_log(path: Path) -> StoredLog:
    """The log in the file `path`, which stays as it is, byte for byte.

    Raises `CannotTell` if there is no file, one that may not be read, one that is still being
    written, or another format; and `Malformed` for everything else that is no log.
    """
    _check_file(path)
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_ROW_BYTES)
        for pragma in ("trusted_schema=OFF", "query_only=ON", "temp_store=MEMORY"):
            database.execute(f"PRAGMA {pragma}")
        return _stored(database)
    except _UNREADABLE as error:
        raise Malformed("log", shown(str(error)), "a log in a SQLite file") from None
    finally:
        database.close()


def _check_file(path: Path) -> None:
    name = shown(path.name)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise CannotTell(f"{name}: found no log, expected one") from None
    except OSError as error:
        raise CannotTell(f"{name}: found {error.strerror}, expected a log to read") from None
    if not stat.S_ISREG(mode):  # to open a pipe would wait for ever
        raise Malformed(name, "a folder, a pipe or a device", "a log in a SQLite file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise CannotTell(f"{name}: found {error.strerror}, expected a log to read") from None
    for ending in ("-wal", "-journal"):
        beside = path.with_name(path.name + ending)
        if _size(beside):
            raise CannotTell(
                f"{name}: found {shown(beside.name)} beside it, so entries are missing in it; "
                "expected a log that nobody has open, or its export"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _stored(database: sqlite3.Connection) -> StoredLog:
    found = database.execute("PRAGMA user_version").fetchone()[0]
    if found == 0:
        raise Malformed("log", "a database that is no log", f"a log of format {FORMATS[-1]}")
    if found not in FORMATS:
        expected = " or ".join(map(str, FORMATS))
        raise CannotTell(f"log: found format {found}, expected {expected}; another fedkd reads it")
    named = [name for name in _COLUMNS if found > 2 or name not in _SINCE_3]
    for table in named:
        _check_table(database, table)
    rows = {table: _rows(database, table) for table in named}
    return StoredLog(
        found,
        rows["entries"],
        rows["nodes"],
        rows["checkpoints"],
        dict(rows["facts"]),
        rows.get("cosignatures", ()),
        rows.get("seen", ()),
    )


def _check_table(database: sqlite3.Connection, table: str) -> None:
    """A plain table: a view, a virtual table or a computed column could run for ever."""
    found = database.execute(
        "SELECT type, rootpage FROM sqlite_master WHERE name = ?", (table,)
    ).fetchall()
    if len(found) != 1 or found[0][0] != "table" or not found[0][1]:
        kinds = ", ".join(str(kind) for kind, _ in found) or "nothing"
        raise Malformed(f"table {table}", shown(kinds), "one plain table")
    columns = {row[1]: row[6] for row in database.execute(f"PRAGMA table_xinfo({table})")}
    if columns != dict.fromkeys(_COLUMNS[table], 0):
        raise Malformed(
            f"table {table}",
            f"columns {shown(', '.join(map(str, columns)))}",
            ", ".join(_COLUMNS[table]),
        )


def _rows(database: sqlite3.Connection, table: str) -> tuple[tuple[Any, ...], ...]:
    columns = _COLUMNS[table]
    # The order is that of the primary key, of which the first column is the first part; an index
    # that says something else than the table is not asked.
    selected = f"SELECT {', '.join(columns)} FROM {table} NOT INDEXED ORDER BY 1, 2"  # noqa: S608
    rows: list[tuple[Any, ...]] = []
    try:
        rows.extend(database.execute(selected))
    except _UNREADABLE as error:
        # What was read before is in `rows`; Python asks for the next row before it gives this one.
        what = f"{_name(table, len(rows))}, or the next"
        raise Malformed(what, shown(str(error)), "a row to read") from None
    allowed = set(itertools.product(*columns.values()))
    if not {tuple(map(type, row)) for row in rows} <= allowed:
        raise _wrong_type(table, rows)
    return tuple(rows)


def _wrong_type(table: str, rows: list[tuple[Any, ...]]) -> Malformed:
    for count, row in enumerate(rows):
        for (column, types), value in zip(_COLUMNS[table].items(), row, strict=True):
            if type(value) not in types:
                expected = " or ".join(_WORDS[one] for one in types)
                found = f"{column} that is {_WORDS[type(value)]}"
                return Malformed(_name(table, count), found, expected)
    raise AssertionError(table)


def _name(table: str, count: int) -> str:
    return f"entry {count}" if table == "entries" else f"row {count} of {table}"
