"""Checks one party's log as a file: every leaf, the tree over them, every checkpoint signed."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkd.audit.verify.leaves import Leaf, open_leaf
from fedkd.audit.verify.merkle import Tree, leaf_hash
from fedkd.audit.verify.notes import Note, VerifierKey
from fedkd.audit.verify.refusals import CannotTell, Malformed, Refuted

FORMAT = 2


@dataclass(frozen=True, slots=True)
class CheckedLog:
    """A log that holds together.

    `key` is the one that it was checked with; `own_key` says that this key came out of the log
    itself, which proves that the log is consistent, and not whose it is.
    """

    origin: str
    root: bytes
    entries: tuple[Leaf, ...]
    key: VerifierKey
    own_key: bool

    @property
    def verdict(self) -> str:
        """CONSISTENT for a key from the bundle, VERIFIED for the auditor's own."""
        return "CONSISTENT" if self.own_key else "VERIFIED"

    def bodies(self, type: str) -> list[Mapping[str, Any]]:
        """The open bodies of one type of event, in order."""
        of_type = [leaf.body for leaf in self.entries if leaf.header.type == type]
        return [body for body in of_type if body is not None]


def check_log(path: Path, key: VerifierKey | None = None) -> CheckedLog:
    """The log in the SQLite file `path`, checked; `Refuted` says which entry, and why.

    The file is opened for reading alone and stays as it is, byte for byte. With `key` None the
    key is taken from the log itself.
    """
    if not path.exists():
        raise CannotTell(f"{path.name}: found no log, expected one")
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        return _checked(database, key)
    except sqlite3.DatabaseError as error:
        raise Malformed(path.name, str(error), "a log in a SQLite file") from None
    finally:
        database.close()


def _checked(database: sqlite3.Connection, key: VerifierKey | None) -> CheckedLog:
    found = database.execute("PRAGMA user_version").fetchone()[0]
    if found != FORMAT:
        raise CannotTell(f"log: found format {found}, expected {FORMAT}")
    rows = database.execute(
        "SELECT place, key, type, at, leaf, salt, body FROM entries ORDER BY place"
    ).fetchall()
    entries = tuple(_entry(index, row) for index, row in enumerate(rows))
    tree = Tree(leaf_hash(row[4]) for row in rows)
    notes = database.execute("SELECT size, note FROM checkpoints ORDER BY size").fetchall()
    told = database.execute("SELECT value FROM facts WHERE name = 'vkey'").fetchone()
    if key is None and told is None:
        raise Refuted("log", "no key", "the key that signs it")
    used = VerifierKey.parse(_blob(told[0], "key").decode()) if key is None else key
    if [size for size, _ in notes] != list(range(1, len(rows) + 1)):
        raise Refuted("checkpoints", f"{len(notes)}", f"one for each of {len(rows)} entries")
    for size, note in notes:
        _check_note(Note.parse(_blob(note, f"checkpoint {size}")), size, tree, used)
    return CheckedLog(used.name, tree.root(), entries, used, own_key=key is None)


def _blob(value: Any, what: str) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed(what, f"a value of type {type(value).__name__}", "bytes")
    return value


def _entry(index: int, row: Any) -> Leaf:
    place, key, type_, at, leaf, salt, body = row
    what = f"entry {index}"
    if body is not None and not isinstance(body, str):
        raise Malformed(what, f"a body of type {type(body).__name__}", "text")
    opened = open_leaf(
        _blob(leaf, what),
        None if body is None else body.encode(),
        None if salt is None else _blob(salt, what),
    )
    header = opened.header
    told = (header.sequence, header.key, header.type, header.time)
    if (place, key, type_, at) != told or place != index:
        raise Refuted(f"entry {index}", f"a row {(place, key, type_, at)}", f"{told} of its leaf")
    return opened


def _check_note(note: Note, size: int, tree: Tree, key: VerifierKey) -> None:
    what = f"checkpoint of size {size}"
    note.verify([key])
    checkpoint = note.checkpoint()
    if checkpoint.origin != key.name:
        raise Refuted(what, f"origin {checkpoint.origin}", key.name)
    if checkpoint.size != size or checkpoint.root != tree.root(size):
        raise Refuted(what, f"size {checkpoint.size}, another root", f"the root of {size} entries")


def check_double_entry(server: CheckedLog, sites: Mapping[str, CheckedLog]) -> int:
    """How many answers stand in both books; `Refuted` names the one whose sides differ.

    What the server says it admitted from a site, that site must say it released, and what it
    combined must be what it admitted.
    """
    matched = 0
    released: dict[tuple[str, str, int], str] = {}
    for site, log in sites.items():
        for body in log.bodies("release.outputs"):
            released[site, body["run"], body["round"]] = body["digest"]
    admitted: dict[tuple[str, str, int], str] = {}
    for body in server.bodies("answers.admitted"):
        for site, digest in body["answers"].items():
            where = (site, body["run"], body["round"])
            admitted[where] = digest
            found = released.get(where)
            if found != digest:
                what = f"round {body['round']} of {site}"
                raise Refuted(what, f"{found} in the site's log", f"{digest} in the server's")
            matched += 1
    for body in server.bodies("aggregate.computed"):
        for site, digest in body["inputs"].items():
            if admitted.get((site, body["run"], body["round"])) != digest:
                what = f"round {body['round']}, the aggregate"
                raise Refuted(what, f"input {digest} of {site}", "an answer that was admitted")
    return matched
